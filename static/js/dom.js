// Building elements. Everything from the network enters as text nodes, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const root = document.documentElement;

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element: h("p", {class: "hint", onclick: f}, "text", node). */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

/** An SVG element, same arguments as h. */
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export const $ = (selector, within = document) => within.querySelector(selector);
export const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

/** An icon of the sprite. */
export const icon = (name) =>
  s("svg", { class: "icon", "aria-hidden": "true", focusable: "false" }, s("use", { href: `${root.dataset.sprite}#${name}` }));

export const kbd = (name) => h("kbd", { "aria-hidden": "true" }, name);

const MARKS = {
  critical: "M5.1 1h5.8L15 5.1v5.8L10.9 15H5.1L1 10.9V5.1zM7 3.6h2V9H7zM7 10.6h2v2H7z",
  high: "M8 1.5 15.3 14.5H.7z",
  medium: "M8 1.2 14.8 8 8 14.8 1.2 8z",
};

/** The shape of a severity (critical, high, medium, low, normal) in a 16 x 16 box. */
export function markShape(severity) {
  if (MARKS[severity]) return s("path", { d: MARKS[severity], "fill-rule": "evenodd" });
  return s("circle", { cx: 8, cy: 8, r: severity === "low" ? 5.2 : severity === "dot" ? 5 : 2.5 });
}

export const mark = (severity) =>
  s("svg", { class: `glyph glyph-${severity}`, viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, markShape(severity));

/** CRITICAL → "Critical"; a LOW flow that no model finds odd is "Normal". */
export const severityWord = (severity) => severity.charAt(0) + severity.slice(1).toLowerCase();

/** Mark and word together, the way a severity is always shown. */
export const severityTag = (severity, word = severityWord(severity)) =>
  h("span", { class: `sev sev-${word.toLowerCase()}` }, mark(word.toLowerCase()), h("span", null, word));

/** Text with **bold** spans as nodes. */
export function rich(text) {
  return String(text ?? "")
    .split("**")
    .map((part, i) => (i % 2 ? h("strong", null, part) : part))
    .filter((part) => part !== "");
}

/** Text with the ** markers taken out, for titles and labels. */
export const plain = (text) => String(text ?? "").replaceAll("**", "");

export const setText = (node, text) => {
  if (node && node.textContent !== text) node.textContent = text;
};

export const replace = (node, ...children) => node.replaceChildren(...children.flat().filter((child) => child || child === 0));

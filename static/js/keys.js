// Single keys. A stack of maps: an open dialog's keys come before the page's.
import { $, h, kbd } from "./dom.js";

const PAGES = { o: ["overview", "Overview"], l: ["live", "Live"], s: ["system", "System"], f: ["offline", "Offline"], r: ["rules", "Rules"], e: ["settings", "Settings"] };
const SEQUENCE_MS = 1500;

const maps = [];
let afterG = 0;
let enabled = true;
try {
  enabled = localStorage.getItem("single-keys") !== "off";
} catch {
  // Without storage the keys are on.
}

/** Adds a map {key: handler}; a handler that returns false lets the key go on. Gives a remover. */
export function pushKeys(map) {
  maps.push(map);
  return () => {
    const at = maps.indexOf(map);
    if (at >= 0) maps.splice(at, 1);
  };
}

const isTyping = (target) => target.isContentEditable || target.matches("input:not([type=checkbox]), textarea, select");

function goTo(key) {
  const [page] = PAGES[key] ?? [];
  const link = page && $(`[data-nav="${page}"]`);
  if (link) location.assign(link.href);
  return Boolean(link);
}

function onKey(event) {
  const target = event.target instanceof Element ? event.target : document.body;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const typing = isTyping(target);
  if (typing && key !== "Escape") return;
  if (!enabled && key.length === 1 && key !== "?") return;
  if ((key === " " || key === "Enter") && target.closest("button, a, summary, input, label")) return;
  if (!typing && Date.now() - afterG < SEQUENCE_MS && !$("dialog[open]")) {
    afterG = 0;
    if (goTo(key)) return event.preventDefault();
  }
  if (key === "g") {
    afterG = Date.now();
    return;
  }
  const dialog = $("dialog[open]");
  for (const map of [...maps].reverse()) {
    if (dialog && map.within !== dialog && !map.everywhere) continue;
    const handler = map[key];
    if (handler && handler(event) !== false) {
      event.preventDefault();
      return;
    }
  }
}

const HELP = [
  [["J"], "next row"], [["K"], "previous row"], [["Enter"], "investigate"], [["X"], "select"],
  [["F"], "false positive, with preview"], [["C"], "close incident"], [["U"], "undo"], [["I"], "worst open incident"],
  [["/"], "filter"], [["Esc"], "close, clear filter"], [["Space"], "pause the list"], [["L"], "back to latest"],
];

export function startKeys() {
  document.addEventListener("keydown", onKey);
  const pages = Object.entries(PAGES).filter(([, [page]]) => $(`[data-nav="${page}"]`));
  const rows = [...HELP, ...pages.map(([key, [, label]]) => [["G", key.toUpperCase()], label]), [["T"], "dark or light"], [["?"], "this list"]];
  $("#help-keys").replaceChildren(...rows.map(([keys, words]) => h("div", null, h("dt", null, keys.map(kbd), h("span", { class: "visually-hidden" }, keys.join(" then "))), h("dd", null, words))));
  const box = $("#single-keys");
  box.checked = enabled;
  box.addEventListener("change", () => {
    enabled = box.checked;
    try {
      localStorage.setItem("single-keys", enabled ? "on" : "off");
    } catch {
      // Without storage the choice holds until the page is left.
    }
  });
}

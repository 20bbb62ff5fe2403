// Light or dark: kept in this browser, "system" until somebody chooses.
import { $$, icon } from "./dom.js";

const root = document.documentElement;
const listeners = [];

export const onThemeChange = (listener) => listeners.push(listener);

function show() {
  const dark = root.dataset.bsTheme === "dark";
  for (const button of $$("[data-action=theme]")) button.querySelector("svg").replaceWith(icon(dark ? "sun" : "moon"));
  for (const listener of listeners) listener();
}

export function toggleTheme() {
  root.dataset.bsTheme = root.dataset.bsTheme === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.bsTheme);
  } catch {
    // Without storage the choice holds until the page is left.
  }
  show();
}

export function startTheme() {
  show();
  for (const button of $$("[data-action=theme]")) button.addEventListener("click", toggleTheme);
}

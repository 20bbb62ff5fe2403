// Light or dark: kept in this browser, "system" until somebody chooses.
import { $$, icon } from "./dom.js";

const root = document.documentElement;

function show() {
  const dark = root.dataset.bsTheme === "dark";
  for (const button of $$("[data-action=theme]")) button.querySelector("svg").replaceWith(icon(dark ? "sun" : "moon"));
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

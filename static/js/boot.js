// Runs before the first paint: chooses light or dark so that no page flashes in the other one.
(() => {
  const root = document.documentElement;
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // Storage may be switched off in the browser; the system's choice then holds.
  }
  const wanted = chosen ?? root.dataset.theme;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.bsTheme = wanted === "dark" || (wanted !== "light" && dark) ? "dark" : "light";
})();

// One message at a time, with Undo where something can be undone. Stays while it has the focus.
import { $, h } from "./dom.js";
import { ServerError, post } from "./api.js";

const SHOWN_MS = 10000;

let lastUndo = null;
let timer = 0;
const listeners = [];

/** Called with the answer after something was undone. */
export const onUndone = (listener) => listeners.push(listener);

function place() {
  const region = $("#toasts");
  // A modal dialog makes everything outside it inert, so the message moves into it.
  (document.querySelector("dialog[open]") ?? document.body).append(region);
  return region;
}

function hide(region) {
  clearTimeout(timer);
  region.replaceChildren();
}

function hideLater(region) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    if (region.matches(":focus-within, :hover")) hideLater(region);
    else hide(region);
  }, SHOWN_MS);
}

/** Shows a sentence; `undo` is the server's token, or several of them. */
export function toast(sentence, { undo = null, problem = false } = {}) {
  const region = place();
  if (undo) lastUndo = undo;
  region.replaceChildren(
    h("div", { class: problem ? "toast-box toast-problem" : "toast-box" },
      h("p", null, sentence),
      undo && h("button", { type: "button", class: "toast-undo", "aria-label": "Undo, key U", onclick: () => undoToken(undo) }, "Undo", h("kbd", { "aria-hidden": "true" }, "U")),
      h("button", { type: "button", class: "toast-close", "aria-label": "Hide this message", onclick: () => hide(region) }, "×")));
  hideLater(region);
}

/** Says what went wrong in the server's words. */
export function tell(error) {
  if (error instanceof ServerError) toast(error.message, { problem: true });
  else if (error instanceof TypeError || error instanceof DOMException) toast("The server did not answer. Nothing was changed.", { problem: true });
  else throw error;
}

export async function undoToken(tokens) {
  try {
    const answers = [];
    for (const token of [tokens].flat()) answers.push(await post(`/api/undo/${encodeURIComponent(token)}`));
    if (lastUndo === tokens) lastUndo = null;
    toast(answers.length === 1 ? (answers[0].sentence ?? "Undone.") : `${answers.length} undone.`);
    for (const answer of answers) for (const listener of listeners) listener(answer);
  } catch (error) {
    tell(error);
  }
}

/** What toast takes as undo, from the answers to one or several actions. */
export function undoOf(answers) {
  const tokens = answers.map((answer) => answer.undo).filter(Boolean);
  return tokens.length > 1 ? tokens : (tokens[0] ?? null);
}

/** Key U: the newest thing that can be undone. */
export const undoLast = () => (lastUndo ? undoToken(lastUndo) : toast("There is nothing to undo here."));

// The panel before an incident is judged harmless: what that would do, asked from the server first.
import { h, plain, replace } from "./dom.js";
import { post } from "./api.js";
import { count, plural } from "./fmt.js";
import { tell, toast, undoOf } from "./toast.js";

const path = (id, what) => `/api/alerts/${encodeURIComponent(id)}/${what}`;

/** Several previews as one: sentences once, the union of what would be closed, every warning. */
async function preview(ids, verdict) {
  const answers = [];
  for (const id of ids) answers.push(await post(path(id, "false_positive/preview"), { verdict }));
  if (answers.length === 1) return answers[0];
  const closes = new Set(answers.flatMap((answer) => answer.closes));
  const hidden = answers.reduce((sum, answer) => sum + (answer.hidden_7_days || 0), 0);
  return {
    sentences: [`${plural(ids.length, "incident")} leave the list, ${count(Math.max(closes.size, ids.length))} in all with those like them.`, `In the last 7 days this would have hidden ${plural(hidden, "incident")}.`],
    warnings: [...new Set(answers.flatMap((answer) => answer.warnings))],
    too_wide: answers.some((answer) => answer.too_wide),
    unconfirmed: answers.find((answer) => answer.too_wide)?.unconfirmed,
    learn_default: answers.every((answer) => answer.learn_default),
  };
}

function marked(ids, answers) {
  const learned = answers.reduce((sum, answer) => sum + (answer.changed?.flows_added || 0), 0);
  const closed = new Set(answers.flatMap((answer) => answer.changed?.closed ?? []));
  const more = [...closed].filter((id) => !ids.includes(id)).length;
  const who = ids.length === 1 ? "Marked as false positive." : `Marked ${count(ids.length)} incidents as false positive.`;
  const also = more ? ` ${plural(more, "similar one")} closed with it.` : "";
  return `${who}${also} ${learned ? `The Live model learns ${plural(learned, "flow")} at its next training.` : "The Live model learns nothing from it."}`;
}

/** What was done on closing `n` incidents with a verdict, from the answers to it. */
export function closedWords(n, verdict, answers) {
  const who = n === 1 ? "Incident closed" : `${plural(n, "incident")} closed`;
  if (verdict === "real") return `${who} as a real attack. Its source teaches the Live model nothing for 7 days.`;
  if (verdict !== "expected") return `${who}.`;
  const hidden = answers.some((answer) => answer.changed?.suppression);
  return `${who} as expected. ${hidden ? "The same is hidden for 30 days." : "If it happens again, it is told again."}`;
}

const HEADS = {
  false: ["If you mark this as a false positive", (n) => `If you mark these ${count(n)} as false positives`],
  expected: ["If you close this as expected", (n) => `If you close these ${count(n)} as expected`],
};

/**
 * Fills `panel` with the preview for the incidents `ids` and shows it.
 * verdict: "false" or "expected". `onDone(answers)` after it was done, `onCancel` when nothing is.
 */
export async function showPanel(panel, ids, { verdict = "false", onDone, onCancel }) {
  let told;
  try {
    told = await preview(ids, verdict);
  } catch (error) {
    tell(error);
    onCancel();
    return;
  }
  const sure = told.too_wide ? h("input", { type: "checkbox" }) : null;
  const judge = async (run, words, button) => {
    button.disabled = true;
    try {
      const answers = [];
      for (const id of ids) answers.push(await run(id, sure?.checked ?? false));
      panel.hidden = true;
      onDone(answers);
      toast(words(answers), { undo: undoOf(answers) });
    } catch (error) {
      button.disabled = false;
      tell(error);
    }
  };
  const action = (words, primary, run, done) => h("button", { type: "button", class: primary ? "btn btn-primary" : "btn btn-plain", "data-needs-server": true, onclick: (event) => judge(run, done, event.currentTarget) }, words);
  const mark = (learn) => (id, confirm) => post("/mark_false_positive", { id, learn, confirm });
  const done = (answers) => marked(ids, answers);
  const careful = told.warnings.length > 0 || told.learn_default === false;
  const learnIt = action("Mark and learn", !careful, mark(true), done);
  const keepOut = action("Mark, do not learn", careful, mark(false), done);
  const expected = action("Close as expected", true, (id, confirm) => post(path(id, "close"), { verdict, confirm }), (answers) => closedWords(ids.length, verdict, answers));
  const cancel = h("button", { type: "button", class: "btn btn-plain", onclick: () => {
    panel.hidden = true;
    onCancel();
  } }, "Cancel");
  const buttons = verdict === "expected" ? [expected] : careful ? [learnIt, keepOut] : [keepOut, learnIt];
  const [one, many] = HEADS[verdict];
  replace(panel,
    h("div", { class: "panel-text" },
      h("h3", null, ids.length === 1 ? one : many(ids.length)),
      h("ul", null, told.sentences.map((sentence) => h("li", null, plain(sentence))), told.warnings.map((warning) => h("li", { class: "warn" }, plain(warning)))),
      sure && h("label", { class: "check" }, sure, " ", h("span", null, h("b", null, "Hide it all the same."), " ", told.unconfirmed))),
    h("div", { class: "panel-actions" }, cancel, buttons));
  panel.hidden = false;
  buttons.at(-1).focus();
}

// The false positive panel: what marking would do, asked from the server before anything happens.
import { h, plain, replace } from "./dom.js";
import { post } from "./api.js";
import { count, plural } from "./fmt.js";
import { tell, toast, undoOf } from "./toast.js";

/** Several previews as one: sentences once, the union of what would be closed, the gravest warning. */
async function preview(ids) {
  const answers = [];
  for (const id of ids) answers.push(await post(`/api/alerts/${encodeURIComponent(id)}/false_positive/preview`));
  if (answers.length === 1) return answers[0];
  const closes = new Set(answers.flatMap((answer) => answer.closes));
  const hidden = answers.reduce((sum, answer) => sum + (answer.hidden_7_days || 0), 0);
  const warnings = [...new Set(answers.map((answer) => answer.warning).filter(Boolean))];
  return {
    sentences: [`${plural(ids.length, "incident")} leave the list, ${count(Math.max(closes.size, ids.length))} in all with those like them.`, `In the last 7 days this would have hidden ${plural(hidden, "alert")}.`],
    warning: warnings[0] ?? null,
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

/**
 * Fills `panel` with the preview for the incidents `ids` and shows it.
 * `onDone(answers)` after marking, `onCancel` when nothing is to happen.
 */
export async function showPanel(panel, ids, { onDone, onCancel }) {
  let told;
  try {
    told = await preview(ids);
  } catch (error) {
    tell(error);
    onCancel();
    return;
  }
  const mark = async (learn, button) => {
    button.disabled = true;
    try {
      const answers = [];
      for (const id of ids) answers.push(await post("/mark_false_positive", { id, learn }));
      panel.hidden = true;
      onDone(answers);
      toast(marked(ids, answers), { undo: undoOf(answers) });
    } catch (error) {
      button.disabled = false;
      tell(error);
    }
  };
  const careful = Boolean(told.warning) || told.learn_default === false;
  const action = (learn, words) => h("button", { type: "button", class: learn === careful ? "btn btn-plain" : "btn btn-primary", "data-needs-server": true, onclick: (event) => mark(learn, event.currentTarget) }, words);
  const learnIt = action(true, "Mark and learn");
  const keepOut = action(false, "Mark, do not learn");
  const cancel = h("button", { type: "button", class: "btn btn-plain", onclick: () => {
    panel.hidden = true;
    onCancel();
  } }, "Cancel");
  replace(panel,
    h("div", { class: "panel-text" },
      h("h3", null, ids.length === 1 ? "If you mark this as a false positive" : `If you mark these ${count(ids.length)} as false positives`),
      h("ul", null, told.sentences.map((sentence) => h("li", null, plain(sentence))), told.warning && h("li", { class: "warn" }, plain(told.warning)))),
    h("div", { class: "panel-actions" }, cancel, careful ? [learnIt, keepOut] : [keepOut, learnIt]));
  panel.hidden = false;
  (careful ? keepOut : learnIt).focus();
}

// Every training of the live model with its figures, and what has changed in the network since.
import { $, h, replace, setText } from "./dom.js";
import { count, exact, number, when } from "./fmt.js";

const share = (value) => (value === null || value === undefined ? "–" : `${number(value * 100)}%`);
const HEAD = [
  ["Version", "1 is the first; a version serves until the next may"],
  ["Trained", "time of the newest flow then"],
  ["Learned", "normal flows fitted; those set apart for its limit"],
  ["Sees", "of the bundled attacks' flows, the share beyond its limit, mean of all attacks"],
  ["False alarms", "of the newest flows set apart, the share that the version before called strange"],
  ["Judged otherwise", "of the same flows, the share on which it and the version before disagree"],
  ["CPU", "seconds of processor time"],
  ["State", ""],
];

function state(one) {
  if (one.serving) return h("span", { class: "tag tag-ok" }, "serves");
  if (one.refusal) return h("span", { class: "tag tag-refused" }, "does not serve");
  return h("span", { class: "tag" }, one.kept ? "kept" : "gone");
}

function row(one) {
  return h("tr", null,
    h("th", { scope: "row" }, `v${one.version}`, one.by_hand ? h("small", null, " by hand") : null),
    h("td", { title: exact(one.trained_at) }, when(one.trained_at)),
    h("td", null, `${count(one.flows)} + ${count(one.held_out)}`),
    h("td", null, share(one.canary_recall)),
    h("td", null, share(one.before_rate)),
    h("td", null, share(one.moved)),
    h("td", null, one.cpu_seconds === undefined ? "–" : `${number(one.cpu_seconds)} s`),
    h("td", null, state(one)));
}

const table = (trainings) =>
  h("table", null,
    h("thead", null, h("tr", null, HEAD.map(([words, title]) => h("th", { scope: "col", title: title || null }, words)))),
    h("tbody", null, trainings.map(row)));

let shown = "";

/** Called with each status; draws again only where something is new, so that a reader keeps their place. */
export function showTrainings(baseline) {
  const card = $("#trainings");
  const { history = [], drift, version } = baseline;
  card.hidden = !history.length;
  const fresh = JSON.stringify([history, drift]);
  if (!history.length || fresh === shown) return;
  shown = fresh;
  const newest = history[history.length - 1];
  setText($("#trainings-count"), count(history.length));
  setText($("#trainings-serving"), version === null || version === undefined ? "no version serves" : `version ${version} serves`);
  const news = [drift?.sentence, newest.serving ? null : newest.refusal].filter(Boolean);
  const notes = $("#trainings-news");
  notes.hidden = !news.length;
  replace(notes, news.map((sentence) => h("p", null, sentence)));
  replace($("#trainings-table"), table([...history].reverse()));
  const told = history.flatMap((one) => [one.refusal, one.drift && `Before version ${one.version}: ${one.drift.sentence}`]).filter(Boolean);
  replace($("#trainings-told"), told.reverse().map((sentence) => h("li", null, sentence)));
}

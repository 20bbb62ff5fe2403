// The overview: one sentence, five figures, traffic, incidents by hour, what is open.
import { $, $$, h, icon, mark, plain, replace, rich, s, setText, severityWord } from "./dom.js";
import { get } from "./api.js";
import { Timeline, hourRows, rangeBar, spark, stacked, tableButton } from "./charts.js";
import { ago, bytes, count, hhmm, number, plural } from "./fmt.js";
import { pushKeys } from "./keys.js";
import { captureHead, firstData, setTitle, shell, startShell } from "./shell.js";

const SEVERITIES = ["CRITICAL", "HIGH", "MEDIUM", "LOW"];
const first = firstData();
let shown = first.overview;

const traffic = new Timeline($("#traffic-chart"), { height: 226, unit: "Mbit/s", name: "Traffic", flag: true });
tableButton($("[data-table-for=traffic-chart]"), $("#traffic-chart"), () => traffic.rows());
tableButton($("[data-table-for=hours-chart]"), $("#hours-chart"), () => hourRows(shown.hours));

function showAnswer(overview) {
  setText($("#sentence"), plain(overview.sentence));
  replace($("#detail"), rich(overview.detail));
  $("#answer").dataset.level = overview.level;
  const button = $("#lead-action");
  button.hidden = !overview.action;
  if (overview.action) {
    button.href = overview.action.href;
    setText($("[data-lead=label]"), overview.action.label);
    $("kbd", button).hidden = !overview.action.href.includes("alert=");
  }
  setTitle(plain(overview.sentence));
}

/** Which severity's colour a value outside its usual range takes; null within it. */
const outside = ({ now, low, high, severity }) =>
  severity ? severity.toLowerCase() : now !== null && now !== undefined && high !== null && high !== undefined && (now > high || now < low) ? "high" : null;

function figure(one) {
  const label = h("p", { class: "figure-label" }, one.label);
  const value = h("p", { class: "figure-value" }, h("span", { class: String(one.value).length > 5 && one.now === null ? "figure-word" : "" }, one.value), one.unit && h("span", { class: "figure-unit" }, one.unit));
  let bar = null;
  if (one.progress !== null && one.progress !== undefined) bar = progress(one.progress, `${one.label}: ${one.value}`);
  else if (one.now !== null && one.now !== undefined) bar = rangeBar({ ...one, words: `${one.label} ${one.value} ${one.unit ?? ""}, ${one.note ?? ""}`, outside: outside(one) });
  return h("div", { class: "figure", "data-key": one.key }, label, value, bar, h("p", { class: "figure-note", title: one.note }, one.note));
}

function progress(share, words) {
  const svg = s("svg", { class: "progress-bar-own", width: "100%", height: 6, role: "img", "aria-label": `${words}, ${Math.round(share * 100)} %` });
  svg.append(s("rect", { class: "c-progress-rail", width: "100%", height: 6, rx: 3 }), s("rect", { class: "c-progress", width: `${Math.min(100, share * 100)}%`, height: 6, rx: 3 }));
  return svg;
}

function showLearning({ overview, status }) {
  const card = $("#learning");
  card.hidden = overview.level !== "learning" || !status;
  if (card.hidden) return;
  const { baseline, capture, models } = status;
  const pace = (status.flows_per_minute?.values ?? []).filter((value) => value !== null).pop();
  const trained = baseline.phase === "TRAINED";
  const calibrating = models.filter((model) => model.name !== "live" && model.state === "CALIBRATING");
  const step = (done, words) => h("li", { class: done ? "done" : "" }, done ? icon("check2") : icon("circle"), h("span", null, words, h("span", { class: "visually-hidden" }, done ? ", done" : ", not yet")));
  replace(card,
    progress(trained ? 1 : baseline.collected / baseline.needed, "Learning"),
    h("div", { class: "learning-ends" }, h("span", null, `${count(baseline.collected)} of ${count(baseline.needed)} flows`), pace !== undefined && h("span", null, `${count(pace)} flows/min`)),
    h("ul", { class: "checklist" },
      step(capture.state === "capturing" || capture.state === "replay" || capture.state === "sample", captureHead(capture)),
      step((capture.flows_ended ?? 0) >= 100, "First 100 flows seen"),
      ...models.filter((model) => model.name !== "live").map((model) => step(model.state === "READY", model.state === "CALIBRATING" ? `${severityWord(model.name.toUpperCase())} model calibrated, ${count(model.calibrated)} of ${count(model.needed)}` : `${severityWord(model.name.toUpperCase())} model calibrated`)),
      step(trained, "Live model trained")),
    calibrating.length > 0 && h("p", { class: "hint" }, "Scans, floods and repeated connections are told from the first second."));
}

function showTraffic({ traffic: data }) {
  traffic.update(data);
  const known = data.low !== null && data.low !== undefined;
  replace($("#traffic-legend"),
    h("span", { class: "key-line" }, "now"),
    known ? h("span", { class: "key-band" }, "usual range") : h("span", null, "usual range not known yet"),
    h("span", null, `last ${Math.round((data.step_s * data.values.length) / 60)} min`));
}

function showHours({ hours }) {
  replace($("#hours-chart"), stacked(hours, 172));
  const sum = (key) => hours.reduce((total, hour) => total + (hour[key] || 0), 0);
  replace($("#hours-legend"), SEVERITIES.map((key) => h("li", { class: `sev sev-${key.toLowerCase()}` }, mark(key.toLowerCase()), h("span", null, severityWord(key)), h("span", { class: "sev-count" }, count(sum(key))))));
}

const link = (incident) => `/live?tab=alerts&alert=${encodeURIComponent(incident.id)}`;

function incidentRow(incident) {
  const severity = incident.severity.toLowerCase();
  return h("li", { class: "incident" },
    h("span", { class: `incident-mark sev-${severity}` }, mark(severity), h("span", { class: "visually-hidden" }, severityWord(incident.severity))),
    h("div", { class: "incident-text" },
      h("h3", null, h("a", { href: link(incident) }, plain(incident.title))),
      h("p", null, rich(incident.short ?? incident.why))),
    h("div", { class: "incident-spark p2" }, spark(incident.rate, severity)),
    h("div", { class: "incident-count" }, h("strong", null, plural(incident.count, "alert")), h("span", { "data-age": incident.last_time, title: hhmm(incident.last_time) }, ago(incident.last_time))),
    h("a", { class: "btn btn-plain btn-small", "data-needs-server": true, href: link(incident), "aria-label": `Open: ${plain(incident.title)}` }, "Open"));
}

function showIncidents({ incidents, open_total: total, level }) {
  const all = $("#open-all");
  all.hidden = total <= incidents.length;
  setText(all, `All ${total}`);
  if (incidents.length) replace($("#incidents"), incidents.map(incidentRow));
  else {
    replace($("#incidents"), h("li", { class: "empty" },
      h("h3", null, "No open incidents"),
      h("p", null, level === "learning" ? "Scans and floods are told from the first second; the models join once they know what is normal here." : "When something leaves its usual range, it appears here with the reason."),
      h("a", { class: "btn btn-plain", href: "/live?tab=logs" }, "Watch the flows")));
  }
}

function showDevices({ devices = [] }) {
  $("#devices").hidden = !devices.length;
  const top = Math.max(1, ...devices.map((device) => Math.max(device.bytes, device.high ?? 0))) * 1.1;
  replace($("#devices-list"), devices.slice(0, 5).map((device) => {
    const name = device.name || device.address;
    const bar = { now: device.bytes, low: device.low, high: device.high, max: top };
    return h("li", null,
      h("span", { class: "bar-name", title: device.address }, name),
      rangeBar({ ...bar, words: `${name}, ${bytes(device.bytes)}`, outside: outside(bar) }),
      h("span", { class: "bar-value" }, bytes(device.bytes)));
  }));
}

function showObjections({ objections = [] }) {
  $("#objections").hidden = !objections.length;
  const top = Math.max(0.001, ...objections.map((one) => Math.max(one.share ?? 0, one.high ?? 0))) * 1.6;
  replace($("#objections-list"), objections.map((one) => {
    const name = severityWord(one.model.toUpperCase());
    const words = one.share === null || one.share === undefined ? "no data" : `${number(one.share * 100)} %`;
    const bar = { now: one.share, low: one.low, high: one.high, max: top };
    return h("li", null, h("span", { class: "bar-name" }, name), rangeBar({ ...bar, words: `${name} objects to ${words} of the flows`, outside: outside(bar) }), h("span", { class: "bar-value" }, words));
  }));
}

function show(overview, status) {
  shown = overview;
  showAnswer(overview);
  showLearning({ overview, status });
  replace($("#figures"), overview.figures.map(figure));
  showTraffic(overview);
  showHours(overview);
  showIncidents(overview);
  showDevices(overview);
  setText($("#devices-view"), plain(status.capture.devices?.sentence ?? ""));
  showObjections(overview);
  const side = Boolean(overview.devices?.length || overview.objections?.length);
  $("#side-lists").hidden = !side;
  $("#lower").classList.toggle("grid-1", !side);
}

/** While the server is silent, labels say of when their figures are. */
function relabel(stale) {
  const time = hhmm(shell.status?.time ?? Date.now() / 1000);
  for (const label of $$(".figure-label")) {
    label.dataset.words ??= label.textContent;
    label.textContent = stale ? `${label.dataset.words.replace(/ now$/, "")} at ${time}` : label.dataset.words;
  }
}

startShell({
  status: first.status,
  everyMs: 5000,
  tick: async (status) => show(await get("/api/overview"), status),
});
show(first.overview, first.status);
shell.onStale.push(relabel);
pushKeys({
  i: () => {
    if (shown.incidents.length) location.assign(link(shown.incidents[0]));
    else return false;
    return true;
  },
});

// The parts of the investigate dialog: why, what is different, the flow, the models, the rule.
import { h, icon, mark, plain, replace, rich, severityTag, severityWord } from "./dom.js";
import { devBar, history, scoreStrip } from "./charts.js";
import { bytes, count, duration, exact, hhmmss, milliseconds, number, plural, range, rarity, raritySentence, score, withUnit } from "./fmt.js";

const LEVELS = ["low", "medium", "high", "critical"];
const MAX_DEVIATIONS = 5;
const FLOWS_SHOWN = 5;
const FAR = 10;
const NEAR = 2;

/** A name before its address; the address alone where there is no name. */
function party(name, address, port) {
  const tail = port ? `:${port}` : "";
  return name
    ? h("span", { class: "party", title: `${address}${tail}` }, h("b", null, name), " ", h("span", { class: "dim" }, address + tail))
    : h("span", { class: "party", title: `${address}${tail}` }, h("b", null, address), h("span", { class: "dim" }, tail));
}

/** How far outside its range a value lies, as a severity no worse than the incident's own. */
function reach(deviation, severity) {
  const { value, low, high, ratio } = deviation;
  if (value >= low && value <= high) return "dot";
  const wanted = ratio >= FAR ? 3 : ratio >= NEAR ? 2 : 1;
  return LEVELS[Math.min(wanted, LEVELS.indexOf(severity))];
}

function compared({ value, low, high, ratio }) {
  if (value >= low && value <= high) return "within usual";
  if (!ratio || ratio > 1e6) return value > high ? "above usual" : "below usual";
  return value > high ? `${number(ratio)}× usual top` : `${number(ratio)}× below usual`;
}

function deviationRow(deviation, severity) {
  const { label, unit, value, low, high, ordinary, feature } = deviation;
  const level = reach(deviation, severity);
  // Within its range a value is odd only beside the others: what flows like this one have tells more.
  const inside = value >= low && value <= high && ordinary !== undefined;
  const like = inside && withUnit(ordinary, unit) !== withUnit(value, unit) ? `, ${withUnit(ordinary, unit)} in flows like it` : "";
  const usual = `usual ${range(low, high, unit)}${like}`;
  const far = compared(deviation);
  return h("div", { class: "dev" },
    h("div", { class: "dev-name" }, h("b", { title: feature }, label), h("span", null, usual)),
    h("div", { class: "dev-chart" }, devBar(deviation, level, `${label} ${withUnit(value, unit)}, ${usual}, ${far}`)),
    h("div", { class: `dev-value dev-${level}` }, h("b", null, withUnit(value, unit)), h("span", null, far)));
}

function deviations(worst, severity) {
  const outside = ({ value, low, high }) => value < low || value > high;
  const list = [...(worst?.deviations ?? [])].sort((a, b) => outside(b) - outside(a)).slice(0, MAX_DEVIATIONS);
  const words = worst?.explainability?.top_deviations ?? [];
  if (!list.length) {
    return words.length ? h("section", null, h("h3", null, "What is different"), h("ul", { class: "plain-list" }, words.map((word) => h("li", null, plain(word))))) : null;
  }
  const worstLevel = reach(list[0], severity);
  return h("section", { class: "different" },
    h("h3", null, "What is different"),
    h("p", { class: "legend" }, h("span", { class: "key-box" }, "usual range, 98 of 100 flows"), h("span", { class: "key-mark" }, mark(worstLevel), "this flow"), list.some((d) => d.log) && h("span", null, "log scale")),
    list.map((deviation) => deviationRow(deviation, severity)));
}

/** What a port stands for; empty where it only repeats protocol and port. */
export const serviceName = ({ protocol, service }) => (service && service !== protocol && !service.startsWith(`${protocol} `) ? service : "");

/** "TCP, HTTPS"; the protocol alone where no port names a service. */
const protocolWords = (record) => [record.protocol, serviceName(record)].filter(Boolean).join(", ");

const fact = (name, ...value) => [h("dt", null, name), h("dd", null, value)];

const STATES = { active: "still going on", quiet: "silent for now", fin: "closed by both sides", rst: "broken off", idle: "ended by silence", timeout: "goes on in another record", shutdown: "ended with the capture", evicted: "left a full table" };

function flowFacts(record) {
  return h("dl", { class: "facts" },
    fact("From", party(record.names?.src, record.src_ip, record.src_port)),
    fact("To", party(record.names?.dst, record.dst_ip, record.dst_port)),
    fact("Protocol", protocolWords(record)),
    fact("Size", `${bytes(record.bytes)} in ${plural(record.packets, "packet")}`),
    fact("Lasted", `${duration(record.duration_s)}, ${STATES[record.state] ?? record.state}`),
    fact("Connection", record.connection_state));
}

function listed(values, shown = 6) {
  const some = values.slice(0, shown).join(", ");
  return values.length > shown ? `${some} and ${count(values.length - shown)} more` : some;
}

function incidentFacts(alert, worst) {
  const ports = alert.ports ?? [];
  const targets = alert.targets ?? [];
  const alone = alert.count === 1 && worst;
  return h("dl", { class: "facts" },
    fact("From", party(alert.names?.src, alert.src_ip, alone ? worst.src_port : null)),
    fact("To", targets.length > 1 ? [party(alert.names?.dst, alert.dst_ip), ` and ${count(targets.length - 1)} more`] : party(alert.names?.dst, alert.dst_ip, ports.length === 1 ? ports[0] : null)),
    ports.length > 1 ? fact(plural(ports.length, "Port").replace(/^\S+ /, ""), listed(ports)) : null,
    worst ? fact("Protocol", protocolWords(worst)) : null,
    worst ? fact(alert.count > 1 ? "Oddest flow" : "Size", `${bytes(worst.bytes)}, ${plural(worst.packets, "packet")}, ${duration(worst.duration_s)}`) : null,
    fact("Pattern", [...new Set([alert.pattern, alert.subpattern, alert.technique])].filter(Boolean).join(", ")));
}

/** Newest flows of an incident as a small table; `more` opens the rest. */
export function flowTable(records, shown = FLOWS_SHOWN, total = records.length, href = null) {
  const body = h("tbody");
  const row = (record) => h("tr", null,
    h("td", null, hhmmss(record.time), h("span", { class: "dim" }, milliseconds(record.time))),
    h("td", { class: "sub-src" }, party(record.names?.src, record.src_ip)),
    h("td", null, party(record.names?.dst, record.dst_ip, record.dst_port)),
    h("td", null, severityTag(record.severity, wordOf(record))),
    h("td", { class: "p3" }, protocolWords(record)),
    h("td", { class: "num" }, rarity(record.rarity)));
  body.append(...records.slice(0, shown).map(row));
  const foot = h("div", { class: "sub-foot" });
  const rest = records.slice(shown);
  const all = href && total > records.length ? h("a", { class: "link", href }, `All ${count(total)} in the logs`) : null;
  if (rest.length) {
    foot.append(h("button", { type: "button", class: "link", onclick: (event) => {
      body.append(...rest.map(row));
      event.target.remove();
      if (all) foot.append(all);
    } }, `Show the other ${count(rest.length)}`));
  } else if (all) foot.append(all);
  return h("div", { class: "sub" },
    h("table", { class: "sub-table" },
      h("caption", { class: "visually-hidden" }, "Flows of this incident, newest first"),
      h("thead", null, h("tr", null, ["Time", "Source", "Destination", "Severity", "Protocol", "How rare"].map((words, i) => h("th", { scope: "col", class: ["", "sub-src", "", "", "p3", "num"][i] }, words)))),
      body),
    foot.childNodes.length ? foot : null);
}

/** LOW without anything odd is "Normal" on the page. */
export const wordOf = (record) => (record.severity === "LOW" && record.final_decision === "ALLOW" && !record.borderline ? "Normal" : severityWord(record.severity));

const VERDICTS = { false: "false positive", expected: "expected", real: "real attack" };

/** What a person said of an incident; null where nobody has. */
export const verdictTag = (verdict) => (VERDICTS[verdict] ? h("span", { class: `tag tag-${verdict}` }, VERDICTS[verdict]) : null);

/** What judging an incident harmless keeps quiet, and how much that was until now. */
const hidingWords = ({ scope, hits, until }) => `${plain(scope)}: ${hits ? plural(hits, "alert") : "nothing yet"}. It is told again from ${exact(until)}.`;

export function incidentLeft(alert) {
  const worst = alert.worst ?? null;
  const severity = alert.severity.toLowerCase();
  const different = deviations(worst, severity);
  const notes = (alert.notes ?? []).map((note) => (typeof note === "string" ? note : note.text)).filter(Boolean);
  const few = (worst?.deviations ?? []).length < 3 && alert.flow_records?.length;
  return [
    h("p", { class: "why" }, rich(alert.why)),
    different,
    h("div", { class: "inv-lower" },
      h("section", null, h("h3", null, alert.count > 1 ? "Flows" : "Flow"), incidentFacts(alert, worst)),
      alert.history?.values?.length ? h("section", null, h("h3", null, plain(alert.history.label)), history(alert.history)) : null),
    few ? h("section", null, h("h3", null, "Newest flows"), flowTable(alert.flow_records, FLOWS_SHOWN, alert.count)) : null,
    alert.hiding ? h("section", null, h("h3", null, "Hidden since then"), h("p", { class: "hint" }, hidingWords(alert.hiding))) : null,
    notes.length ? h("section", null, h("h3", null, "Notes"), h("ul", { class: "plain-list" }, notes.map((note) => h("li", null, note)))) : null,
  ].filter(Boolean);
}

function modelRow(model, severity) {
  const name = model.label ?? severityWord(model.name.toUpperCase());
  const absent = model.vote === "UNAVAILABLE";
  const sentence = absent ? `Does not vote: ${plain(model.reason_no_vote ?? "not available")}${/[.]$/.test(model.reason_no_vote ?? "") ? "" : "."}` : raritySentence(model.rarity, model.vote);
  const figures = score(model.score);
  const strip = !absent && model.histogram?.length && model.threshold !== null && model.threshold !== undefined;
  return h("div", { class: absent ? "model model-absent" : "model" },
    h("p", { class: "model-head" }, h("b", null, name), h("span", null, plain(model.learned ?? ""))),
    strip ? scoreStrip(model, severity, `${name}: score ${figures}. ${sentence}`) : null,
    h("p", { class: "model-foot" }, h("span", null, sentence), absent ? null : h("span", { class: "dim", title: "Score: log10 of the share of normal flows at least this odd" }, figures)),
    absent || (model.autoencoder ?? null) === null ? null : h("p", { class: "model-foot" }, h("span", { class: "dim", title: "One of its experts: which features can't be told from the others" }, "Its autoencoder alone"), h("span", { class: "dim" }, score(model.autoencoder))));
}

export function models(list, severity, { pattern = null } = {}) {
  const voting = list.filter((model) => model.vote !== "UNAVAILABLE");
  const against = list.filter((model) => model.vote === "ANOMALY");
  const head = !list.length ? "No flow of it was judged" : voting.length ? `${against.length} of ${list.length} models ${against.length === 1 ? "objects" : "object"}` : "No model votes yet";
  const byModels = !pattern || pattern === "ANOMALY";
  return h("section", { class: "models" },
    h("div", { class: "models-head" }, h("h3", null, head), h("span", { class: "hint" }, byModels ? (against.length ? `so: ${severity}` : "") : `by ${pattern}: ${severity}`)),
    list.map((model) => modelRow(model, severity)));
}

const ACTIONS = { MONITOR_ONLY: "Watch", RATE_LIMIT_IP: "Limit", RATE_LIMIT_ENDPOINT: "Limit", TEMP_BLOCK_IP: "Block" };

/** The recommended rule: a sentence, its parts, and the promise that nothing was applied. */
export function rule(recommendation) {
  if (!recommendation?.action) return null;
  const { action, scope, conditions = {}, sentence, reason, dry_run: dry } = recommendation;
  const watch = action === "MONITOR_ONLY";
  const words = sentence ?? `${ACTIONS[action] ?? action} **${scope?.value ?? ""}**${conditions.duration_seconds ? ` for ${duration(conditions.duration_seconds)}` : ""}`;
  const cells = dry
    ? [[count(dry.alerts), dry.alerts === 1 ? "alert" : "alerts"], [count(dry.normal_flows), "normal flows"], [`${number(dry.hours)} h`, "replayed"]]
    : [[ACTIONS[action] ?? action, "action"], [conditions.threshold ?? "every flow", "limit"], [conditions.duration_seconds ? duration(conditions.duration_seconds) : "no end", "duration"]];
  const said = h("span", { class: "hint", role: "status" });
  const copy = h("button", { type: "button", class: "btn btn-plain btn-small", onclick: async () => {
    try {
      await navigator.clipboard.writeText(JSON.stringify(recommendation, null, 2));
      replace(said, "Copied.");
    } catch {
      replace(said, "The browser allows no copying here.");
    }
  } }, icon("copy"), "Copy as JSON");
  return h("section", { class: "rule" },
    h("div", { class: "models-head" }, h("h3", null, "Recommended rule"), h("span", { class: "tag" }, "not applied")),
    h("p", { class: "rule-sentence" }, rich(words)),
    dry ? h("p", { class: "hint" }, "Dry run: what it would have matched") : null,
    watch && reason ? h("p", { class: "rule-reason" }, plain(reason).replace(/[.]?$/, ".")) : null,
    watch && !dry ? null : h("div", { class: "cells" }, cells.map(([value, label]) => h("div", { class: "cell" }, h("b", { title: value }, value), h("span", null, label)))),
    h("p", { class: "hint" }, scope ? `Scope ${scope.type}, ${scope.value}; action ${action}.` : `Action ${action}.`),
    h("div", { class: "row-actions" }, copy, said));
}

const MODEL_NAMES = { live: "Live", home: "Home", industrial: "Industrial" };

/** The models of a single flow, from the fields of its record. */
export function flowModels(record) {
  const reference = record.rarity?.reference ?? null;
  return Object.keys(MODEL_NAMES).map((name) => ({
    name,
    label: MODEL_NAMES[name],
    score: record.scores?.[name] ?? null,
    autoencoder: name === "live" ? record.scores?.autoencoder ?? null : null,
    threshold: null,
    vote: record.model_votes?.[name] ?? "UNAVAILABLE",
    rarity: record.scores?.[name] === null || record.scores?.[name] === undefined ? null : { n: 10 ** -record.scores[name], reference, beyond: reference !== null && 10 ** -record.scores[name] > reference },
    reason_no_vote: record.packets === 1 && name !== "live" ? "a flow of one packet" : "not trained or not calibrated yet",
    histogram: null,
    learned: "",
  }));
}

export function flowLeft(record) {
  const who = record.names?.src || record.src_ip;
  const whom = record.names?.dst || record.dst_ip;
  const service = record.service || record.protocol;
  const rare = rarity(record.rarity);
  const close = rare === "common" ? "Flows like it are common here." : rare === "not judged" ? "No model could judge it yet." : `How rare: **${rare}** of the normal flows.`;
  return [
    h("p", { class: "why" }, rich(`**${who}** exchanged **${bytes(record.bytes)}** with **${whom}** by ${service} in ${duration(record.duration_s)}. ${rare.startsWith("rarest") ? `It is the **${rare}** normal flows.` : close}`)),
    deviations(record, record.severity.toLowerCase()),
    h("div", { class: "inv-lower" }, h("section", null, h("h3", null, "Flow"), flowFacts(record))),
  ].filter(Boolean);
}

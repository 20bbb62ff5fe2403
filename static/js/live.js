// The live page: its address says which tab, which filters and which details are open.
import { $, $$, h, icon, replace, setText, severityWord } from "./dom.js";
import { Timeline, tableButton } from "./charts.js";
import { Alerts } from "./alerts.js";
import { Investigate } from "./dialog.js";
import { count, duration, hhmm, number } from "./fmt.js";
import { pushKeys } from "./keys.js";
import { LOG_FILTERS, Logs, showChips } from "./logs.js";
import { captureHead, fillCaptureMenu, firstData, interfaceName, lostPackets, setTitle, shell, startShell } from "./shell.js";
import { onUndone, tell, toast } from "./toast.js";
import { showTrainings } from "./trainings.js";

const TYPING_MS = 150;
const STATUSES = ["OPEN", "CLOSED", "FALSE_POSITIVE"];
const first = firstData();

/** The address as state, and back. Only what differs from the usual stands in it. */
function readAddress() {
  const query = new URLSearchParams(location.search);
  const of = (key) => query.get(key) ?? "";
  return {
    tab: of("tab") === "alerts" || (of("alert") && of("tab") !== "logs") ? "alerts" : "logs",
    status: STATUSES.includes(of("status")) ? of("status") : "OPEN",
    filters: Object.fromEntries(Object.keys(LOG_FILTERS).map((key) => [key, of(key)])),
    alert: of("alert"),
    flow: of("flow"),
  };
}

const state = readAddress();
const kept = { logs: {}, alerts: {} };

function writeAddress({ push = false } = {}) {
  const query = new URLSearchParams({ tab: state.tab });
  if (state.tab === "alerts" && state.status !== "OPEN") query.set("status", state.status);
  for (const [key, value] of Object.entries(state.filters)) if (value) query.set(key, value);
  if (state.alert) query.set("alert", state.alert);
  if (state.flow) query.set("flow", state.flow);
  const url = `${location.pathname}?${query}`;
  if (url === location.pathname + location.search) return;
  history[push ? "pushState" : "replaceState"]({ pushed: push }, "", url);
}

const logs = new Logs({
  max: first.max_ui_logs,
  open: (record) => show("flow", record.id),
  filter: (filters) => chooseFilters(filters, { push: true }),
  capture: () => shell.status,
});
const alerts = new Alerts({
  open: (alert, options) => show("alert", alert.id, options),
  filter: (filters) => chooseFilters(filters, { push: true }),
});
const view = () => (state.tab === "logs" ? logs : alerts);

const dialog = new Investigate({
  neighbours: (kind, id) => {
    const { keys } = kind === "flow" ? logs.rows : alerts.rows;
    const at = keys.indexOf(id);
    return { place: at + 1, total: keys.length, previous: keys[at - 1], next: at < 0 ? undefined : keys[at + 1] };
  },
  show: (kind, id) => show(kind, id),
  onClosed: (kind, id) => {
    const wasPushed = history.state?.pushed && history.state?.details;
    state.alert = "";
    state.flow = "";
    if (wasPushed) history.back();
    else writeAddress();
    (kind === "flow" ? logs : alerts).rows.focus(id);
    showPageTitle();
  },
  onChanged: (changed) => {
    alerts.apply(changed);
    shell.poller.now();
  },
});

/** Opens the details of a flow or an incident and puts it into the address. */
function show(kind, id, { falsePositive = false, fromAddress = false } = {}) {
  const wasOpen = dialog.open;
  state.alert = kind === "alert" ? id : "";
  state.flow = kind === "flow" ? id : "";
  if (kind === "alert" && state.tab !== "alerts" && !fromAddress) switchTab("alerts", { push: false, quiet: true });
  if (!fromAddress) {
    writeAddress({ push: !wasOpen });
    if (!wasOpen) history.replaceState({ pushed: true, details: true }, "");
    else history.replaceState({ ...history.state, details: true }, "");
  }
  if (kind === "flow") {
    const record = logs.record(id);
    if (!record) {
      state.flow = "";
      writeAddress();
      toast("That flow is no longer kept.");
      return;
    }
    logs.rows.setCurrent(id);
    dialog.flow(record);
  } else {
    alerts.rows.setCurrent(id);
    void dialog.alert(id, alerts.record(id), { falsePositive });
  }
}

function showPageTitle() {
  setTitle(state.tab === "logs" ? "Live" : "Alerts, live");
}

function showTab() {
  for (const tab of $$("[role=tab]")) {
    const on = tab.id === `tab-${state.tab}`;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    $(`#${tab.getAttribute("aria-controls")}`).hidden = !on;
  }
  if (state.tab === "logs" && shell.status) strip.update(shell.status.flows_per_minute);
  showPageTitle();
}

function showForm() {
  const form = $(state.tab === "logs" ? "#log-filters" : "#alert-filters");
  for (const key of Object.keys(LOG_FILTERS)) {
    const field = form.elements[key];
    if (field && field !== document.activeElement) field.value = state.filters[key] ?? "";
    field?.closest(".field").classList.toggle("field-set", Boolean(state.filters[key]));
  }
  const any = Object.values(state.filters).some(Boolean);
  if (state.tab === "logs") {
    showChips($("#log-chips"), state.filters, (filters) => chooseFilters(filters, { push: true }));
    $("[data-action=clear-filters]").hidden = !any;
  }
}

async function applyView() {
  showForm();
  try {
    if (state.tab === "logs") await logs.setFilters({ ...state.filters });
    else await alerts.setView(state.status, { ...state.filters });
  } catch (error) {
    tell(error);
  }
}

function chooseFilters(filters, { push = false } = {}) {
  state.filters = { ...Object.fromEntries(Object.keys(LOG_FILTERS).map((key) => [key, ""])), ...filters };
  writeAddress({ push });
  if (document.activeElement?.closest(".chips, .empty")) $(state.tab === "logs" ? "#log-filters [name=q]" : "#alert-filters [name=q]").focus();
  return applyView();
}

function switchTab(tab, { push = true, quiet = false } = {}) {
  if (tab === state.tab) return;
  kept[state.tab] = state.filters;
  state.tab = tab;
  state.filters = kept[tab];
  if (!quiet) {
    state.alert = "";
    state.flow = "";
    writeAddress({ push });
  }
  showTab();
  void applyView().then(() => shell.poller.now());
}

function readForm(form) {
  return Object.fromEntries(Object.keys(LOG_FILTERS).map((key) => [key, form.elements[key]?.value.trim() ?? ""]));
}

for (const id of ["#log-filters", "#alert-filters"]) {
  const form = $(id);
  let timer = 0;
  const typed = () => {
    clearTimeout(timer);
    timer = setTimeout(() => chooseFilters(readForm(form)), TYPING_MS);
  };
  form.addEventListener("input", typed);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    void chooseFilters(readForm(form), { push: true });
  });
}

const strip = new Timeline($("#strip-chart"), { height: 152, unit: "flows per minute", name: "Flows per minute", nowLabel: true });
tableButton($("[data-table-for=strip-chart]"), $("#strip-chart"), () => strip.rows());

function showStrip({ flows_per_minute: data }) {
  if (state.tab === "logs") strip.update(data);
  const now = data.values.findLast((value) => value !== null);
  const known = data.low !== null && data.low !== undefined;
  replace($("#strip-legend"), h("span", { class: "key-line" }, `now ${now === undefined ? "no data" : count(now)}`),
    known ? h("span", { class: "key-band" }, `usual ${number(data.low)} – ${number(data.high)}`) : h("span", null, "usual range not known yet"));
}

const STATES = { READY: "Ready", CALIBRATING: "Calibrating", "WARMING UP": "Warming up", UNAVAILABLE: "Not available" };
const version = (value) => (value === null || value === undefined ? null : /^\d+$/.test(value) ? `v${value}` : String(value));

function modelLine(model, baseline) {
  let built = [version(model.version), model.features && `${count(model.features)} features`];
  let tail = model.sentence;
  if (model.name === "live") {
    if (baseline.phase === "TRAINED" && baseline.trained_at) tail = `trained ${hhmm(baseline.trained_at)}`;
    else if (baseline.phase === "WARMING UP") {
      built = [];
      tail = `${count(baseline.collected)} of ${count(baseline.needed)} flows`;
    } else tail = "training now";
  } else if (model.state === "CALIBRATING") tail = `${count(model.calibrated ?? 0)} of ${count(model.needed ?? 500)} flows`;
  else if (model.state === "READY") tail = null;
  const badge = model.name === "live" ? baseline.phase : (STATES[model.state] ?? model.state);
  const good = model.name === "live" ? baseline.phase === "TRAINED" : false;
  return h("li", { title: model.sentence },
    h("div", null, h("b", null, severityWord(model.name.toUpperCase())), h("span", null, [...built, tail].filter(Boolean).join(", "))),
    h("span", { class: good ? "tag tag-ok" : "tag" }, badge));
}

const MODEL_ORDER = ["live", "home", "industrial"];

function showModels({ models, baseline }) {
  const ordered = [...models].sort((a, b) => MODEL_ORDER.indexOf(a.name) - MODEL_ORDER.indexOf(b.name));
  replace($("#models"), ordered.map((model) => modelLine(model, baseline)));
}

function showCaptureState({ capture, open }) {
  const lost = lostPackets(capture);
  const pill = $(".pill-state");
  pill.dataset.state = capture.state === "capturing" && lost ? "lossy" : capture.state;
  const age = duration(Math.max(1, Math.round((Date.now() - shell.poller.lastGood) / 1000)));
  const words = capture.state === "capturing" ? `${interfaceName(capture)}, updated ${age} ago` : captureHead(capture);
  setText($("[data-live=updated]"), lost ? `${words}, ${count(lost)} lost` : words);
  setText($("#alerts-count"), count(Object.values(open).reduce((a, b) => a + b, 0)));
}

function showLive(status) {
  showStrip(status);
  showModels(status);
  showTrainings(status.baseline);
  showCaptureState(status);
}

function setPaused(paused) {
  logs.paused = paused;
  const button = $("[data-action=pause]");
  button.setAttribute("aria-pressed", String(paused));
  setText($("[data-live=pause]"), paused ? "Resume" : "Pause");
  button.querySelector("svg").replaceWith(icon(paused ? "play" : "pause"));
  if (!paused) logs.resume();
}

let fullFetch = false;

startShell({
  status: first.status,
  everyMs: 2000,
  tick: async (status) => {
    showLive(status);
    const all = fullFetch;
    fullFetch = false;
    if (all) await view().load();
    else await view().poll();
  },
  onReturn: () => (fullFetch = true),
});
showLive(first.status);
setInterval(() => shell.status && showCaptureState(shell.status), 1000);
shell.onStale.push((stale) => stale || (fullFetch = true));

logs.start(first.flows, first.seq);
alerts.start(first.alerts, first.alerts_seq ?? first.seq);
kept[state.tab] = state.filters;
kept[state.tab === "logs" ? "alerts" : "logs"] = {};
showTab();
if (Object.values(state.filters).some(Boolean) || state.status !== "OPEN") void applyView().then(openFromAddress);
else {
  showForm();
  openFromAddress();
}

function openFromAddress() {
  if (state.alert) show("alert", state.alert, { fromAddress: true });
  else if (state.flow) show("flow", state.flow, { fromAddress: true });
}

addEventListener("popstate", () => {
  const fresh = readAddress();
  const sameView = fresh.tab === state.tab && fresh.status === state.status && JSON.stringify(fresh.filters) === JSON.stringify({ ...fresh.filters, ...state.filters });
  Object.assign(state, fresh);
  kept[state.tab] = state.filters;
  if (!state.alert && !state.flow) dialog.leave();
  if (!sameView) {
    showTab();
    void applyView();
  }
  openFromAddress();
});

onUndone((answer) => {
  if (answer.alert) alerts.apply([answer.alert]);
  shell.poller.now();
});

const tabs = $$("[role=tab]");
for (const tab of tabs) {
  tab.addEventListener("click", () => switchTab(tab.id.slice(4)));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -9, End: 9 }[event.key];
    if (!step) return;
    const next = tabs[Math.min(tabs.length - 1, Math.max(0, tabs.indexOf(tab) + step))];
    next.focus();
    switchTab(next.id.slice(4));
  });
}
for (const segment of $$(".segment")) {
  segment.addEventListener("click", () => {
    state.status = segment.dataset.status;
    writeAddress({ push: true });
    void applyView();
  });
}

$("#capture-menu").addEventListener("toggle", (event) => event.target.open && void fillCaptureMenu($("#capture-body")));
$("[data-action=pause]").addEventListener("click", () => setPaused(!logs.paused));
$("[data-action=latest]").addEventListener("click", () => latest());
$("[data-action=clear-filters]").addEventListener("click", () => chooseFilters({}, { push: true }));
$("[data-action=filters-more]").addEventListener("click", (event) => {
  const button = event.currentTarget;
  const open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  $("#log-filters").classList.toggle("filters-open", !open);
});

function latest() {
  if (logs.paused) setPaused(false);
  logs.latest();
}

function escape() {
  const field = document.activeElement?.closest?.(".filters input");
  if (alerts.selecting && state.tab === "alerts") alerts.clearSelection();
  else if (Object.values(state.filters).some(Boolean)) {
    field?.blur();
    void chooseFilters({}, { push: true });
  } else if (field) field.blur();
  else return false;
  return true;
}

function worst() {
  const alert = alerts.worst;
  if (!alert) toast("No incident is open.");
  else show("alert", alert.id);
}

pushKeys({
  j: () => void view().rows.move(1),
  k: () => void view().rows.move(-1),
  Enter: () => {
    const id = view().rows.current;
    if (!id || !view().rows.has(id)) return false;
    show(state.tab === "logs" ? "flow" : "alert", id);
    return true;
  },
  x: () => state.tab === "alerts" && alerts.select(),
  f: () => state.tab === "alerts" && alerts.falsePositive(),
  c: () => state.tab === "alerts" && void alerts.close(alerts.aim),
  "/": () => $(state.tab === "logs" ? "#log-filters [name=q]" : "#alert-filters [name=q]").focus(),
  Escape: escape,
  " ": () => setPaused(!logs.paused),
  l: latest,
  i: worst,
});

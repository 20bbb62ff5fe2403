// What every page has: capture card, badges, bars, theme, keys, the polling of the live status.
import { $, $$, h, icon, mark, plain, replace, setText } from "./dom.js";
import { Poller, ServerError, clock, get, post } from "./api.js";
import { ago, bytes, count, duration, hhmm, hhmmss, number } from "./fmt.js";
import { pushKeys, startKeys } from "./keys.js";
import { startTheme, toggleTheme } from "./theme.js";
import { tell, toast, undoLast } from "./toast.js";

const root = document.documentElement;
const product = root.dataset.product;
const GONE_AFTER = 2;
const SILENT_S = 60;
const ANNOUNCE_EVERY_MS = 10000;

export const shell = { status: null, stale: false, poller: null, onStale: [] };

let title = document.title;
let criticalBefore = null;
let announcedAt = 0;

export function firstData() {
  const node = $("#first-data");
  return node ? JSON.parse(node.textContent) : {};
}

const STATES = {
  preparing: "Preparing to capture",
  off: "Capture is off",
  replay: "Replaying a capture",
  sample: "Sample traffic",
};

export const interfaceName = (capture) => capture.friendly || capture.interface || "the network";

export function captureHead(capture) {
  if (capture.state === "capturing") return `Capturing on ${interfaceName(capture)}`;
  if (capture.state === "trouble") return capture.remedy ? "May not read packets" : `Trouble on ${interfaceName(capture)}`;
  return STATES[capture.state] ?? capture.state;
}

export const lostPackets = (capture) => ["kernel_drops", "interface_drops", "queue_drops", "table_drops"].reduce((sum, cause) => sum + (capture[cause] ?? 0), 0);

function showCapture({ capture, baseline }) {
  const card = $("#capture-card");
  card.dataset.state = capture.state;
  card.title = plain(capture.sentence);
  const drops = `${count(lostPackets(capture))} lost`;
  const phase = baseline.phase === "TRAINED" && baseline.trained_at ? `Live model trained ${hhmm(baseline.trained_at)}`
    : baseline.phase === "LEARNING" ? "Live model is learning" : `Live model: ${count(baseline.collected)} of ${count(baseline.needed)}`;
  for (const node of $$("[data-capture=head]")) setText(node, captureHead(capture));
  for (const node of $$("[data-capture=rate]")) setText(node, `${number(capture.packets_per_s ?? 0)} packets/s, ${drops}`);
  for (const node of $$("[data-capture=model]")) setText(node, phase);
  const more = $("#more .dot");
  if (more) more.parentElement.dataset.state = capture.state;
}

const needing = (status) => (status.open.CRITICAL || 0) + (status.open.HIGH || 0);

function showBadges(status) {
  const urgent = needing(status);
  const cap = (n) => (n > 99 ? "99+" : String(n));
  const live = $("[data-badge=live]");
  live.hidden = !urgent;
  live.classList.toggle("nav-badge-filled", true);
  replace(live, cap(urgent), h("span", { class: "visually-hidden" }, " open critical or high incidents"));
  const rules = $("[data-badge=rules]");
  if (rules) {
    rules.hidden = !status.proposed_rules;
    replace(rules, cap(status.proposed_rules || 0), h("span", { class: "visually-hidden" }, " proposed rules"));
  }
  showTitle(urgent);
}

function showTitle(urgent) {
  const words = urgent ? `(${urgent > 99 ? "99+" : urgent}) ${title}` : title;
  if (document.title !== words) document.title = words;
  const link = $("#favicon");
  const wanted = urgent ? root.dataset.faviconAlert : root.dataset.favicon;
  if (link.getAttribute("href") !== wanted) link.setAttribute("href", wanted);
}

/** The page's own part of the title; the count of urgent incidents stays before it. */
export function setTitle(words) {
  title = `${words} · ${product}`;
  showTitle(shell.status ? needing(shell.status) : 0);
}

function announce(status) {
  const critical = status.open.CRITICAL || 0;
  const newer = criticalBefore !== null && critical > criticalBefore;
  criticalBefore = critical;
  if (!newer || Date.now() - announcedAt < ANNOUNCE_EVERY_MS) return;
  announcedAt = Date.now();
  const newest = (status.flows_per_minute?.lane ?? []).filter((event) => event.severity === "CRITICAL").pop();
  $("#announcer").textContent = newest ? `New critical incident: ${plain(newest.title)}` : "New critical incident";
}

function bar(level, text, head) {
  const severity = { error: "critical", warning: "high", info: "info" }[level] ?? "info";
  return h("div", { class: `bar bar-${severity}` }, severity === "info" ? mark("low") : mark(severity), h("div", { class: "bar-text" }, head && h("strong", null, head), text && h("span", null, text)));
}

let noticesShown = "";

async function showNotices(status) {
  const { capture, notices = [] } = status;
  const silent = !capture.remedy && (capture.state === "trouble" || (capture.state === "capturing" && capture.last_packet_age_s > SILENT_S));
  const key = JSON.stringify([notices, silent && capture.sentence]);
  if (key === noticesShown) return;
  noticesShown = key;
  const bars = notices.map((notice) => bar(notice.level, plain(notice.text)));
  if (silent) bars.unshift(bar("warning", null, plain(capture.sentence)));
  replace($("#notices"), ...bars);
  if (silent) await offerSwitch(capture, bars[0]);
}

const isCaptured = (capture, one) => (capture.interfaces ?? []).some((part) => part.name === one.name);

async function offerSwitch(capture, trouble) {
  try {
    const interfaces = await get("/api/interfaces");
    const busy = interfaces.filter((i) => i.up && !isCaptured(capture, i) && i.packets > 0).sort((a, b) => b.packets - a.packets)[0];
    if (!busy) return;
    const name = busy.friendly || busy.name;
    trouble.querySelector(".bar-text").append(h("span", { class: "bar-more" }, `${name} carries ${number(busy.packets)} packets/s.`));
    trouble.append(h("button", { type: "button", class: "btn btn-plain", "data-needs-server": true, onclick: () => startCapture([busy.name]) }, `Switch to ${name}`));
  } catch (error) {
    tell(error);
  }
}

function showRemedy({ capture }) {
  const card = $("#remedy");
  if (!card) return;
  card.hidden = !capture.remedy;
  if (!capture.remedy) return;
  // The command stands in its own box, where it can be copied.
  setText($("[data-remedy=sentence]", card), plain(capture.remedy.sentence).replace(capture.remedy.command || "\n", "").trim());
  setText($("[data-remedy=command]", card), capture.remedy.command ?? "");
  $(".command", card).hidden = !capture.remedy.command;
  $("[data-action=copy-command]", card).hidden = !capture.remedy.command;
}

/** Starts on the named interfaces, or on the one that holds the default route. */
async function startCapture(names) {
  try {
    const chosen = names.length ? names : (await get("/api/interfaces")).filter((one) => one.is_default).map((one) => one.name);
    if (!chosen.length) {
      toast("Choose an interface first.");
      return;
    }
    const answer = await post("/api/capture/start", { interface: chosen });
    toast(plain(answer?.sentence ?? answer?.capture?.sentence ?? "Capture starts."));
  } catch (error) {
    if ($("#remedy") && !$("#remedy").hidden && error instanceof ServerError) setText($("[data-remedy=answer]"), error.message);
    else tell(error);
  }
  shell.poller?.now();
}

async function stopCapture() {
  try {
    const answer = await post("/api/capture/stop");
    toast(plain(answer?.sentence ?? "Capture is off."));
  } catch (error) {
    tell(error);
  }
  shell.poller?.now();
}

async function copyCommand(node) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    toast("Command copied.");
  } catch {
    // Without clipboard access the command is selected, so that one key copies it.
    getSelection().selectAllChildren(node);
    toast("The browser allows no copying here; the command is selected.");
  }
}

const fact = (name, value) => [h("dt", null, name), h("dd", null, value)];

const lostWords = (counts) => `${count(counts.kernel_drops ?? 0)} by the kernel, ${count(counts.interface_drops ?? 0)} by the interface, ${count(counts.queue_drops ?? 0)} in the queue`;


/** One captured interface: its state, what it gave and lost, and what changes its packets. */
function interfaceItem(part) {
  const { command, sentence } = part.offloads;
  const code = command && h("code", null, command);
  return h("li", { class: "capture-part", "data-state": part.state },
    h("p", { class: "capture-part-head" }, h("span", { class: "dot" }), h("b", null, part.friendly), h("span", null, part.state)),
    part.error && h("p", null, plain(part.error)),
    h("p", null, `${count(part.received)} packets, lost ${lostWords(part)}`),
    sentence && h("p", null, plain(sentence).replace(command || "\n", "").trim()),
    code && h("pre", { class: "command" }, code),
    code && h("button", { type: "button", class: "btn btn-plain btn-small", onclick: () => copyCommand(code) }, icon("copy"), "Copy command"));
}

function interfaceChoice(one, chosen) {
  const words = [one.addresses?.[0], one.up ? `${number(one.packets ?? 0)} packets/s` : "down"];
  return h("label", { class: "capture-choice" },
    h("input", { type: "checkbox", value: one.name, checked: chosen }),
    h("span", null, one.friendly, h("small", null, words.filter(Boolean).join(", "))));
}

/** The unfolded capture state of the live page: where, since when, what was lost and why. */
export async function fillCaptureMenu(body) {
  const { capture } = shell.status;
  const { duplicate: copies = 0, ...others } = capture.unread ?? {};
  const unread = Object.entries(others).filter(([, n]) => n);
  const facts = h("dl", { class: "facts" },
    capture.since ? fact("Since", hhmmss(capture.since)) : null,
    fact("Packets", count(capture.packets ?? 0)), fact("Bytes", bytes(capture.bytes ?? 0)),
    fact("Flows", `${count(capture.flows_active ?? 0)} active, ${count(capture.flows_ended ?? 0)} ended`),
    fact("Lost", `${lostWords(capture)}, ${count(capture.table_drops ?? 0)} flows by a full table`),
    copies ? fact("Seen twice", `${count(copies)} on a second interface, judged once`) : null,
    unread.length ? fact("Not read", unread.map(([reason, n]) => `${count(n)} ${reason.replaceAll("_", " ")}`).join(", ")) : null);
  const running = capture.state === "capturing" || capture.state === "preparing";
  const choices = h("fieldset", { class: "capture-choices" }, h("legend", null, "Interfaces to capture on"));
  const picked = () => $$("input:checked", choices).map((box) => box.value);
  const start = h("button", { type: "button", class: "btn btn-primary", "data-needs-server": true, onclick: () => startCapture(picked()) }, running ? "Capture these" : "Start capture");
  const stop = running && h("button", { type: "button", class: "btn btn-plain", "data-needs-server": true, onclick: stopCapture }, "Stop capture");
  replace(body,
    h("p", { class: "capture-sentence" }, plain(capture.sentence)),
    capture.devices && h("p", { class: "capture-devices" }, plain(capture.devices.sentence)),
    facts,
    capture.interfaces?.length ? h("ul", { class: "capture-parts" }, capture.interfaces.map(interfaceItem)) : null,
    choices, h("div", { class: "row-actions" }, start, stop));
  try {
    const found = await get("/api/interfaces");
    choices.append(...found.map((one) => interfaceChoice(one, isCaptured(capture, one))));
  } catch (error) {
    tell(error);
  }
}

/** Shows a new live status in the shell; pages show their own part after it. */
function showStatus(status) {
  shell.status = status;
  if (Number.isFinite(status.time)) clock.set(status.time);
  showCapture(status);
  showBadges(status);
  announce(status);
  showRemedy(status);
  $("#bar-sample").hidden = !status.sample;
  // The remedy card has the same button; one of them is enough.
  $("#bar-sample [data-action=capture-start]").hidden = Boolean(status.capture.remedy);
  void showNotices(status);
}

function setStale(stale) {
  if (stale === shell.stale) return;
  shell.stale = stale;
  root.classList.toggle("stale", stale);
  for (const node of $$("[data-needs-server]")) {
    if (node.matches("a")) node.toggleAttribute("aria-disabled", stale);
    else node.disabled = stale;
    if (node.matches("a[aria-disabled]")) node.setAttribute("aria-disabled", "true");
  }
  for (const listener of shell.onStale) listener(stale);
  if (!stale) {
    $("#bar-gone").hidden = true;
    noticesShown = "";
  }
}

function showGone() {
  const { poller } = shell;
  if (!shell.stale) return;
  const seconds = (ms) => duration(Math.max(0, Math.round(ms / 1000)));
  $("#bar-gone").hidden = false;
  setText($("[data-gone=head]"), `No answer from ${product} for ${seconds(Date.now() - poller.lastGood)}`);
  setText($("[data-gone=line]"), `Figures below are from ${hhmmss(poller.lastGood / 1000 + clock.offset)}. ${poller.nextTry > Date.now() ? `Next try in ${seconds(poller.nextTry - Date.now())}.` : "Trying now."}`);
}

/** Ages on the page: elements with data-age=<epoch> are brought up to date. */
function refreshAges() {
  for (const node of $$("[data-age]")) setText(node, ago(Number(node.dataset.age)));
  showGone();
}

const openDialog = (id) => {
  const dialog = $(`#${id}`);
  if (!dialog.open) dialog.showModal();
};

/**
 * Starts the shell. `tick(status)` runs after each live status; `everyMs` as the page needs it;
 * `onReturn` once when a hidden page comes back.
 */
export function startShell({ status, tick, everyMs, onReturn }) {
  startTheme();
  startKeys();
  pushKeys(Object.assign({ t: toggleTheme, "?": () => openDialog("help"), u: undoLast }, { everywhere: true }));
  if (status) showStatus(status);
  const actions = {
    help: () => openDialog("help"),
    more: () => openDialog("more"),
    "close-dialog": (event) => event.target.closest("dialog").close(),
    "capture-start": () => startCapture([]),
    "copy-command": () => copyCommand($("[data-remedy=command]")),
    "try-now": () => shell.poller.now(),
  };
  document.addEventListener("click", (event) => {
    if (event.target.closest("a[aria-disabled]")) event.preventDefault();
    const button = event.target.closest("[data-action]");
    if (button) actions[button.dataset.action]?.(event);
    for (const menu of $$("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    const menu = event.key === "Escape" && event.target instanceof Element && event.target.closest("details.menu[open]");
    if (!menu) return;
    menu.open = false;
    menu.querySelector("summary").focus();
    event.stopImmediatePropagation();
  }, { capture: true });
  for (const dialog of $$("dialog.sheet")) dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  shell.poller = new Poller({
    everyMs,
    tick: async () => {
      const fresh = await get("/api/live_status");
      showStatus(fresh);
      await tick?.(fresh);
    },
    hiddenTick: async () => showBadges((shell.status = await get("/api/live_status"))),
    onReturn,
    onState: ({ failures }) => {
      setStale(failures >= GONE_AFTER);
      showGone();
    },
  });
  shell.poller.start();
  setInterval(refreshAges, 1000);
}

// Realtime logs: flows as they are judged. Rows enter at the top only while nobody reads the list.
import { $, h, icon, mark, replace, setText } from "./dom.js";
import { list } from "./api.js";
import { serviceName, wordOf } from "./evidence.js";
import { bytes, count, duration, exact, hhmmss, milliseconds, plural, rarity } from "./fmt.js";
import { Rows } from "./table.js";

export const LOG_FILTERS = { severity: "Severity", decision: "Decision", src: "Source", dst: "Destination", q: "Text" };
const ASKED = 200;

const matchesText = (record, q) =>
  !q || [record.src_ip, record.dst_ip, record.names?.src, record.names?.dst, String(record.src_port), String(record.dst_port), record.service, record.protocol]
    .some((value) => value?.toLowerCase().includes(q));

/** A cell with a name before its address, or the address alone. */
function endCell(className, name, address, port) {
  const tail = port ? `:${port}` : "";
  const end = h("td", { role: "cell", class: className, title: address + tail }, h("b", null, name || address), name ? " " : null);
  const rest = name ? address + tail : tail;
  if (rest) end.append(h("span", { class: "dim" }, rest));
  return end;
}

/** “Severity high, source 10.0.” */
function filterWords(filters) {
  const words = Object.entries(LOG_FILTERS).filter(([key]) => filters[key])
    .map(([key, label], i) => `${i ? label.toLowerCase() : label} ${key === "severity" ? filters[key].toLowerCase() : filters[key]}`);
  return `“${words.join(", ")}”`;
}

export class Logs {
  #rows;
  #records = new Map();
  #pending = [];
  #cursor = 0;
  #body = $("#flow-rows");
  #empty = $("#flows-empty");
  #hovered = false;
  #loading = 0;
  filters = {};
  paused = false;

  /** open(record): details; filter(filters): new filters were chosen; capture(): the live status. */
  constructor({ max, open, filter, capture }) {
    Object.assign(this, { max, open, filter, capture });
    this.#rows = new Rows(this.#body, (record) => this.#row(record), { max });
    this.#body.addEventListener("pointerenter", (event) => (this.#hovered = event.pointerType === "mouse"));
    this.#body.addEventListener("pointerleave", () => {
      this.#hovered = false;
      this.#flush();
    });
    this.#body.addEventListener("focusout", () => queueMicrotask(() => this.#flush()));
    this.#body.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-id]");
      if (!row || event.ctrlKey || event.metaKey || getSelection().toString()) return;
      event.preventDefault();
      this.#rows.setCurrent(row.dataset.id);
      this.open(this.#records.get(row.dataset.id));
    });
    addEventListener("scroll", () => this.#flush(), { passive: true });
  }

  get rows() {
    return this.#rows;
  }

  record(id) {
    return this.#records.get(id);
  }

  /** The flows that came with the page. */
  start(flows, seq) {
    this.#cursor = seq;
    this.#take(flows, { all: true });
  }

  async setFilters(filters) {
    this.filters = filters;
    await this.load();
  }

  /** Fetches the list anew, with the filters in use. */
  async load() {
    const turn = (this.#loading += 1);
    const answer = await list("/captured_data", { ...this.#asked(this.filters), limit: this.max });
    if (turn !== this.#loading) return;
    this.#cursor = Number.isFinite(answer.seq) ? answer.seq : Math.max(0, ...answer.body.map((record) => record.seq));
    const shown = answer.body.filter((record) => matchesText(record, this.filters.q?.toLowerCase())).sort((a, b) => b.time - a.time);
    this.#records = new Map(shown.map((record) => [record.id, record]));
    this.#pending = [];
    this.#rows.arrange(shown, new Set(this.#records.keys()));
    this.#flush();
    await this.#showEmpty();
  }

  /** What is new or changed since the last answer. */
  async poll() {
    const turn = this.#loading;
    const answer = await list("/captured_data", { ...this.#asked(this.filters), since: this.#cursor, limit: ASKED });
    if (turn !== this.#loading) return;
    if (answer.reset) {
      await this.load();
      return;
    }
    this.#cursor = Number.isFinite(answer.seq) ? answer.seq : Math.max(this.#cursor, ...answer.body.map((record) => record.seq));
    this.#take(answer.body);
  }

  // The text filter is applied here: names and services are not the server's filters.
  #asked({ severity, decision, src, dst }) {
    return { severity, decision, src, dst };
  }

  #take(flows, { all = false } = {}) {
    const wanted = flows.filter((record) => matchesText(record, this.filters.q?.toLowerCase()));
    const fresh = [];
    for (const record of wanted) {
      const shown = this.#rows.has(record.id);
      this.#records.set(record.id, record);
      if (!shown) fresh.push(record);
      else if (!this.paused) this.#rows.change(record);
    }
    const ids = new Set(fresh.map((record) => record.id));
    this.#pending = [...fresh.sort((a, b) => b.time - a.time), ...this.#pending.filter((record) => !ids.has(record.id))].slice(0, this.max);
    this.#flush(all);
    this.#trim();
    void this.#showEmpty();
  }

  #held() {
    if (this.paused || this.#hovered || document.querySelector("dialog[open]")) return true;
    return this.#body.contains(document.activeElement) || this.#body.getBoundingClientRect().top < 0;
  }

  #flush(force = false) {
    if (this.#pending.length && (force || !this.#rows.size || !this.#held())) {
      this.#rows.prepend(this.#pending);
      this.#pending = [];
    }
    const button = $("[data-action=latest]");
    button.classList.toggle("btn-latest-new", this.#pending.length > 0);
    setText($("[data-live=latest]"), this.#pending.length ? `${count(this.#pending.length)} new, back to latest` : "Back to Latest");
  }

  #trim() {
    const kept = new Set([...this.#rows.keys, ...this.#pending.map((record) => record.id)]);
    for (const id of [...this.#records.keys()]) if (!kept.has(id)) this.#records.delete(id);
  }

  /** Shows everything that waits and goes to the top. */
  latest() {
    if (this.#body.contains(document.activeElement)) document.activeElement.blur();
    this.#flush(true);
    const top = $("#log-filters").getBoundingClientRect().top;
    if (top < 0) scrollTo({ top: 0 });
  }

  resume() {
    this.#flush();
  }

  // 300 of these are in the page, so a row is made of as few elements as it can.
  #row(record) {
    const service = serviceName(record);
    const word = wordOf(record);
    const cell = (name, attributes, ...children) => h("td", { role: "cell", ...attributes, class: name }, ...children);
    return h("tr", { role: "row", class: record.final_decision === "ALERT" ? "is-alert" : "" },
      cell("t-time", { title: exact(record.time) }, hhmmss(record.time), h("span", { class: "dim ms" }, milliseconds(record.time))),
      endCell("t-src", record.names?.src, record.src_ip),
      endCell("t-dst", record.names?.dst, record.dst_ip, record.dst_port),
      cell("t-proto", { "data-meta": `, ${bytes(record.bytes)} in ${duration(record.duration_s)}` }, record.protocol, service && h("span", { class: "dim" }, ` ${service}`)),
      cell("t-size num", null, bytes(record.bytes)),
      cell("t-lasted num p3", { title: record.state === "active" || record.state === "quiet" ? "so far" : null }, duration(record.duration_s)),
      cell("t-decision", null, record.final_decision),
      cell(`t-sev sev-${word.toLowerCase()}`, null, mark(word.toLowerCase()), word),
      cell("t-rare num", null, rarity(record.rarity)));
  }

  async #showEmpty() {
    const none = !this.#rows.size;
    this.#empty.hidden = !none;
    this.#body.parentElement.hidden = none;
    if (!none) {
      replace(this.#empty);
      return;
    }
    if (this.#empty.childElementCount && this.#empty.dataset.words === filterWords(this.filters)) return;
    this.#empty.dataset.words = filterWords(this.filters);
    if (Object.values(this.filters).some(Boolean)) await this.#showNoMatch();
    else this.#showNothingYet();
  }

  #showNothingYet() {
    const { capture } = this.capture();
    const where = capture.friendly || capture.interface;
    const [head, words] = capture.remedy ? ["No flow yet", "The program may not read packets; the command above gives it the right."]
      : capture.state === "off" ? ["Capture is off", "Flows appear here a few seconds after it starts."]
        : ["No flow yet", `A flow appears within seconds of the first packets${where ? ` on ${where}` : ""}. Open any web page on a device of this network to see one.`];
    replace(this.#empty, h("h3", null, head), h("p", null, words),
      h("button", { type: "button", class: "btn btn-plain", onclick: (event) => {
        event.stopPropagation();
        $("#capture-menu").open = true;
        scrollTo({ top: 0 });
      } }, "Show the capture"));
  }

  /** No match: the filter in words, and the nearest one that has results. */
  async #showNoMatch() {
    const words = filterWords(this.filters);
    const clear = h("button", { type: "button", class: "btn btn-plain", onclick: () => this.filter({}) }, "Clear filters");
    const text = h("p", null, "Nothing kept here fits it.");
    const actions = h("div", { class: "row-actions" }, clear);
    replace(this.#empty, h("h3", null, `No flow matches ${words}`), text, actions);
    const active = Object.keys(LOG_FILTERS).filter((key) => this.filters[key]);
    if (active.length < 2) return;
    let best = null;
    for (const key of active) {
      const filters = { ...this.filters, [key]: "" };
      const { body } = await list("/captured_data", { ...this.#asked(filters), limit: ASKED });
      const n = body.filter((record) => matchesText(record, filters.q?.toLowerCase())).length;
      if (n && (!best || n > best.n)) best = { filters, n };
    }
    if (!best || words !== filterWords(this.filters)) return;
    const near = filterWords(best.filters);
    text.textContent = `The closest filter with a result is ${near}, ${best.n === ASKED ? `${ASKED} or more flows` : plural(best.n, "flow")}.`;
    actions.prepend(h("button", { type: "button", class: "btn btn-primary", onclick: () => this.filter(best.filters) }, `Use ${near}`));
  }
}

/** Chips for the filters in use; each takes its own filter away. */
export function showChips(holder, filters, filter) {
  const active = Object.entries(LOG_FILTERS).filter(([key]) => filters[key]);
  holder.hidden = !active.length;
  replace(holder, active.map(([key, label]) =>
    h("li", null, h("button", { type: "button", class: "chip", "aria-label": `Remove the filter ${label} ${filters[key]}`, onclick: () => filter({ ...filters, [key]: "" }) },
      h("span", { class: "dim" }, label), " ", key === "severity" ? filters[key].toLowerCase() : filters[key], icon("x-lg")))));
}

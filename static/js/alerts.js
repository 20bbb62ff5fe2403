// Alerts: the incidents of one status, worst first. A row never moves under pointer or focus.
import { $, $$, h, icon, kbd, plain, replace, rich, setText, severityTag } from "./dom.js";
import { get, list, post } from "./api.js";
import { spark } from "./charts.js";
import { closeAlerts } from "./dialog.js";
import { flowTable, verdictTag } from "./evidence.js";
import { showPanel } from "./falsepositive.js";
import { ago, count, exact, plural, score, when } from "./fmt.js";
import { shell } from "./shell.js";
import { Rows } from "./table.js";
import { tell, toast, undoToken } from "./toast.js";

const ORDER = ["CRITICAL", "HIGH", "MEDIUM", "LOW"];
const ASKED = 200;
const FIRST = 1000;
const WORDS = { OPEN: "open", CLOSED: "closed", FALSE_POSITIVE: "false positive" };

const worstFirst = (a, b) => ORDER.indexOf(a.severity) - ORDER.indexOf(b.severity) || b.last_time - a.last_time;

const matches = (alert, { severity, q }) =>
  (!severity || alert.severity === severity) &&
  (!q || [alert.title, alert.src_ip, alert.dst_ip, alert.names?.src, alert.names?.dst, alert.pattern, alert.subpattern, ...(alert.targets ?? []), ...(alert.sources ?? [])]
    .some((value) => value?.toLowerCase().includes(q.toLowerCase())));

export class Alerts {
  #rows;
  #stores = { OPEN: null, CLOSED: null, FALSE_POSITIVE: null };
  #body = $("#alert-rows");
  #hovered = false;
  #selected = new Set();
  #unfolded = new Map();
  #changed = new Set();
  #empty = $("#alerts-empty");
  status = "OPEN";
  filters = {};

  /** open(alert, {falsePositive}): the dialog; filter(filters): new filters were chosen. */
  constructor({ open, filter }) {
    Object.assign(this, { open, filter });
    this.#rows = new Rows(this.#body, (alert) => this.#row(alert));
    this.#body.addEventListener("pointerenter", (event) => (this.#hovered = event.pointerType === "mouse"));
    this.#body.addEventListener("pointerleave", () => {
      this.#hovered = false;
      this.arrange();
    });
    this.#body.addEventListener("focusout", () => queueMicrotask(() => this.arrange()));
    this.#body.addEventListener("click", (event) => this.#click(event));
    $("[data-action=new-incidents]").addEventListener("click", () => this.arrange(true));
  }

  get rows() {
    return this.#rows;
  }

  record(id) {
    return this.#store().alerts.get(id) ?? this.#stores.OPEN?.alerts.get(id);
  }

  get worst() {
    return [...(this.#stores.OPEN?.alerts.values() ?? [])].sort(worstFirst)[0] ?? null;
  }

  #store() {
    return (this.#stores[this.status] ??= { alerts: new Map(), cursor: null });
  }

  /** The open incidents that came with the page. */
  start(alerts, seq) {
    this.#stores.OPEN = { alerts: new Map(alerts.map((alert) => [alert.id, alert])), cursor: seq };
    this.arrange(true);
  }

  async setView(status, filters) {
    const other = status !== this.status;
    this.status = status;
    this.filters = filters;
    if (other) {
      this.#selected.clear();
      this.#unfolded.clear();
      this.#rows.clear();
    }
    for (const button of $$(".segment")) button.setAttribute("aria-pressed", String(button.dataset.status === status));
    if (this.#store().cursor === null) await this.load();
    else this.arrange(true);
  }

  async load() {
    const store = this.#store();
    const answer = await list("/alerts_data", { status: this.status, limit: FIRST });
    store.alerts = new Map(answer.body.map((alert) => [alert.id, alert]));
    store.cursor = Number.isFinite(answer.seq) ? answer.seq : Math.max(0, ...answer.body.map((alert) => alert.seq));
    this.#changed = new Set(store.alerts.keys());
    this.arrange(true);
  }

  async poll() {
    const { status } = this;
    const store = this.#store();
    if (store.cursor === null) return this.load();
    const answer = await list("/alerts_data", { status, since: store.cursor, limit: ASKED });
    if (answer.reset) return status === this.status ? this.load() : undefined;
    store.cursor = Number.isFinite(answer.seq) ? answer.seq : Math.max(store.cursor, ...answer.body.map((alert) => alert.seq));
    this.#take(answer.body);
    this.arrange();
    return undefined;
  }

  /** Incidents in a new state, from a poll or from an action. */
  #take(alerts) {
    for (const alert of alerts) {
      for (const [status, store] of Object.entries(this.#stores)) {
        if (!store || store.cursor === null) continue;
        if (alert.status === status) store.alerts.set(alert.id, alert);
        else store.alerts.delete(alert.id);
      }
      this.#changed.add(alert.id);
      if (alert.status !== this.status) this.#selected.delete(alert.id);
    }
  }

  /** After an action: the new states, at once and in order; the focus goes to the next row. */
  apply(alerts) {
    const { keys, current } = this.#rows;
    this.#take(alerts);
    this.arrange(true);
    if (!current || this.#rows.has(current)) return;
    const rest = keys.slice(keys.indexOf(current) + 1).find((id) => this.#rows.has(id)) ?? this.#rows.keys.pop();
    if (rest) this.#rows.focus(rest);
  }

  #held() {
    return this.#hovered || this.#body.contains(document.activeElement) || Boolean(document.querySelector("dialog[open]"));
  }

  /** Brings the list into order, unless somebody is on it; then only rows change in place. */
  arrange(force = false) {
    const wanted = [...this.#store().alerts.values()].filter((alert) => matches(alert, this.filters)).sort(worstFirst);
    const waiting = wanted.filter((alert) => !this.#rows.has(alert.id)).length;
    const held = !force && this.#rows.size > 0 && this.#held();
    if (held) for (const alert of wanted) {
      if (this.#changed.has(alert.id)) this.#rows.change(alert);
    }
    else {
      this.#rows.arrange(wanted, this.#changed);
      for (const [id, node] of this.#unfolded) {
        if (this.#rows.has(id)) this.#rows.node(id).after(node);
        else this.#unfolded.delete(id);
      }
    }
    this.#changed.clear();
    const button = $("[data-action=new-incidents]");
    button.hidden = !held || !waiting;
    setText(button.querySelector("span"), `${plural(waiting, "new incident")}, show`);
    this.#showCounts();
    this.#showSelection();
    this.#showEmpty(wanted.length);
  }

  #showCounts() {
    for (const button of $$(".segment")) {
      const store = this.#stores[button.dataset.status];
      const told = shell.status?.statuses?.[button.dataset.status];
      const n = store && store.cursor !== null ? store.alerts.size : told;
      setText(button.querySelector("span"), n === undefined || n === null ? "" : count(n));
    }
  }

  #row(alert) {
    const severity = alert.severity.toLowerCase();
    const models = alert.models ?? [];
    const against = models.filter((model) => model.vote === "ANOMALY").length;
    const scores = Object.values(alert.scores ?? {}).filter((value) => value !== null && value !== undefined);
    const title = plain(alert.title);
    const button = (name, words, key, label, primary) => h("button", { type: "button", class: `btn btn-small ${primary ?? "btn-plain"}`, "data-do": name, "data-needs-server": true, disabled: shell.stale, "aria-label": `${label}: ${title}`, title: key ? `Key ${key}` : null }, words);
    const actions = alert.status === "OPEN"
      ? [button("investigate", "Investigate", "Enter", "Investigate", "btn-plain btn-go"), button("false-positive", "False positive", "F", "False positive"), this.#menu(alert, title)]
      : [button("investigate", "Investigate", "Enter", "Investigate", "btn-plain btn-go"), alert.undo ? button("undo", "Undo", "U", "Undo") : button("reopen", "Reopen", null, "Reopen")];
    const selected = this.#selected.has(alert.id);
    return h("tr", { role: "row", class: selected ? "is-selected" : "" },
      h("td", { role: "cell", class: "a-sev" },
        h("input", { type: "checkbox", class: "a-check", "data-do": "select", checked: selected, "aria-label": `Select: ${title}`, title: "Select (X)", tabindex: "-1" }),
        severityTag(alert.severity),
        h("span", { class: "a-first dim", title: `First seen ${exact(alert.first_time)}` }, `since ${when(alert.first_time)}`)),
      h("td", { role: "cell", class: "a-what" },
        h("a", { class: "a-title", href: `/live?tab=alerts&alert=${encodeURIComponent(alert.id)}`, tabindex: "-1" }, title),
        verdictTag(alert.verdict),
        h("p", { title: plain(alert.why) }, rich(alert.short ?? alert.why))),
      h("td", { role: "cell", class: "a-spark p2" }, spark(alert.rate, severity)),
      h("td", { role: "cell", class: "a-count num" },
        h("button", { type: "button", class: "unfold", "data-do": "unfold", "data-needs-server": true, "aria-expanded": String(this.#unfolded.has(alert.id)), "aria-label": `${plural(alert.count, "alert")}, show its flows: ${title}` }, h("strong", null, count(alert.count)), icon("chevron-down"))),
      h("td", { role: "cell", class: "a-score p3" }, h("span", { title: "log10 of the share of normal flows at least this odd; lower is odder" }, scores.length ? score(Math.min(...scores)) : "–"), h("span", { class: "dim" }, models.length ? `${against} of ${models.length} models` : "no model votes")),
      h("td", { role: "cell", class: "a-last num", title: exact(alert.last_time) }, h("span", null, when(alert.last_time)), h("span", { class: "dim", "data-age": alert.last_time }, ago(alert.last_time))),
      h("td", { role: "cell", class: "a-actions" }, h("div", { class: "a-buttons" }, actions)));
  }

  #menu(alert, title) {
    const item = (verdict, words, key) => h("button", { type: "button", class: "menu-item", "data-do": "close", "data-verdict": verdict, "data-needs-server": true, disabled: shell.stale }, words, key && kbd(key));
    return h("details", { class: "menu" },
      h("summary", { class: "btn btn-plain btn-small btn-icon", "aria-label": `More: ${title}`, title: "More" }, icon("three-dots")),
      h("div", { class: "menu-body" }, item("", "Close", "C"), item("expected", "Close, this was expected"), item("real", "Close, this was a real attack")));
  }

  async #click(event) {
    const row = event.target.closest("tr[data-id]");
    if (!row || event.ctrlKey || event.metaKey) return;
    const { id } = row.dataset;
    const alert = this.record(id);
    this.#rows.setCurrent(id);
    const target = event.target.closest("[data-do], a, summary, details");
    if (target?.matches("summary, details")) return;
    if (!target && getSelection().toString()) return;
    if (target?.matches("a")) event.preventDefault();
    const action = target?.dataset.do ?? "investigate";
    if (action === "select") this.select(id);
    else if (action === "unfold") await this.#unfold(id);
    else if (action === "close") await this.close([id], target.dataset.verdict || null);
    else if (action === "undo") await undoToken(alert.undo);
    else if (action === "reopen") await this.#reopen(id);
    else this.open(alert, { falsePositive: action === "false-positive" });
  }

  async close(ids, verdict = null) {
    if (shell.stale || this.status !== "OPEN" || !ids.length) return;
    const done = await closeAlerts(ids, verdict);
    if (done) this.apply(done);
  }

  async #reopen(id) {
    try {
      const answer = await post(`/api/alerts/${encodeURIComponent(id)}/reopen`);
      this.apply([answer.alert]);
      toast("The incident is open again.", { undo: answer.undo });
    } catch (error) {
      tell(error);
    }
  }

  /** Key C and F: the selection if there is one, else the current row. */
  get aim() {
    return this.#selected.size ? [...this.#selected] : [this.#rows.current].filter((id) => id && this.#rows.has(id));
  }

  falsePositive() {
    if (this.status !== "OPEN" || shell.stale) return;
    if (this.#selected.size > 1) this.#panel();
    else if (this.aim.length) this.open(this.record(this.aim[0]), { falsePositive: true });
  }

  select(id = this.#rows.current) {
    const alert = id && this.record(id);
    if (!alert || this.status !== "OPEN") return;
    if (!this.#selected.delete(id)) this.#selected.add(id);
    this.#rows.change(alert);
    this.#showSelection();
  }

  get selecting() {
    return this.#selected.size > 0;
  }

  clearSelection() {
    const ids = [...this.#selected];
    this.#selected.clear();
    for (const id of ids) if (this.record(id)) this.#rows.change(this.record(id));
    this.#showSelection();
  }

  #showSelection() {
    const bar = $("#selection");
    const key = [...this.#selected].join();
    if (bar.dataset.key === key) return;
    bar.dataset.key = key;
    bar.hidden = !this.#selected.size;
    if (bar.hidden) return;
    const button = (words, key, run) => h("button", { type: "button", class: "btn btn-plain btn-small", "data-needs-server": true, disabled: shell.stale, onclick: run }, words, kbd(key));
    replace(bar, h("strong", null, `${count(this.#selected.size)} selected`),
      button("False positive…", "F", () => this.falsePositive()), button("Close", "C", () => this.close([...this.#selected])), button("Clear", "Esc", () => this.clearSelection()));
  }

  #panel() {
    const bar = $("#selection");
    const panel = h("div", { class: "inv-panel" });
    const again = () => {
      bar.dataset.key = "";
      this.#showSelection();
    };
    bar.append(panel);
    void showPanel(panel, [...this.#selected], { onCancel: again, onDone: (answers) => this.apply(answers.map((answer) => answer.alert).filter(Boolean)) });
  }

  async #unfold(id) {
    const button = this.#rows.node(id).querySelector(".unfold");
    const open = this.#unfolded.get(id);
    if (open) {
      open.remove();
      this.#unfolded.delete(id);
      button.setAttribute("aria-expanded", "false");
      return;
    }
    try {
      const alert = await get(`/api/alerts/${encodeURIComponent(id)}`);
      const href = `/live?${new URLSearchParams({ tab: "logs", src: alert.src_ip, ...(alert.targets?.length === 1 ? { dst: alert.dst_ip } : {}) })}`;
      const cell = h("td", { role: "cell", colspan: "7" }, alert.flow_records?.length ? flowTable(alert.flow_records, 5, alert.count, href) : h("p", { class: "sub hint sub-none" }, "No flow of it is kept any more."));
      const node = h("tr", { role: "row", class: "unfolded" }, cell);
      this.#unfolded.set(id, node);
      this.#rows.node(id)?.after(node);
      button.setAttribute("aria-expanded", "true");
    } catch (error) {
      tell(error);
    }
  }

  #showEmpty(n) {
    this.#empty.hidden = n > 0;
    this.#body.parentElement.hidden = n === 0;
    if (n) return;
    const filtered = Object.values(this.filters).some(Boolean);
    const total = this.#store().alerts.size;
    if (filtered && total) {
      replace(this.#empty, h("h3", null, "No incident matches this filter"), h("p", null, `${plural(total, `${WORDS[this.status]} incident`)} without it.`),
        h("button", { type: "button", class: "btn btn-primary", onclick: () => this.filter({}) }, "Clear filters"));
    } else if (this.status === "OPEN") {
      replace(this.#empty, h("h3", null, "No open incidents"), h("p", null, "When something leaves its usual range, it appears here with the reason, and stays until you decide."),
        h("a", { class: "btn btn-plain", href: "/live?tab=logs" }, "Watch the flows"));
    } else {
      replace(this.#empty, h("h3", null, this.status === "CLOSED" ? "Nothing closed yet" : "No false positive yet"),
        h("p", null, this.status === "CLOSED" ? "Closed incidents stay here, and can be opened again." : "Incidents you mark as false positive stay here for 7 days; each can be undone."),
        h("a", { class: "btn btn-plain", href: "/live?tab=alerts" }, "Open incidents"));
    }
  }
}

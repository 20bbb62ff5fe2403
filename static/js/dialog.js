// The investigate dialog: one incident or one flow, with its way to the neighbours and its actions.
import { $, h, icon, kbd, mark, plain, replace, severityWord } from "./dom.js";
import { get, post } from "./api.js";
import { flowLeft, flowModels, incidentLeft, models, rule, verdictTag, wordOf } from "./evidence.js";
import { closedWords, showPanel } from "./falsepositive.js";
import { exact, hhmmss, milliseconds, plural, span } from "./fmt.js";
import { pushKeys } from "./keys.js";
import { shell } from "./shell.js";
import { tell, toast, undoOf, undoToken } from "./toast.js";

const MODEL_ORDER = ["live", "home", "industrial"];

export class Investigate {
  #dialog = $("#investigate");
  #panel = $("#inv-panel");
  #record = null;
  #kind = null;

  /** neighbours(kind, id) → {place, total, previous, next}; show(kind, id) opens another one;
   *  onClosed(kind, id) after leaving; onChanged(alert) after an action changed the incident. */
  constructor({ neighbours, show, onClosed, onChanged }) {
    Object.assign(this, { neighbours, show, onClosed, onChanged });
    const step = (by) => this.#step(by);
    pushKeys({
      within: this.#dialog,
      j: () => step(1),
      k: () => step(-1),
      f: () => this.falsePositive(),
      c: () => this.#close(),
    });
    for (const button of this.#dialog.querySelectorAll("[data-step]")) button.addEventListener("click", () => step(Number(button.dataset.step)));
    this.#dialog.addEventListener("cancel", (event) => {
      if (this.#panel.hidden) return;
      event.preventDefault();
      this.#hidePanel();
    });
    this.#dialog.addEventListener("close", () => {
      const [kind, id] = [this.#kind, this.#record?.id];
      this.#panel.hidden = true;
      this.#record = null;
      this.#kind = null;
      // The toast must not stay in a dialog that is gone.
      document.body.append($("#toasts"));
      this.onClosed(kind, id);
    });
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
  }

  get open() {
    return this.#dialog.open ? { kind: this.#kind, id: this.#record?.id } : null;
  }

  leave() {
    if (this.#dialog.open) this.#dialog.close();
  }

  /** Shows an incident: at once what is known of it, then all of it. */
  async alert(id, known = null, { falsePositive = false } = {}) {
    this.#panel.hidden = true;
    if (known) this.#showAlert(known);
    try {
      const full = await get(`/api/alerts/${encodeURIComponent(id)}`);
      if (known && this.#record?.id !== id) return;
      this.#showAlert(full);
      if (falsePositive) await this.falsePositive();
    } catch (error) {
      tell(error);
    }
  }

  flow(record) {
    this.#panel.hidden = true;
    const severity = wordOf(record).toLowerCase();
    this.#begin("flow", record, severity, "Flow", `${hhmmss(record.time)}${milliseconds(record.time)}, ${record.final_decision}`);
    replace($("#inv-left"), flowLeft(record));
    replace($("#inv-right"), models(flowModels(record), severity));
    const incident = record.incident && h("button", { type: "button", class: "btn btn-primary", "data-needs-server": true, onclick: () => this.show("alert", record.incident) }, "Open its incident");
    replace($("#inv-foot"), h("div", { class: "foot-actions" }, incident), h("span", { class: "hint foot-note" }, "Nothing here changes your network."), this.#json(record, `flow-${record.id}`));
  }

  #begin(kind, record, severity, title, time) {
    const fresh = this.#record?.id !== record.id;
    this.#kind = kind;
    this.#record = record;
    const tag = $("#inv-severity");
    tag.className = `sev-tag sev-${severity}`;
    replace(tag, mark(severity), severityWord(severity.toUpperCase()));
    $("#inv-title").textContent = title;
    replace($("#inv-time"), ...[time].flat());
    const { place, total, previous, next } = this.neighbours(kind, record.id);
    $("#inv-steps").hidden = total < 2 || !place;
    $("#inv-place").textContent = `${place} of ${total}`;
    $("[data-step='-1']", this.#dialog).disabled = !previous;
    $("[data-step='1']", this.#dialog).disabled = !next;
    if (!this.#dialog.open) this.#dialog.showModal();
    if (fresh) {
      $("#inv-left").scrollTop = 0;
      $("#inv-right").scrollTop = 0;
      $(".inv-body").scrollTop = 0;
      $("#inv-title").focus();
    }
  }

  #showAlert(alert) {
    const severity = alert.severity.toLowerCase();
    this.#begin("alert", alert, severity, plain(alert.title), [h("span", { title: exact(alert.first_time) }, `${span(alert.first_time, alert.last_time)}, ${plural(alert.count, "alert")}`), " ", verdictTag(alert.verdict)]);
    replace($("#inv-left"), incidentLeft(alert));
    const judged = alert.models?.length ? alert.models : alert.worst ? flowModels(alert.worst) : [];
    const ordered = [...judged].sort((a, b) => MODEL_ORDER.indexOf(a.name) - MODEL_ORDER.indexOf(b.name));
    replace($("#inv-right"), [models(ordered, severity, alert), rule(alert.rule ?? alert.rule_recommendation)].filter(Boolean));
    this.#foot(alert);
  }

  #foot(alert) {
    const button = (words, key, run, primary = false) => h("button", { type: "button", class: primary ? "btn btn-primary" : "btn btn-plain", "data-needs-server": true, disabled: shell.stale, onclick: run }, words, key && kbd(key));
    const actions = alert.status === "OPEN"
      ? [button("False positive…", "F", () => this.falsePositive()), button("Expected…", null, () => this.#judge("expected")), button("Real attack", null, () => this.#close("real")), button("Close", "C", () => this.#close())]
      : [alert.undo ? button(alert.status === "FALSE_POSITIVE" ? "Undo false positive" : "Undo close", null, () => undoToken(alert.undo)) : button("Reopen", null, () => this.#reopen())];
    replace($("#inv-foot"), h("div", { class: "foot-actions" }, actions), h("span", { class: "hint foot-note" }, "Nothing here changes your network. Undo is available for 7 days."), this.#json(alert, `incident-${alert.id}`));
  }

  #json(record, name) {
    return h("button", { type: "button", class: "btn btn-bare foot-json", onclick: () => {
      const url = URL.createObjectURL(new Blob([JSON.stringify(record, null, 2)], { type: "application/json" }));
      h("a", { href: url, download: `${name}.json` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    } }, icon("download"), "JSON");
  }

  #step(by) {
    const { previous, next } = this.neighbours(this.#kind, this.#record.id);
    const id = by < 0 ? previous : next;
    if (id) this.show(this.#kind, id);
  }

  #hidePanel() {
    this.#panel.hidden = true;
    this.#foot(this.#record);
    $("#inv-foot button")?.focus();
  }

  /** Opens the false positive panel; a second press puts it away. */
  async falsePositive() {
    await this.#judge("false");
  }

  async #judge(verdict) {
    if (this.#kind !== "alert" || this.#record.status !== "OPEN" || shell.stale) return;
    const again = !this.#panel.hidden && this.#panel.dataset.verdict === verdict;
    if (again) {
      this.#hidePanel();
      return;
    }
    this.#panel.dataset.verdict = verdict;
    await showPanel(this.#panel, [this.#record.id], {
      verdict,
      onCancel: () => this.#hidePanel(),
      onDone: (answers) => {
        this.#dialog.close();
        this.onChanged(answers.map((answer) => answer.alert).filter(Boolean));
      },
    });
  }

  async #close(verdict = null) {
    if (this.#kind !== "alert" || this.#record.status !== "OPEN" || shell.stale) return;
    const { id } = this.#record;
    const done = await closeAlerts([id], verdict);
    if (!done) return;
    this.#dialog.close();
    this.onChanged(done);
  }

  async #reopen() {
    try {
      const answer = await post(`/api/alerts/${encodeURIComponent(this.#record.id)}/reopen`);
      this.#dialog.close();
      this.onChanged([answer.alert]);
      toast("The incident is open again.", { undo: answer.undo });
    } catch (error) {
      tell(error);
    }
  }
}

/** Closes incidents; gives their new states, or null where the server refused. */
export async function closeAlerts(ids, verdict = null) {
  try {
    const answers = [];
    for (const id of ids) answers.push(await post(`/api/alerts/${encodeURIComponent(id)}/close`, verdict ? { verdict } : {}));
    toast(closedWords(ids.length, verdict, answers), { undo: undoOf(answers) });
    return answers.map((answer) => answer.alert);
  } catch (error) {
    tell(error);
    return null;
  }
}

// Keyed table rows: new ones enter at the top, changed ones are rebuilt in place, old ones leave.
// One row is current; it alone is in the tab order.

export class Rows {
  #body;
  #build;
  #nodes = new Map();
  #current = null;
  #pressed = false;

  /** build(record) gives the <tr>; `onCurrent(key)` is told when another row becomes current. */
  constructor(body, build, { max = Infinity, onCurrent } = {}) {
    this.#body = body;
    this.#build = build;
    this.max = max;
    this.onCurrent = onCurrent;
    body.addEventListener("pointerdown", () => (this.#pressed = true));
    addEventListener("pointerup", () => (this.#pressed = false));
    body.addEventListener("focusin", (event) => {
      const row = event.target.closest("tr[data-id]");
      if (row) this.setCurrent(row.dataset.id);
    });
  }

  get size() {
    return this.#nodes.size;
  }

  get current() {
    return this.#current;
  }

  get keys() {
    return [...this.#body.children].filter((node) => node.dataset.id).map((node) => node.dataset.id);
  }

  has(id) {
    return this.#nodes.has(id);
  }

  node(id) {
    return this.#nodes.get(id);
  }

  #make(record) {
    const node = this.#build(record);
    node.dataset.id = record.id;
    node.tabIndex = record.id === this.#current || (this.#current === null && !this.#nodes.size) ? 0 : -1;
    if (record.id === this.#current) node.setAttribute("aria-current", "true");
    return node;
  }

  /** Rebuilds a row that is there already; a focus inside it is given back. */
  change(record) {
    const old = this.#nodes.get(record.id);
    if (!old) return;
    // Nothing changes under a pressed pointer or an open menu: the click would be lost.
    if ((this.#pressed && old.matches(":hover")) || old.querySelector("details[open]")) return;
    const inside = old !== document.activeElement && old.contains(document.activeElement) ? document.activeElement : null;
    const fresh = this.#build(record);
    old.className = fresh.className;
    old.replaceChildren(...fresh.childNodes);
    if (inside) (old.querySelector(`[data-do="${inside.dataset.do}"]`) ?? old).focus({ preventScroll: true });
  }

  /** Newest first: puts the records before all others and trims the end to `max`. */
  prepend(records) {
    const fragment = document.createDocumentFragment();
    for (const record of records) {
      if (this.#nodes.has(record.id)) {
        this.change(record);
        continue;
      }
      const node = this.#make(record);
      this.#nodes.set(record.id, node);
      fragment.append(node);
    }
    this.#body.prepend(fragment);
    while (this.#nodes.size > this.max) this.remove(this.#body.lastElementChild.dataset.id);
  }

  /** Exactly these records in this order; rows that stay are moved, not rebuilt. */
  arrange(records, changed = new Set()) {
    const wanted = new Set(records.map((record) => record.id));
    for (const id of [...this.#nodes.keys()]) if (!wanted.has(id)) this.remove(id);
    let before = this.#body.firstElementChild;
    for (const record of records) {
      if (!this.#nodes.has(record.id)) this.#nodes.set(record.id, this.#make(record));
      else if (changed.has(record.id)) this.change(record);
      const node = this.#nodes.get(record.id);
      if (node === before) before = before.nextElementSibling;
      else this.#body.insertBefore(node, before);
      while (before && !before.dataset.id) before = before.nextElementSibling;
    }
  }

  remove(id) {
    const node = this.#nodes.get(id);
    if (!node) return;
    if (node.nextElementSibling && !node.nextElementSibling.dataset.id) node.nextElementSibling.remove();
    node.remove();
    this.#nodes.delete(id);
    if (this.#current === id) {
      this.#current = null;
      if (this.#body.firstElementChild) this.#body.firstElementChild.tabIndex = 0;
    }
  }

  clear() {
    this.#body.replaceChildren();
    this.#nodes.clear();
    this.#current = null;
  }

  setCurrent(id) {
    if (id === this.#current) return;
    for (const node of this.#nodes.values()) {
      if (node.tabIndex === 0) node.tabIndex = -1;
      if (node.hasAttribute("aria-current")) node.removeAttribute("aria-current");
    }
    this.#current = this.#nodes.has(id) ? id : null;
    const node = this.#nodes.get(id);
    if (!node) return;
    node.tabIndex = 0;
    node.setAttribute("aria-current", "true");
    this.onCurrent?.(id);
  }

  /** Moves the current row by `step` and gives it the focus; gives its key. */
  move(step) {
    const { keys } = this;
    if (!keys.length) return null;
    const at = keys.indexOf(this.#current);
    const id = keys[Math.min(keys.length - 1, Math.max(0, at < 0 ? 0 : at + step))];
    this.focus(id);
    return id;
  }

  focus(id) {
    const node = this.#nodes.get(id);
    if (!node) return;
    this.setCurrent(id);
    node.focus({ preventScroll: true });
    node.scrollIntoView({ block: "nearest" });
  }
}

// All charts: inline SVG coloured by the tokens. Sizes along x are per cent where that is enough;
// the timeline is drawn to the real width and again on resize, so that text never scales.
import { h, markShape, plain, replace, s } from "./dom.js";
import { hhmm, hhmmss, number, score as scoreWords, tick as tickWords, withUnit } from "./fmt.js";

const MAX_POINTS = 720;
const SPARK_BINS = 20;
const AXIS = 24;
const LETTER = 6; // width of a letter of chart text, px
const percent = (share) => `${Math.round(Math.min(1, Math.max(0, share)) * 1e4) / 100}%`;

/** A severity mark of `size` px centred on (x, y); x may be per cent. */
function markAt(severity, x, y, size, title) {
  return s("svg", { x, y, overflow: "visible", class: `glyph glyph-${severity}` },
    title && s("title", null, title),
    s("g", { transform: `translate(${-size / 2} ${-size / 2}) scale(${size / 16})` }, markShape(severity)));
}

/** Round steps for an axis from 0 to at least `top`: [0, 100, 200]. */
function niceTicks(top, wanted = 3) {
  if (!(top > 0)) return [0, 1];
  const rough = top / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((candidate) => candidate >= rough * 0.999);
  const ticks = [];
  for (let value = 0; value < top + step * 0.999; value += step) ticks.push(Number(value.toPrecision(12)));
  return ticks;
}

/** At most 720 points: the smallest and the largest value of each slice, in their order. */
function thinned(values) {
  const points = values.map((value, i) => [i, value]);
  if (points.length <= MAX_POINTS) return points;
  const width = Math.ceil(points.length / (MAX_POINTS / 2));
  const kept = [];
  for (let i = 0; i < points.length; i += width) {
    const slice = points.slice(i, i + width).filter(([, value]) => value !== null);
    if (!slice.length) continue;
    const low = slice.reduce((a, b) => (b[1] < a[1] ? b : a));
    const high = slice.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...[low, high].sort((a, b) => a[0] - b[0]));
  }
  return kept;
}

/** A line over time with the usual range as a band and the incidents below it. */
export class Timeline {
  #host;
  #options;
  #data = null;
  #width = 0;
  #at = null;
  #tip;
  #read = h("p", { class: "visually-hidden", "aria-live": "polite" });

  /** options: {height, unit, name, flag: label the worst incident, nowLabel}. */
  constructor(host, options) {
    this.#host = host;
    this.#options = options;
    this.#tip = h("p", { class: "chart-tip", hidden: true, "aria-hidden": "true" });
    host.setAttribute("tabindex", "0");
    host.setAttribute("role", "group");
    host.setAttribute("aria-label", `${options.name}: left and right arrow keys read single values`);
    host.addEventListener("pointermove", (event) => this.#point(event.clientX - host.getBoundingClientRect().left));
    host.addEventListener("pointerleave", () => this.#cross(null));
    host.addEventListener("blur", () => this.#cross(null));
    host.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || !this.#data) return;
      event.preventDefault();
      const last = this.#data.values.length - 1;
      this.#cross(Math.min(last, Math.max(0, (this.#at ?? last + (step < 0 ? 1 : 0)) + step)), true);
    });
    new ResizeObserver(() => {
      if (this.#data && Math.round(host.clientWidth) !== this.#width) this.#draw();
    }).observe(host);
  }

  update(data) {
    this.#data = data;
    this.#draw();
  }

  rows() {
    const { start, step_s, values, low, high } = this.#data ?? { values: [] };
    return {
      head: ["Time", this.#options.name, "Usual"],
      rows: values.map((value, i) => [step_s < 60 ? hhmmss(start + i * step_s) : hhmm(start + i * step_s), value === null ? "no data" : number(value), low === null ? "not known yet" : `${number(at(low, i))} – ${number(at(high, i))}`]).reverse(),
    };
  }

  #geometry() {
    const { start, step_s, values, high } = this.#data;
    const { height } = this.#options;
    const width = Math.max(220, this.#host.clientWidth);
    const right = width - 8;
    const top = 14;
    const bottom = height - 44;
    const peak = Math.max(0, ...values.filter((v) => v !== null), ...(Array.isArray(high) ? high : [high ?? 0]));
    const ticks = niceTicks(peak * 1.04 || 1);
    const left = Math.max(40, number(ticks[ticks.length - 1]).length * LETTER + 14);
    const x = (i) => left + ((right - left) * i) / Math.max(1, values.length - 1);
    const y = (value) => bottom - ((bottom - top) * value) / ticks[ticks.length - 1];
    const xOf = (time) => x((time - start) / step_s);
    return { width, height, left, right, top, bottom, ticks, x, y, xOf };
  }

  #draw() {
    const { start, step_s, values, low, high, lane = [] } = this.#data;
    const { name, unit, flag, nowLabel } = this.#options;
    this.#width = Math.round(this.#host.clientWidth);
    if (!this.#width) return;
    const g = this.#geometry();
    const end = start + step_s * (values.length - 1);
    const shown = lane.filter((event) => event.time >= start && event.time <= end + step_s);
    const last = values.findLast((value) => value !== null) ?? null;
    const usual = low === null || low === undefined ? "" : `, usual ${number(at(low, values.length - 1))} to ${number(at(high, values.length - 1))}`;
    const svg = s("svg", { class: "timeline", width: g.width, height: g.height, role: "img",
      "aria-label": `${name}, ${last === null ? "no data" : `${number(last)} ${unit}`} now${usual}, ${shown.length} ${shown.length === 1 ? "incident" : "incidents"} in view` });
    for (const tick of g.ticks) {
      svg.append(s("line", { class: tick ? "c-grid" : "c-base", x1: g.left, x2: g.right, y1: g.y(tick), y2: g.y(tick) }));
      svg.append(s("text", { class: "c-text", x: g.left - 8, y: g.y(tick) + 4, "text-anchor": "end" }, number(tick)));
    }
    if (usual) {
      const edge = values.map((_, i) => i);
      const upper = edge.map((i) => `${g.x(i)},${g.y(at(high, i))}`);
      const lower = edge.map((i) => `${g.x(i)},${g.y(at(low, i))}`).reverse();
      svg.append(s("polygon", { class: "c-band", points: [...upper, ...lower].join(" ") }));
    }
    const worst = flag && worstOf(shown);
    if (worst) this.#flag(svg, g, worst);
    let path = "";
    let pen = false;
    for (const [i, value] of thinned(values)) {
      if (value === null) pen = false;
      else {
        path += `${pen ? "L" : "M"}${g.x(i).toFixed(1)} ${g.y(value).toFixed(1)}`;
        pen = true;
      }
    }
    svg.append(s("path", { class: "c-line", d: path }));
    if (values[values.length - 1] !== null && values.length) svg.append(s("circle", { class: "c-now", cx: g.x(values.length - 1), cy: g.y(values[values.length - 1]), r: 3.5 }));
    svg.append(s("text", { class: "c-text", x: g.left - 8, y: g.bottom + 16, "text-anchor": "end" }, "alerts"));
    for (const event of shown) {
      const shape = markAt(event.severity.toLowerCase(), Math.min(g.right, g.xOf(event.time)), g.bottom + 12, 12, `${plain(event.title)}, ${hhmm(event.time)}`);
      if (event.id) {
        shape.classList.add("c-open");
        shape.addEventListener("click", () => location.assign(`/live?tab=alerts&alert=${encodeURIComponent(event.id)}`));
      }
      svg.append(shape);
    }
    const labels = g.width < 480 ? 3 : 5;
    for (let i = 0; i < labels; i += 1) {
      const time = start + ((end - start) * i) / (labels - 1);
      const words = i === labels - 1 && nowLabel ? "now" : hhmm(time);
      svg.append(s("text", { class: "c-text", x: Math.min(g.xOf(time), g.right + 6), y: g.height - 6, "text-anchor": i === labels - 1 ? "end" : "middle" }, words));
    }
    this.#cursor = s("line", { class: "c-cursor", y1: g.top, y2: g.bottom, visibility: "hidden" });
    svg.append(this.#cursor);
    replace(this.#host, svg, this.#tip, this.#read);
    if (this.#at !== null) this.#cross(this.#at);
  }

  #cursor = null;

  #flag(svg, g, event) {
    const x = Math.min(g.right, g.xOf(event.time));
    const severity = event.severity.toLowerCase();
    svg.append(s("line", { class: `c-flag c-${severity}`, x1: x, x2: x, y1: g.top - 4, y2: g.bottom + 4 }));
    const before = x - g.left > g.right - x;
    const room = Math.floor((before ? x - g.left : g.right - x) / LETTER) - 2;
    if (room > 8) svg.append(s("text", { class: `c-text c-flag-text c-${severity}`, x: before ? x - 6 : x + 6, y: g.top + 5, "text-anchor": before ? "end" : "start" }, clipped(plain(event.title), Math.min(room, 44))));
  }

  #point(px) {
    if (!this.#data?.values.length) return;
    const g = this.#geometry();
    const i = Math.round(((px - g.left) / (g.right - g.left)) * (this.#data.values.length - 1));
    this.#cross(i >= 0 && i < this.#data.values.length ? i : null);
  }

  #cross(i, aloud = false) {
    this.#at = i;
    this.#tip.hidden = i === null;
    this.#cursor?.setAttribute("visibility", i === null ? "hidden" : "visible");
    if (i === null) return;
    const { start, step_s, values } = this.#data;
    const g = this.#geometry();
    const words = `${hhmm(start + i * step_s)}  ${values[i] === null ? "no data" : `${number(values[i])} ${this.#options.unit}`}`;
    this.#cursor.setAttribute("x1", g.x(i));
    this.#cursor.setAttribute("x2", g.x(i));
    this.#tip.textContent = words;
    this.#tip.style.left = `${Math.min(g.width - 120, Math.max(0, g.x(i) - 50))}px`;
    if (aloud) this.#read.textContent = words;
  }
}

const at = (edge, i) => (Array.isArray(edge) ? edge[Math.min(i, edge.length - 1)] : edge);
const clipped = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
const ORDER = ["CRITICAL", "HIGH", "MEDIUM", "LOW"];
const worstOf = (events) => [...events].filter((e) => ORDER.indexOf(e.severity) < 2).sort((a, b) => ORDER.indexOf(a.severity) - ORDER.indexOf(b.severity) || b.time - a.time)[0];

/** Bars of the last 60 minutes, newest right. */
export function spark(rate, severity, { width = 94, height = 28 } = {}) {
  const values = rate?.length ? rate : [0];
  const peak = Math.max(1, ...values);
  const bins = Array.from({ length: SPARK_BINS }, (_, i) => values.slice(Math.floor((i * values.length) / SPARK_BINS), Math.floor(((i + 1) * values.length) / SPARK_BINS)).reduce((a, b) => a + b, 0));
  const most = Math.max(1, ...bins);
  const step = width / SPARK_BINS;
  const svg = s("svg", { class: `spark bars-${severity}`, width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Last ${values.length} min: ${values.reduce((a, b) => a + b, 0)} alerts, at most ${peak} in a minute` });
  svg.append(s("line", { class: "c-base", x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }));
  bins.forEach((value, i) => {
    if (!value) return;
    const tall = Math.max(3, Math.sqrt(value / most) * (height - 2));
    svg.append(s("rect", { x: i * step + 0.5, y: height - 1 - tall, width: step - 1, height: tall, rx: 0.8 }));
  });
  return svg;
}

/** One value against its usual range, 10 px high. `outside` is a severity's name or null. */
export function rangeBar({ now, low, high, max, words, outside }) {
  const top = max || Math.max(now ?? 0, high ?? 0, 1e-9) * 1.15;
  const svg = s("svg", { class: "range-bar", width: "100%", height: 12, role: "img", "aria-label": words });
  svg.append(s("line", { class: "c-rail", x1: 0, x2: "100%", y1: 6, y2: 6 }));
  if (low !== null && low !== undefined && high !== null && high !== undefined) {
    svg.append(s("rect", { class: "c-band", x: percent(low / top), width: percent((high - low) / top), y: 3, height: 6 }));
    for (const edge of [low, high]) svg.append(s("line", { class: "c-band-edge", x1: percent(edge / top), x2: percent(edge / top), y1: 1, y2: 11 }));
  }
  if (now !== null && now !== undefined) {
    const x = percent(0.008 + 0.984 * Math.min(1, now / top));
    svg.append(s("svg", { x, y: 0, overflow: "visible" }, s("rect", { class: outside ? `c-tick c-${outside}` : "c-tick", x: -1.5, y: 1.5, width: 3.5, height: 9, rx: 1.2 })));
  }
  return svg;
}

/** Incidents by hour, stacked, worst on top. */
export function stacked(hours, height = 190) {
  const sums = hours.map((hour) => ORDER.reduce((sum, key) => sum + (hour[key] || 0), 0));
  const ticks = niceTicks(Math.max(2, ...sums), 3).filter(Number.isInteger);
  const top = ticks[ticks.length - 1];
  const base = height - 24;
  const y = (value) => base - ((base - 10) * value) / top;
  const total = sums.reduce((a, b) => a + b, 0);
  const axis = s("svg", { width: AXIS, height, "aria-hidden": "true" });
  const plot = s("svg", { class: "stacked-plot", width: "100%", height, role: "img", "aria-label": `Incidents by hour, ${total} in the last 24 hours` });
  for (const tick of ticks) {
    plot.append(s("line", { class: tick ? "c-grid" : "c-base", x1: 0, x2: "100%", y1: y(tick), y2: y(tick) }));
    axis.append(s("text", { class: "c-text", x: AXIS - 8, y: y(tick) + 4, "text-anchor": "end" }, number(tick)));
  }
  hours.forEach((hour, i) => {
    let sum = 0;
    const bar = s("g", null, s("title", null, `${hhmm(hour.start)}: ${sums[i]}`));
    for (const key of [...ORDER].reverse()) {
      const n = hour[key] || 0;
      if (!n) continue;
      bar.append(s("rect", { class: `c-${key.toLowerCase()}-fill`, x: percent((i + 0.12) / hours.length), width: percent(0.76 / hours.length), y: y(sum + n) + 1, height: Math.max(1, y(sum) - y(sum + n) - 1) }));
      sum += n;
    }
    plot.append(bar);
    if (i % 6 === 0 || i === hours.length - 1) {
      plot.append(s("text", { class: "c-text", x: percent((i + 0.5) / hours.length), y: height - 6, "text-anchor": "middle" }, hhmm(hour.start).slice(0, 2)));
    }
  });
  return h("div", { class: "stacked" }, axis, plot);
}

export const hourRows = (hours) => ({
  head: ["Hour", "Critical", "High", "Medium", "Low"],
  rows: hours.map((hour) => [hhmm(hour.start), ...ORDER.map((key) => number(hour[key] || 0))]).reverse(),
});

const WHOLE = new Set(["count", "packets", "bytes"]);

function scale(deviation) {
  const { value, low, high, log, unit } = deviation;
  const positive = [value, low, high].filter((v) => v > 0);
  if (!log || !positive.length) {
    const bottom = Math.min(0, low, value);
    const top = Math.max(high, value) * 1.15 || 1;
    return { at: (v) => (v - bottom) / (top - bottom), ticks: niceTicks(top, 4).filter((t) => t <= top) };
  }
  const most = Math.max(...positive);
  // A range that begins at 0 gets three decades below its end.
  const least = Math.max(low > 0 ? Math.min(...positive) : Math.min(...positive, (high > 0 ? high : most) / 1e3), most / 1e8);
  let from = Math.log10(least);
  let to = Math.log10(most);
  const room = Math.max(0.3, (to - from) * 0.14);
  from -= room;
  to += room;
  const decades = [];
  for (let e = WHOLE.has(unit) ? Math.max(0, Math.ceil(from)) : Math.ceil(from); e <= Math.floor(to); e += 1) decades.push(10 ** e);
  const every = Math.ceil(decades.length / 5);
  const at = (v) => (v <= 10 ** from ? 0 : (Math.log10(v) - from) / (to - from));
  return { at, ticks: decades.filter((_, i) => i % every === 0) };
}

/** One deviation: its usual range as a box, the value as a mark, a line from the box's edge to it. */
export function devBar(deviation, severity, words) {
  const { at, ticks } = scale(deviation);
  const { value, low, high, unit } = deviation;
  const svg = s("svg", { class: "dev-bar", width: "100%", height: 34, role: "img", "aria-label": words });
  svg.append(s("line", { class: "c-rail", x1: 0, x2: "100%", y1: 9, y2: 9 }));
  let taken = -1;
  for (const tick of ticks) {
    const share = at(tick);
    svg.append(s("line", { class: "c-rail", x1: percent(share), x2: percent(share), y1: 6, y2: 12 }));
    if (share - taken < 0.17 || share > 0.97) continue;
    taken = share;
    svg.append(s("text", { class: "c-text", x: percent(share), y: 29, "text-anchor": share < 0.04 ? "start" : "middle" }, tickWords(tick, unit)));
  }
  svg.append(s("rect", { class: "c-box", x: percent(at(low)), width: percent(Math.max(0.006, at(high) - at(low))), y: 2.5, height: 13, rx: 2 }));
  if (value > high) svg.append(s("line", { class: `c-reach c-${severity}`, x1: percent(at(high)), x2: percent(at(value)), y1: 9, y2: 9 }));
  if (value < low) svg.append(s("line", { class: `c-reach c-${severity}`, x1: percent(at(value)), x2: percent(at(low)), y1: 9, y2: 9 }));
  svg.append(markAt(severity, percent(at(value)), 9, severity === "dot" ? 12 : 15));
  return svg;
}

/** Where a score stands among the scores of normal flows; ordinary left, strange right. */
export function scoreStrip(model, severity, words) {
  const { histogram, histogram_low: low, histogram_high: high, threshold, score } = model;
  const at = (value) => (high - value) / (high - low || 1);
  const bins = [...histogram].reverse();
  const peak = Math.sqrt(Math.max(1, ...bins));
  const svg = s("svg", { class: "score-strip", width: "100%", height: 42, role: "img", "aria-label": words });
  const limit = Math.min(1, Math.max(0, at(threshold)));
  svg.append(s("rect", { class: `c-zone c-zone-${severity}`, x: percent(limit), width: percent(1 - limit), y: 2, height: 26 }));
  bins.forEach((n, i) => {
    if (!n) return;
    const tall = Math.max(1, (Math.sqrt(n) / peak) * 24);
    svg.append(s("rect", { class: "c-bin", x: percent(i / bins.length), width: percent(0.84 / bins.length), y: 28 - tall, height: tall }));
  });
  svg.append(s("line", { class: "c-base", x1: 0, x2: "100%", y1: 28.5, y2: 28.5 }));
  svg.append(s("line", { class: "c-limit", x1: percent(limit), x2: percent(limit), y1: 2, y2: 29 }));
  if (limit > 0.32) svg.append(s("text", { class: "c-text", x: 0, y: 40 }, "ordinary"));
  svg.append(s("text", { class: "c-text", x: percent(limit), y: 40, "text-anchor": limit < 0.1 ? "start" : limit > 0.88 ? "end" : "middle" }, `limit ${scoreWords(threshold)}`));
  if (limit < 0.68) svg.append(s("text", { class: "c-text", x: "100%", y: 40, "text-anchor": "end" }, "strange"));
  if (score !== null && score !== undefined) svg.append(markAt(model.vote === "ANOMALY" ? severity : "dot", percent(Math.min(0.975, Math.max(0.02, at(score)))), 15, model.vote === "ANOMALY" ? 14 : 10));
  return svg;
}

/** 24 plain bars with the hours below: what a device did in the last day. */
export function history({ unit, label, step_s, start, values }) {
  const peak = Math.max(1e-9, ...values.map((v) => v ?? 0));
  const svg = s("svg", { class: "history", width: "100%", height: 74, role: "img", "aria-label": `${plain(label)}: at most ${withUnit(peak, unit)}, ${withUnit(values[values.length - 1] ?? 0, unit)} in the newest` });
  values.forEach((value, i) => {
    const tall = Math.max(1.5, ((value ?? 0) / peak) * 54);
    svg.append(s("rect", { class: value ? "c-data" : "c-none", x: percent(i / values.length), width: percent(0.84 / values.length), y: 56 - tall, height: tall },
      s("title", null, `${hhmm(start + i * step_s)}: ${withUnit(value ?? 0, unit)}`)));
  });
  svg.append(s("text", { class: "c-text", x: 0, y: 70 }, hhmm(start)));
  svg.append(s("text", { class: "c-text", x: "50%", y: 70, "text-anchor": "middle" }, `most ${withUnit(peak, unit)}, now ${withUnit(values[values.length - 1] ?? 0, unit)}`));
  svg.append(s("text", { class: "c-text", x: "100%", y: 70, "text-anchor": "end" }, hhmm(start + (values.length - 1) * step_s)));
  return svg;
}

/** Makes a button show the chart's numbers as a table below it, and hide them again. */
export function tableButton(button, host, rows) {
  let holder = null;
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-pressed") === "true";
    button.setAttribute("aria-pressed", String(!open));
    holder?.remove();
    if (open) return;
    const { head, rows: body } = rows();
    holder = h("div", { class: "chart-table", tabindex: "0", role: "region", "aria-label": "The chart as a table" },
      h("table", null,
        h("thead", null, h("tr", null, head.map((words) => h("th", { scope: "col" }, words)))),
        h("tbody", null, body.map((cells) => h("tr", null, cells.map((words, i) => (i ? h("td", null, words) : h("th", { scope: "row" }, words))))))));
    host.after(holder);
  });
}

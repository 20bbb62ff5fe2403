// Numbers and times as people read them: three significant digits, SI units, 24 h local time.
import { clock } from "./api.js";

const NONE = "no data";

/** Three significant digits, commas for thousands: 25.1, 0.042, 1,412. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 9999.5) return Number(value.toPrecision(3)).toLocaleString("en-US");
  if (size >= 99.95) return Math.round(value).toLocaleString("en-US");
  const digits = Math.max(0, 2 - Math.floor(Math.log10(size)));
  return String(Number(value.toFixed(Math.min(digits, 6))));
}

export const count = (value) => (value === null || value === undefined ? NONE : Math.round(value).toLocaleString("en-US"));

function scaled(value, steps) {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  if (value === 0) return `0 ${steps[0][1]}`;
  let chosen = steps[0];
  for (const step of steps) if (Math.abs(value) >= (step[2] ?? step[0]) * 0.9995) chosen = step;
  return `${number(value / chosen[0])} ${chosen[1]}`;
}

const SI = (unit, kilo = "k") => [[1, unit], [1e3, kilo + unit], [1e6, `M${unit}`], [1e9, `G${unit}`], [1e12, `T${unit}`]];
const TIMES = [[1e-6, "µs"], [1e-3, "ms"], [1, "s", 0.1], [60, "min"], [3600, "h"], [86400, "d"]];

export const bytes = (value) => scaled(value, SI("B"));

/** A length of time in seconds: 0.6 ms, 14 min, 3.2 h. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds === 0) return "0 s";
  if (seconds >= 90 && seconds < 5400) return `${number(seconds / 60)} min`;
  if (seconds >= 60 && seconds < 90) return `${number(seconds)} s`;
  return scaled(seconds, TIMES);
}

/** A value with the unit of a feature table: us, bytes, packets, bytes/s, packets/s, count, ratio. */
export function withUnit(value, unit) {
  if (value === null || value === undefined) return NONE;
  switch (unit) {
    // Parts of a millisecond read better beside a range in milliseconds.
    case "us": return value >= 100 && value < 1000 ? `${number(value / 1000)} ms` : duration(value / 1e6);
    case "bytes": return bytes(value);
    case "bytes/s": return scaled(value, SI("B/s"));
    case "packets/s": return `${number(value)} packets/s`;
    case "packets": return `${number(value)} ${value === 1 ? "packet" : "packets"}`;
    case "yes or no": return value >= 0.5 ? "yes" : "no";
    case "count": case "ratio": case "": case null: case undefined: return number(value);
    default: return `${number(value)} ${value === 1 ? unit.replace(/s$/, "") : unit}`;
  }
}

/** "40 kB – 14 MB", the unit once where both share it: "0.2 – 40 ms". */
export function range(low, high, unit) {
  if (unit === "yes or no") return low === high ? withUnit(low, unit) : "no or yes";
  if (low === 0) return `0 – ${withUnit(high, unit)}`;
  const [a, b] = [withUnit(low, unit), withUnit(high, unit)];
  const [ua, ub] = [a.split(" ").slice(1).join(" "), b.split(" ").slice(1).join(" ")];
  return ua === ub && ua ? `${a.split(" ")[0]} – ${b}` : `${a} – ${b}`;
}

/** A value beside an axis, short: 100 s, 10 k/s. */
export function tick(value, unit) {
  // Decades of time read better in seconds: 100 s, not 1.67 min.
  if (unit === "us" && value >= 6e7 && value < 1e11) return `${number(value / 1e6)} s`;
  const plain = { "packets/s": "/s", packets: "", count: "" }[unit];
  return plain === undefined || value < 1000 ? withUnit(value, unit).replace("packets/s", "/s").replace(/ packets?$/, "") : scaled(value, SI(plain));
}

const pad = (n, width = 2) => String(n).padStart(width, "0");
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

export const hhmm = (time) => {
  const t = new Date(time * 1000);
  return `${pad(t.getHours())}:${pad(t.getMinutes())}`;
};

export const hhmmss = (time) => `${hhmm(time)}:${pad(new Date(time * 1000).getSeconds())}`;

export const milliseconds = (time) => `.${pad(Math.floor((time * 1000) % 1000), 3)}`;

const isToday = (time) => new Date(time * 1000).toDateString() === new Date(clock.now() * 1000).toDateString();

export const day = (time) => {
  const t = new Date(time * 1000);
  return `${t.getDate()} ${MONTHS[t.getMonth()]}`;
};

/** 14:32 today, "3 Mar 14:32" on another day. */
export const when = (time) => (isToday(time) ? hhmm(time) : `${day(time)} ${hhmm(time)}`);

/** "14:18:03 to 14:32:05 today" or with the days named. */
export function span(first, last) {
  const tail = isToday(last) ? " today" : `, ${day(last)}`;
  const head = new Date(first * 1000).toDateString() === new Date(last * 1000).toDateString() ? "" : `${day(first)} `;
  return Math.floor(first) === Math.floor(last) ? hhmmss(last) + tail : `${head}${hhmmss(first)} to ${hhmmss(last)}${tail}`;
}

export const exact = (time) => `${new Date(time * 1000).getFullYear()}-${pad(new Date(time * 1000).getMonth() + 1)}-${pad(new Date(time * 1000).getDate())} ${hhmmss(time)}`;

/** now, 42 s ago, 11 min ago, 3 h ago, 5 d ago. */
export function ago(time) {
  const age = clock.now() - time;
  if (age < 10) return "now";
  if (age < 100) return `${Math.round(age)} s ago`;
  if (age < 5400) return `${Math.round(age / 60)} min ago`;
  if (age < 129600) return `${Math.round(age / 3600)} h ago`;
  return `${Math.round(age / 86400)} d ago`;
}

const twoDigits = (n) => (n < 100 ? Math.round(n) : Number(n.toPrecision(2)));

/** common, "1 in 620", "rarest of 4,512". Never rarer than the reference allows. */
export function rarity(rare) {
  if (!rare || rare.n === null || rare.n === undefined) return rare?.beyond ? `rarest of ${count(rare.reference)}` : "not judged";
  if (rare.beyond) return `rarest of ${count(rare.reference)}`;
  if (rare.n < 20) return "common";
  return `1 in ${count(twoDigits(Math.min(rare.n, rare.reference || rare.n)))}`;
}

/** What a model's rarity means, as a sentence. */
export function raritySentence(rare, vote) {
  if (!rare) return "";
  if (rare.beyond) return `Stranger than all ${count(rare.reference)} normal flows it knows.`;
  if (!rare.n || rare.n < 2) return "As ordinary as most normal flows.";
  const n = count(twoDigits(Math.min(rare.n, rare.reference || rare.n)));
  return vote === "ANOMALY" ? `About 1 in ${n} normal flows is this strange.` : `Within its limit: about 1 in ${n} is like this.`;
}

/** A calibrated score with a real minus sign. */
export const score = (value) => (value === null || value === undefined ? "–" : value.toFixed(2).replace("-", "−"));

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

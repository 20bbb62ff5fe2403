// Talking to the server: one request in flight, 5 s timeout, growing pauses after a failure.

const TIMEOUT_MS = 5000;
const PAUSES_S = [2, 4, 8, 16, 30];
const HIDDEN_EVERY_MS = 30000;

/** What the server answered where it did not do what was asked; message is its sentence. */
export class ServerError extends Error {
  constructor(message, status, field) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

/** The server's time, so that ages do not depend on this computer's clock. */
export const clock = {
  offset: 0,
  now() {
    return Date.now() / 1000 + this.offset;
  },
  set(serverTime) {
    if (Number.isFinite(serverTime)) this.offset = serverTime - Date.now() / 1000;
  },
};

async function request(path, options) {
  const answer = await fetch(path, { ...options, signal: AbortSignal.timeout(TIMEOUT_MS), credentials: "same-origin" });
  const time = answer.headers.get("X-Time");
  if (time) clock.set(Number(time));
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new ServerError(body?.error ?? `The server answered ${answer.status}. Nothing was changed.`, answer.status, body?.field);
  return { body, seq: Number(answer.headers.get("X-Seq") ?? NaN), reset: answer.headers.get("X-Reset") === "1" };
}

/** GET with query parameters; empty ones are left out. Gives {body, seq, reset}. */
export function list(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  return request(query.size ? `${path}?${query}` : path);
}

export const get = async (path, parameters) => (await list(path, parameters)).body;

export const post = async (path, body = {}) =>
  (await request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).body;

/**
 * Calls `tick` every `everyMs` while the page is visible, `hiddenTick` every 30 s while it is not.
 * `onState({failures, lastGood, nextTry})` is told after each answer; times in Date.now() ms.
 */
export class Poller {
  #timer = 0;
  #busy = false;
  #again = false;
  failures = 0;
  lastGood = Date.now();
  nextTry = 0;

  constructor({ everyMs, tick, hiddenTick, onState, onReturn }) {
    Object.assign(this, { everyMs, tick, hiddenTick, onState, onReturn });
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.#timer);
      if (document.hidden) this.#plan(HIDDEN_EVERY_MS);
      else {
        this.onReturn?.();
        this.now();
      }
    });
  }

  start() {
    this.#plan(this.everyMs);
  }

  /** Asks at once; while a request is under way, right after it. */
  now() {
    clearTimeout(this.#timer);
    if (this.#busy) this.#again = true;
    else this.#run();
  }

  #plan(ms) {
    clearTimeout(this.#timer);
    this.nextTry = Date.now() + ms;
    this.#timer = setTimeout(() => this.#run(), ms);
  }

  async #run() {
    this.#busy = true;
    try {
      await (document.hidden ? this.hiddenTick() : this.tick());
      this.failures = 0;
      this.lastGood = Date.now();
    } catch (error) {
      // A refusal (4xx) is an answer: the server is there. Everything else counts as silence.
      if (error instanceof ServerError && error.status < 500) this.failures = 0;
      else if (error instanceof ServerError || error instanceof TypeError || error instanceof DOMException) this.failures += 1;
      else throw error;
    } finally {
      this.#busy = false;
      const pause = PAUSES_S[Math.min(this.failures, PAUSES_S.length) - 1];
      if (this.#again) {
        this.#again = false;
        queueMicrotask(() => this.now());
      } else if (document.hidden) this.#plan(HIDDEN_EVERY_MS);
      else this.#plan(this.failures ? pause * 1000 * (0.9 + Math.random() * 0.2) : this.everyMs);
      this.onState?.(this);
    }
  }
}

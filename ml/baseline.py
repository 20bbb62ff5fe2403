"""The live model: learns what is normal on this network, from its own flows, again and again.

WARMING UP until NEEDED verified normal flows, LEARNING while a training runs, TRAINED after; a new
training each NEEDED flows more. Verified means: no available model objected and the source is not
in quarantine. A fifth of all flows, by a hash of their addresses and ports, is never fitted and
sets the line, whatever the votes said: lines set on what passed the votes creep inwards (measured:
7 to 16 % false alarms). When a source turns out bad, its rows leave the buffer again, also those
from before. A version that is blind to attacks the one before saw, or that judges harmless flows
otherwise, is kept but does not serve (candidate.py).

The folder (LIVE_MODEL_PATH):

    live_baseline_buffer.csv   the flows it learns from; one can open it
    live_metadata.json         every training with its figures; which version serves
    model.npz, manifest.json, live_iforest.pkl, live_scaler.pkl   the serving version
    versions/<n>/              the newest KEPT versions, to go back to
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batches import Rows
from errors import AppError, ModelError
from ml.buffer import FIT, HELD, Buffer, Row
from ml.candidate import beyond_share
from ml.drift import Drift, drift
from ml.lessons import SURE, Lesson, refusal, train
from ml.model import Model
from ml.quarantine import Quarantine
from ml.versions import Versions

__all__ = ["NEEDED", "Baseline", "never_fitted"]

log = logging.getLogger("secureflux.baseline")

Values = NDArray[np.float64]

NEEDED: Final = 500
"""The specification's number of verified normal flows, for the first training and each next."""
NEWEST_FITTED: Final = 4000
"""Flows learned from at most; older ones slide out, so that early poison is forgotten (AUC .964
with 500, .978 with 2,000, .983 with 3,000)."""
NEWEST_HELD: Final = 1000
FEWEST_HELD: Final = 100
"""A line set on fewer flows flags more than one in a hundred whatever is asked of it; what lacks
is taken from the newest flows to fit."""
REST_S: Final = 60.0
"""Between two trainings by themselves, seconds of packet time."""
FOLDS: Final = np.uint64(5)
ANOTHER_NETWORK: Final = 0.5
"""Where so large a share of the newest flows is beyond the line, hardly one passes the votes to be
learned from: only a person can say that this is another network now."""
DRIFT_EVERY: Final = 25
"""Never-fitted flows between two looks at how the network has changed; a look takes 5 ms."""


def never_fitted(rows: Rows) -> NDArray[np.bool_]:
    """(n,) whether a flow belongs to the fifth that sets the line; stable over restarts.

    By addresses, ports and protocol, so that a connection cut by a time-out stays on one side.
    """
    digest = np.zeros(len(rows), np.uint64)
    with np.errstate(over="ignore"):
        for name in ("src_hi", "src_lo", "dst_hi", "dst_lo", "src_port", "dst_port", "protocol"):
            # One round of splitmix64 (Steele, Lea, Flood 2014) a field.
            digest = (digest ^ rows[name].astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            digest = (digest ^ (digest >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            digest = (digest ^ (digest >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            digest ^= digest >> np.uint64(31)
    fifth: NDArray[np.bool_] = digest % FOLDS == 0
    return fifth


class Baseline:
    """The live model and its learning; doors may be called from any thread.

    folder: LIVE_MODEL_PATH. alpha, weight: the model's share of the false-alarm budget.
    background: train in a thread of low priority; otherwise at once, where a file is replayed.
    Times are packet time, epoch seconds. offloads: asked at each training what was joined or cut
    on which interface, because it changes what is normal.
    """

    def __init__(
        self, folder: Path, *, alpha: float = 0.01, weight: float = 0.8, background: bool = True
    ) -> None:
        self._alpha = alpha
        self._weight = weight
        self._background = background
        self.offloads: Callable[[], dict[str, list[str]]] = dict
        # Held only for memory and the buffer's file, so that judging never waits long for it ...
        self._lock = threading.RLock()
        # ... and this one for what serves, while versions are written or changed.
        self._serving_lock = threading.Lock()
        self._buffer = Buffer(folder, fitted=NEWEST_FITTED, held=NEWEST_HELD)
        self._versions = Versions(folder)
        self._model = self._versions.load_serving()
        self._quarantine = Quarantine()
        self._with_incidents: frozenset[str] = frozenset()
        self._barred: frozenset[str] = frozenset()
        self._drift: Drift | None = None
        self._strange = 0.0
        self._unlooked = 0
        self._thread: threading.Thread | None = None
        self._training = False
        self._trouble: str | None = None
        self._now_s = 0.0
        last = self._versions.last
        self._last_training_s = float(last["trained_at"]) if last else -np.inf
        # Flows that came after the newest one of the last training are still to be learned.
        self._learned_s = float(last["newest"]) if last else -np.inf
        self._fresh = self._buffer.count(FIT, after_s=self._learned_s)
        self._generation = 0

    # --- what judging needs ---------------------------------------------------------------------

    @property
    def model(self) -> Model | None:
        """The serving version; None while warming up. It changes between two calls."""
        return self._model

    @property
    def phase(self) -> str:
        if self._training:
            return "LEARNING"
        return "WARMING UP" if self._model is None else "TRAINED"

    # --- what comes in --------------------------------------------------------------------------

    def offer(
        self, values: Values, sources: Sequence[str], held: NDArray[np.bool_], now_s: float
    ) -> None:
        """Verified normal flows to fit, and flows that set the line.

        values: (n, len(LIVE)); sources: the n initiators' addresses; held: (n,) whether the flow
        belongs to the never-fitted fifth. May start a training.
        """
        with self._lock:
            self._now_s = now_s
            rows = [
                Row(now_s, HELD if side else FIT, source, "", "", row)
                for row, source, side in zip(values, sources, held, strict=True)
            ]
            self._buffer.append(rows)
            self._fresh += len(rows) - int(np.count_nonzero(held))
            self._unlooked += int(np.count_nonzero(held))
            if self._unlooked >= DRIFT_EVERY:
                self._look_for_drift()
            due = self._fresh >= NEEDED and self._buffer.count(FIT) >= NEEDED
            # Also where the clock has jumped back.
            rested = abs(now_s - self._last_training_s) >= REST_S
            if due and rested and not self._training:
                self._start_training(by_hand=False)

    def quarantine(self, sources: frozenset[str]) -> None:
        """The sources with incidents may not teach now; what they taught before goes."""
        with self._lock:
            self._with_incidents = sources
            self._bar()

    def watch(
        self,
        sources: Sequence[str],
        services: Sequence[Hashable],
        alerts: NDArray[np.bool_],
        scores: NDArray[np.float64],
    ) -> None:
        """Bar the sources whose flows are odd too often, before their flows are offered.

        sources, services: of n ended flows the initiator's address, and the port of a host they
        went to. alerts: (n,) by models whose scores are counted on this network's flows, and by no
        others; scores: (n,) of the live model, NaN without one.
        """
        with self._lock:
            self._quarantine.count(sources, services, alerts, scores)
            self._bar()

    @property
    def barred(self) -> frozenset[str]:
        """The sources that may not teach now, for either reason."""
        return self._barred

    def _bar(self) -> None:
        barred = self._with_incidents | self._quarantine.barred
        fresh = barred - self._barred
        self._barred = barred
        if fresh:
            self._forget(lambda row: row.source in fresh and not row.token)

    def add_confirmed(self, values: Values, keys: Sequence[str]) -> str:
        """Flows a person called normal join the buffer; the token takes them out again.

        values: (n, len(LIVE)); keys: the flows' ids; one that is in the buffer stays once.
        """
        token = secrets.token_hex(8)
        with self._lock:
            known = self._buffer.keys()
            rows = [
                Row(self._now_s, FIT, "", token, key, np.asarray(row, np.float64))
                for row, key in zip(values, keys, strict=True)
                if key not in known
            ]
            self._buffer.append(rows)
            self._fresh += len(rows)
        return token

    def withdraw(self, token: str) -> int:
        """Take the flows of an `add_confirmed` out; how many there were. The next training
        forgets them."""
        if not token:
            return 0
        with self._lock:
            return self._forget(lambda row: row.token == token)

    def _forget(self, unwanted: Callable[[Row], bool]) -> int:
        gone = self._buffer.remove(unwanted)
        # At most all that came since the last training were among them.
        self._fresh = min(self._fresh, self._buffer.count(FIT, after_s=self._learned_s))
        return gone

    # --- what an admin decides ------------------------------------------------------------------

    def retrain(self) -> None:
        """Train now on what the buffer holds; ModelError where that is too little."""
        with self._lock:
            collected = self._buffer.count(FIT)
            if self._training:
                raise ModelError("The live model is being trained already.")
            if collected < NEEDED:
                raise ModelError(
                    f"The live model can't be trained yet: {collected} of {NEEDED} normal flows "
                    "are collected."
                )
            self._start_training(by_hand=True)

    def rollback(self) -> None:
        """Serve the version before the serving one; ModelError where there is none."""
        with self._serving_lock, _on_disk():
            self._model = self._versions.go_back()
            self._generation += 1

    def use(self, version: int) -> None:
        """Serve a kept version by its number; ModelError where it is not there."""
        with self._serving_lock, _on_disk():
            self._model = self._versions.use(version)
            self._generation += 1

    def reset(self) -> None:
        """Forget what was learned and begin anew; the versions stay to go back to."""
        with self._serving_lock, _on_disk():
            self._versions.serve_none()
            self._model = None
            self._generation += 1
            with self._lock:
                self._buffer.clear()
                self._quarantine.clear()
                self._bar()
                self._fresh = 0
                self._drift, self._strange = None, 0.0
                self._trouble = None

    def close(self, timeout_s: float = 2.0) -> None:
        """Bring the buffer to the disk; a training that still runs is given up after a while."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        with self._lock:
            self._buffer.close()

    def wait(self, timeout_s: float = 60.0) -> bool:
        """Wait for a training in the background; False where it still runs."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
            return not thread.is_alive()
        return True

    def status(self) -> dict[str, Any]:
        """The `baseline` part of /api/live_status."""
        with self._lock:
            serving = self._versions.serving
            collected = min(self._fresh, NEEDED)
            trained = serving["trained_at"] if serving else None
            return {
                "phase": self.phase,
                "collected": collected,
                "needed": NEEDED,
                "trained_at": trained,
                "version": serving["version"] if serving else None,
                "history": [_brief(one) for one in self._versions.history()],
                "drift": self._drift.told() if self._drift else None,
                "trouble": self._trouble or self._buffer.trouble,
                "sentence": self._sentence(collected, serving),
            }

    def to_fit(self) -> Values:
        """(n, len(LIVE)) what the next training would fit, oldest first."""
        with self._lock:
            return self._buffer.values(FIT)

    def never_fitted(self) -> Values:
        """(n, len(LIVE)) the newest flows of the fifth that is never fitted, oldest first."""
        with self._lock:
            return self._buffer.values(HELD)

    @property
    def learned_with(self) -> dict[str, list[str]]:
        """The offloads of each interface when the serving version was trained."""
        with self._lock:
            serving = self._versions.serving
        return dict(serving.get("offloads") or {}) if serving else {}

    def _sentence(self, collected: int, serving: dict[str, Any] | None) -> str:
        if self._training:
            return "The live model is learning from this network's normal flows."
        if self._trouble:
            return self._trouble
        last = self._versions.last
        if self._model is None or serving is None:
            why = refusal(last) if last else None
            return (f"{why} " if why else "") + (
                f"The live model collects normal flows of this network: {collected} of {NEEDED}. "
                "Until then window patterns watch."
            )
        parts = [
            f"The live model, version {serving['version']}, has learned {serving['flows']:,} "
            f"normal flows of this network; {collected} of {NEEDED} are collected for the next "
            "training.",
            refusal(last) if last and last["version"] != serving["version"] else None,
            self._drift.sentence if self._drift else None,
            "Most of the newest flows are strange to it: if this is another network now, reset the "
            "live model."
            if self._strange > ANOTHER_NETWORK
            else None,
        ]
        return " ".join(part for part in parts if part)

    def _look_for_drift(self) -> None:
        """With the lock held: what has changed since the serving version learned."""
        self._unlooked = 0
        self._drift, self._strange = None, 0.0
        model, serving = self._model, self._versions.serving
        if model is None or serving is None:
            return
        values, times_s = self._buffer.values(HELD), self._buffer.times_s(HELD)
        self._drift = drift(model, values, times_s, float(serving["newest"]))
        if self._drift is not None:
            self._strange = beyond_share(model, values[-100:], self._weight, self._alpha)

    # --- training -------------------------------------------------------------------------------

    def _start_training(self, *, by_hand: bool) -> None:
        """With the lock held: copy what is to be learned, then train."""
        self._forget_unsure()
        normal, held_out = self._buffer.values(FIT), self._buffer.values(HELD)
        serving = self._versions.serving
        seen_s = float(serving["newest"]) if serving else -np.inf
        newest = held_out[self._buffer.times_s(HELD) > seen_s]
        short = FEWEST_HELD - len(held_out)
        if short > 0:
            # Few connections that last for days may all fall on one side of the split.
            normal, held_out = normal[:-short], np.concatenate([held_out, normal[-short:]])
        self._look_for_drift()
        lesson = Lesson(
            version=self._versions.next_version,
            normal=normal,
            held_out=held_out,
            newest=newest,
            newest_s=self._buffer.newest_s,
            confirmed=self._buffer.confirmed,
            started_s=self._now_s,
            by_hand=by_hand,
            generation=self._generation,
            serving=self._model,
            before=self._versions.history(),
            drift=self._drift,
            depth=0 if serving is None else min(int(serving.get("depth", SURE)) + 1, SURE),
        )
        self._training = True
        self._last_training_s = self._now_s
        self._fresh = 0
        if not self._background:
            self._train(lesson)
            return
        self._thread = threading.Thread(
            target=self._train, args=(lesson,), name="trainer", daemon=True
        )
        self._thread.start()

    def _forget_unsure(self) -> None:
        """The first flows, which no model could judge, leave as soon as twice NEEDED others are
        there: an attack at the very beginning is learned, but not for long."""
        unsure_s = self._versions.unsure_s(SURE)
        if self._buffer.count(FIT, after_s=unsure_s) >= 2 * NEEDED:
            self._buffer.remove(lambda row: row.time_s <= unsure_s and not row.token)

    def _train(self, lesson: Lesson) -> None:
        if self._background:
            _lower_priority()
        try:
            made = train(lesson, weight=self._weight, alpha=self._alpha)
            model = self._versions.write(
                made.fitted,
                weight=self._weight,
                alpha=self._alpha,
                told={**made.told, "offloads": self.offloads()},
            )
            self._take_over(model, lesson, serves=made.comparison.refused is None)
        except (AppError, OSError, ValueError, ArithmeticError, MemoryError) as error:
            log.exception("The training failed")
            with self._lock:
                self._trouble = f"The last training of the live model failed ({error}). " + (
                    "The version before it goes on." if self._model else "It is tried again."
                )
                self._fresh = NEEDED
        finally:
            self._training = False

    def _take_over(self, model: Model, lesson: Lesson, *, serves: bool) -> None:
        """The new version serves where it may, unless an admin has decided otherwise meanwhile."""
        with self._serving_lock:
            if lesson.generation != self._generation:
                self._versions.discard(lesson.version)
                return
            if serves:
                self._versions.serve(model)
                self._model = model
            else:
                self._versions.keep(model)
        with self._lock:
            self._learned_s = lesson.newest_s
            self._trouble = None
            if serves:
                self._look_for_drift()
            # Rows that slid out stand in the file until now.
            self._buffer.rewrite()
        if serves:
            log.info("The live model's version %d serves.", lesson.version)
        else:
            log.info("%s", refusal(model.manifest["training"]))


def _brief(training: dict[str, Any]) -> dict[str, Any]:
    """A training as pages ask for it every two seconds: without each attack's share, which
    live_metadata.json has, and with the sentence why it does not serve."""
    told = {name: value for name, value in training.items() if name != "canary"}
    return {**told, "refusal": refusal(training)}


@contextlib.contextmanager
def _on_disk() -> Iterator[None]:
    """What an admin decides is answered by one sentence where the disk does not take it."""
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"The live model's files can't be written: {error.strerror or error}. "
            "Nothing is changed; make room and try again."
        ) from error


def _lower_priority() -> None:
    """This thread only: on Linux each thread has a niceness of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)

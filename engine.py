"""The thread that feeds the analysis from an interface or a file, and what web threads may ask."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final, Literal, Protocol

import capture
import flow_tracker
import ml.forest
import ml.neighbours
import packets
import patterns
from analysis import Analysis
from batches import SEVERITIES, FrameBatch
from capture import Capture, CaptureStatus, Interface, InterfaceStatus
from compiled import is_complete, mark_complete
from errors import AppError, CaptureError
from replay import Replay
from settings import ROOT, Settings
from store import Store
from version import VERSION
from visibility import Visibility

__all__ = ["SILENT_S", "Engine", "Mode", "Source", "warm"]

log = logging.getLogger("secureflux.engine")

Mode = Literal["live", "replay", "sample", "off"]

_READ_S: Final = 0.1
_FAULTS_APART_S: Final = 60.0
"""A second fault sooner than this is not chance: the analysis stops, and says so."""
_COMPILING_S: Final = 2.0
"""How long the end of the program waits for hot loops that are being compiled or loaded."""
_STATUSES: Final = ("OPEN", "CLOSED", "FALSE_POSITIVE")
SILENT_S: Final = 60.0
"""An interface without a packet for this long is worth a word."""
_SAMPLE_LAG_NS: Final = 2_000_000_000
_DRAIN_S: Final = 2.0
"""How long a capture that has ended may take to be read to its end."""
_LOSSES: Final = ("received", "kernel_drops", "interface_drops", "queue_drops")


class Source(Protocol):
    """Where frames come from: a live capture or a replay."""

    def start(self) -> None: ...
    def read(self, timeout_s: float) -> FrameBatch | None: ...
    def stop(self) -> None: ...
    def status(self) -> CaptureStatus: ...


def warm() -> None:
    """Compile (or load from the cache) every hot loop: no compilation under live traffic.

    The very first time the two largest rooms are compiled side by side: compiling holds the
    interpreter lock, so the second one takes a process of its own.
    """
    helper = None if is_complete() else _compile_beside("patterns")
    capture.warm()
    packets.warm()
    flow_tracker.warm()
    ml.forest.warm()
    ml.neighbours.warm()
    if helper is not None:
        helper.wait()
    patterns.warm()
    mark_complete()


def _compile_beside(room: str) -> subprocess.Popen[bytes] | None:
    code = f"import {room}; {room}.warm()"
    try:
        return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    except OSError as error:
        log.warning("Compiling %s beside the rest is not possible: %s", room, error)
        return None


class Engine:
    """One analysis, its thread and its source of frames.

    mode: live (an interface), replay (files), sample (the bundled capture, because nothing may be
    captured here), off. The analysis belongs to the thread; other threads read what its rooms
    offer under their own locks, and swap the source.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        source: Source | None,
        *,
        mode: Mode,
        remedy: str | None = None,
        interface_networks: tuple[str, ...] = (),
    ) -> None:
        self.settings = settings
        self.store = store
        self.mode: Mode = mode
        self.analysis = Analysis(
            settings,
            store,
            run=f"{time.time_ns() // 1_000_000:x}",
            background=mode != "replay",
            interface_networks=interface_networks,
            visibility=Visibility() if mode in ("live", "off") else None,
        )
        self.analysis.predictor.baseline.offloads = self.offloads
        self._remedy = remedy
        self._source = source
        self._followed = source  # by the analysis thread
        self._replacing = threading.Lock()
        self._ended: list[Capture] = []  # to be read to their end
        self._ended_sums = dict.fromkeys(_LOSSES, 0)
        self._source_lock = threading.Lock()
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name="analysis", daemon=True)
        self._beat = time.monotonic()
        self._failure: str | None = None
        self._fault: str | None = None
        self._error: AppError | None = None
        self._started = time.time()
        self._expect_copies(source)

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop, and give the data directory back."""
        self.stop()
        self.store.close()

    def stop(self, timeout_s: float = 4.0) -> None:
        """Stop reading, judge what is still open, write everything; safe to call twice."""
        self._stopping.set()
        with self._source_lock:
            if self._source is not None:
                self._source.stop()
        if self._thread.is_alive():
            # Nothing is judged yet while it compiles, and compiling can't be hurried.
            self._thread.join(timeout_s if self._ready.is_set() else _COMPILING_S)
        self.analysis.predictor.close()

    @property
    def is_compiling(self) -> bool:
        """Whether the thread still prepares the hot loops, which it can't be stopped in."""
        return self._thread.is_alive() and not self._ready.is_set()

    def wait_finished(self, timeout_s: float | None = None) -> bool:
        """Wait until a replay has come to its end."""
        return self._finished.wait(timeout_s)

    @property
    def failure(self) -> str | None:
        """Why the analysis has stopped, one sentence; None while it runs."""
        return self._failure

    @property
    def exit_code(self) -> int:
        """What a command ends with: that of the error which stopped the analysis."""
        if self._error is not None:
            return self._error.exit_code
        return 0 if self._failure is None else 1

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:
            # Whoever waits for the end of a replay must learn of it, whatever ended it.
            log.exception("The analysis failed")
            self._failure = f"The analysis failed ({type(error).__name__}); see the log."
        finally:
            self._finished.set()

    def _watch(self) -> None:
        warm()
        self._start_source()
        self._ready.set()
        # A fault in one batch must not end the watch: the thread goes on with the next one, if
        # that is not faulty as well.
        faulted_s = -math.inf
        while True:
            try:
                self._loop()
                break
            except AppError as error:
                self._failure, self._error = str(error), error
                # A replay's command tells it itself, as its one sentence.
                log.log(logging.INFO if self.mode == "replay" else logging.ERROR, "%s", error)
                break
            except Exception as error:
                log.exception("The analysis failed")
                before_s, faulted_s = faulted_s, time.monotonic()
                if faulted_s - before_s < _FAULTS_APART_S:
                    self._failure = (
                        f"The analysis failed ({type(error).__name__}) and has stopped; "
                        "see the log."
                    )
                    break
                self._fault = (
                    f"The analysis failed ({type(error).__name__}) on one batch of packets "
                    f"at {time.strftime('%H:%M')} and goes on; see the log."
                )
        self.analysis.finish()

    def _start_source(self) -> None:
        """Begin to capture. What went wrong since the source was checked is told, not fatal."""
        with self._source_lock:
            if self._source is None or self._stopping.is_set():
                return
            try:
                self._source.start()
            except CaptureError as error:
                log.warning("%s", error)
                self._fault = str(error)
                self._source = None

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._beat = time.monotonic()
            with self._source_lock:
                source = self._source
                ended, self._ended = self._ended, []
            for capture_ in ended:
                self._drain(capture_)
            self._follow(source)
            batch = None
            if source is None:
                self._stopping.wait(_READ_S)
            else:
                batch = source.read(_READ_S)
                if batch is not None:
                    self.analysis.feed(batch)
                elif self.mode == "replay" and isinstance(source, Replay) and source.finished:
                    return
            self.analysis.tick(self._now_ns(more=batch is not None))
        with self._source_lock:
            source = self._source
            ended, self._ended = self._ended, []
        for capture_ in ended:
            self._drain(capture_)
        self._follow(source)
        if isinstance(source, Capture):
            self._drain(source)

    def _drain(self, source: Capture) -> None:
        """What a stopped capture has queued is judged as well; what takes too long is counted."""
        deadline_s = time.monotonic() + _DRAIN_S
        while time.monotonic() < deadline_s:
            batch = source.read(0.0)
            if batch is None:
                return
            self.analysis.feed(batch)
            self.analysis.tick(self.analysis.last_ns)
        while (batch := source.read(0.0)) is not None:
            with self._source_lock:
                self._ended_sums["queue_drops"] += len(batch)

    def _now_ns(self, *, more: bool) -> int:
        """What time it is; more: whether packets came, and others may wait behind them."""
        if self.mode == "replay" or (more and self.mode != "sample"):
            # By the clock, a queue that has grown long would end flows whose packets are in it.
            return self.analysis.last_ns
        now_ns = time.time_ns()
        # The head of the sample traffic is read ahead of its own clock.
        behind = now_ns - self.analysis.last_ns > _SAMPLE_LAG_NS
        source = self._source
        if self.mode == "sample" and behind and isinstance(source, Replay) and not source.finished:
            return self.analysis.last_ns
        return now_ns

    # --- the source -----------------------------------------------------------------------------

    def start_capture(self, interfaces: Sequence[str], bpf_filter: str) -> None:
        """Watch other interfaces; CaptureError where they can't be, and the old ones stay."""
        if self.mode in ("replay", "sample"):
            # Its time is not ours, and what it shows must not mix with a real network.
            raise CaptureError(
                self._remedy or "A recording is played here. Start `serve` to watch an interface."
            )
        fresh = Capture(interfaces, bpf_filter=bpf_filter, snaplen=self.settings.SNAPLEN)
        fresh.start()
        self._replace(fresh)

    def stop_capture(self) -> None:
        self._replace(None)

    def _replace(self, source: Source | None) -> None:
        with self._replacing:
            with self._source_lock:
                old = self._source
            # Stopped first, so that its last frames come before the first ones of the new one.
            if old is not None:
                old.stop()
            with self._source_lock:
                self._source = source
                if isinstance(old, Capture):
                    self._ended.append(old)
                    status = old.status()
                    for name in _LOSSES:
                        self._ended_sums[name] += getattr(status, name)
            if source is not None and self._stopping.is_set():
                source.stop()

    def _follow(self, source: Source | None) -> None:
        """The analysis turns to another source; what the one before has shown is judged."""
        if source is self._followed:
            return
        self._followed = source
        self._expect_copies(source)
        if source is not None and self.analysis.visibility is not None:
            self.analysis.visibility.reset()

    def _expect_copies(self, source: Source | None) -> None:
        several = isinstance(source, Capture) and len(source.interfaces) > 1
        self.analysis.decoder.watch_several(several)

    def offloads(self) -> dict[str, list[str]]:
        """Interface -> the offloads that are on, for those that are captured."""
        with self._source_lock:
            source = self._source
        if not isinstance(source, Capture):
            return {}
        return {part.name: list(part.offloads.on) for part in source.status().interfaces}

    # --- what is told ---------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The time the pages count from, epoch seconds: packet time in a replay."""
        last_ns = self.analysis.last_ns
        return last_ns / 1e9 if self.mode == "replay" and last_ns else time.time()

    @property
    def sample(self) -> bool:
        return self.mode == "sample"

    def capture_status(self) -> dict[str, Any]:
        """The `capture` part of /api/live_status."""
        with self._source_lock:
            source = self._source
        counters = self.analysis.counters()
        traffic = self.analysis.traffic
        status = source.status() if source is not None else None
        last_ns = self.analysis.last_ns
        age_s = max(time.time() - last_ns / 1e9, 0.0) if last_ns and self.mode != "replay" else None
        state = self._state(status)
        told: dict[str, Any] = {
            **counters,
            "state": state,
            "interface": status.interface if status else None,
            "friendly": status.friendly if status else None,
            "since": status.since if status else None,
            **self._sums(status),
            "interfaces": [_interface(part) for part in status.interfaces] if status else [],
            "devices": self._devices(state),
            "packets_per_s": traffic.series("packets_per_s", points=2)["now"],
            "bits_per_s": traffic.series("bits_per_s", points=2)["now"],
            "last_packet_age_s": age_s,
            "remedy": self._told_remedy(),
        }
        told["sentence"] = self._sentence(state, status, age_s)
        return told

    def _sums(self, status: CaptureStatus | None) -> dict[str, int]:
        """Received and lost frames since the program started, captures that ended included."""
        with self._source_lock:
            sums = dict(self._ended_sums)
        for name in _LOSSES if status else ():
            sums[name] += getattr(status, name)
        return sums

    def _devices(self, state: str) -> dict[str, Any] | None:
        visibility = self.analysis.visibility
        return visibility.told() if visibility is not None and state == "capturing" else None

    def _state(self, status: CaptureStatus | None) -> str:
        if not self._ready.is_set():
            return "preparing"
        if self._failure is not None:
            return "trouble"
        if self.mode in ("sample", "replay"):
            return self.mode
        return status.state if status else "off"

    def _sentence(self, state: str, status: CaptureStatus | None, age_s: float | None) -> str:
        name = status.friendly if status else ""
        if state == "preparing":
            return "Getting ready. The capture opens in a few seconds."
        if self._failure is not None:
            return self._failure
        if state == "sample":
            return "Sample traffic plays: this computer may not capture yet."
        if state == "replay":
            ended = " Its end is reached." if self._finished.is_set() else ""
            return f"Replaying {name}.{ended}"
        if state == "off" or status is None:
            return "Nothing is captured."
        if status.error:
            return status.error
        if age_s is not None and age_s > SILENT_S:
            return f"No packet on {name} for {age_s:.0f} s."
        return f"Capturing on {name}."

    def _told_remedy(self) -> dict[str, str | None] | None:
        if self._remedy is None:
            return None
        return {"sentence": self._remedy, "command": capture.remedy_command()}

    def live_status(self) -> dict[str, Any]:
        """What GET /api/live_status answers."""
        analysis = self.analysis
        judged = analysis.predictor.status()
        flows = analysis.traffic.series("flows_per_minute", points=60)
        counts = analysis.incidents.counts()
        return {
            "capture": self.capture_status(),
            "baseline": judged["baseline"],
            "models": judged["models"],
            "seq": analysis.flow_log.seq,
            "alerts_seq": analysis.incidents.seq,
            "open": {name: counts[name] for name in reversed(SEVERITIES)},
            "statuses": {name: counts[name] for name in _STATUSES},
            "proposed_rules": 0,
            "flows_per_minute": {**flows, "lane": self.lane(flows["start"])},
            "sample": self.sample,
            "time": self.now,
            "notices": [{"level": "warning", "text": text} for text in self.notices()],
            "version": VERSION,
        }

    def lane(self, since_s: float) -> list[dict[str, Any]]:
        """Incidents that began after `since_s`, for the row of marks under a chart."""
        found = self.analysis.incidents.list(status="all", limit=200)
        return [
            {
                "time": alert["first_time"],
                "severity": alert["severity"],
                "id": alert["id"],
                "title": alert["title"],
            }
            for alert in found
            if alert["first_time"] >= since_s and alert["status"] != "FALSE_POSITIVE"
        ]

    def notices(self) -> list[str]:
        """What a person should know, in sentences."""
        told = [
            *self.settings.notices,
            *self.store.notices(),
            *self.analysis.incidents.notices(),
            *self.analysis.predictor.notices,
        ]
        told += filter(None, (self._failure, self._fault))
        told += self._capture_notices()
        return told

    def _capture_notices(self) -> list[str]:
        """An interface that is gone while others go on, and offloads that changed."""
        with self._source_lock:
            source = self._source
        if not isinstance(source, Capture):
            return []
        status = source.status()
        told = [status.error] if status.error and status.state == "capturing" else []
        learned = self.analysis.predictor.baseline.learned_with
        for part in status.interfaces:
            before = learned.get(part.name)
            if before is not None and before != list(part.offloads.on):
                told.append(
                    f"The live model learned from {part.name} with {_in_words(before)}, which now "
                    f"has {_in_words(part.offloads.on)}: normal traffic looks different since. "
                    "Let it learn anew."
                )
        return told

    def interfaces(self) -> list[Interface]:
        return capture.interfaces()

    def health(self) -> dict[str, Any]:
        """What GET /health answers; `ok` decides between 200 and 503."""
        age_s = time.monotonic() - self._beat
        store = self.store.health()
        alive = self._thread.is_alive() or (self.mode == "replay" and self._finished.is_set())
        # A cold first compile takes some seconds; a batch never takes as long as this.
        stuck = alive and self._ready.is_set() and self._thread.is_alive() and age_s > 30
        status = self.capture_status()
        threads = {"analysis": {"alive": alive, "age_s": round(age_s, 3)}}
        with self._source_lock:
            source = self._source
        if self.mode == "live" and source is not None:
            beat_s = source.status().beat_s
            threads["capture"] = {"alive": True, "age_s": round(time.monotonic() - beat_s, 3)}
        return {
            "ok": alive and not stuck and self._failure is None and store["state"] == "ok",
            "version": VERSION,
            "uptime_s": round(time.time() - self._started, 1),
            "threads": threads,
            "store": store,
            "capture": {
                name: status[name]
                for name in (
                    "state",
                    "interface",
                    "kernel_drops",
                    "interface_drops",
                    "queue_drops",
                    "table_drops",
                )
            },
            "notices": self.notices(),
        }


def _interface(part: InterfaceStatus) -> dict[str, Any]:
    told = asdict(part)
    del told["beat_s"]  # a clock of this process alone
    return told


def _in_words(offloads: Sequence[str]) -> str:
    return ", ".join(name.upper() for name in offloads) or "no offload"

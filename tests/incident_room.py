"""An incident room for tests: a real store, and a baseline that remembers what it was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alerts.room import Incidents
from batches import FlowRecord
from store import Store
from tests.incident_evidence import T0


class Baseline:
    """Remembers what it was given to learn, as the live model's buffer does."""

    def __init__(self) -> None:
        self.learned: dict[str, list[FlowRecord]] = {}
        self.on_learn: Callable[[], object] = lambda: None
        self._tokens = 0

    def learn(self, records: list[FlowRecord]) -> str:
        self.on_learn()
        self._tokens += 1
        token = f"learned-{self._tokens}"
        self.learned[token] = records
        return token

    def unlearn(self, token: str) -> None:
        self.learned.pop(token, None)


class Room:
    """An incident room on its own store, with a clock the test moves.

    doors: further callbacks of Incidents.
    """

    def __init__(self, directory: Path, *, max_alerts: int = 1000, **doors: Any) -> None:
        self.directory = directory
        self.max_alerts = max_alerts
        self.doors = doors
        self.time_s = T0
        self.baseline = Baseline()
        self.open()

    def open(self) -> None:
        self.store = Store(self.directory)
        self.incidents = Incidents(
            self.store,
            max_alerts=self.max_alerts,
            window_seconds=120,
            local_networks=lambda address: address.startswith(("192.168.", "10.", "fd")),
            now=lambda: self.time_s,
            learn=self.baseline.learn,
            unlearn=self.baseline.unlearn,
            describe_models=lambda record: [{"name": "live", "score": record["scores"]["live"]}],
            **self.doors,
        )

    def restart(self) -> None:
        self.store.close()
        self.open()

    def pass_time(self, seconds: float) -> None:
        self.time_s += seconds
        self.incidents.tick(self.time_s)

    def only(self, status: str = "OPEN") -> dict[str, Any]:
        (found,) = self.incidents.list(status)
        return found

    def on_disk(self, name: str) -> bytes:
        return (self.directory / f"{name}.json").read_bytes()

"""The incidents there are, their evidence and their numbers; memory first, documents behind.

One lock, held by the incident room around every call here. Writes leave it through an outbox:
what is put into it under the lock is carried out afterwards in the same order, so no document
is ever waited for with the lock held. A growing incident is written at most once a second.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from alerts.record import CLOSED, KEPT, OPEN, Key, Record, Tally, is_odder, key_of, opened
from batches import RECORDED_FLOW, FlowRecord
from store import Store

__all__ = ["Ledger", "Outbox"]

PUT_EVERY_S: Final = 1.0
"""An incident is written at most this often; tick() writes its last state."""
EVIDENCE_LIMIT: Final = 5_000
"""Flows kept as evidence over all incidents, about 2 kB each."""
EVIDENCE_FLOOR: Final = 5
"""Flows an incident keeps when EVIDENCE_LIMIT is reached."""
SEQ_AHEAD: Final = 10_000
"""Numbers reserved on disk at once: after a crash counting goes on above them, never below."""
GONE_KEPT: Final = 2_000
"""Folded incidents remembered for readers that ask what changed."""


_EXAMPLE: Final = opened(
    "", "", key_is="", pattern="", subpattern="", src_ip="", dst_ip="", protocol="", time_s=0.0
)
"""What an incident on the disk must have."""


class Outbox:
    """Writes in the order in which they were decided, done outside the lock that decided."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._carrying = threading.Lock()

    def add(self, write: Callable[[], None]) -> None:
        self._waiting.append(write)

    def carry_out(self) -> None:
        """Do what waits. When it returns, everything added before by this thread is done."""
        with self._carrying:
            while self._waiting:
                self._waiting.popleft()()


class Ledger:
    """Records by id with the keys of the OPEN ones, their seq, tallies and evidence."""

    def __init__(self, store: Store, outbox: Outbox, *, max_alerts: int) -> None:
        self._alerts = store.document("alerts_store", like=_EXAMPLE)
        self._flows = store.document("evidence_store", limit=EVIDENCE_LIMIT * 2, like=RECORDED_FLOW)
        self._counters = store.document("alerts_counters", kind="object")
        self._outbox = outbox
        self.max_alerts = max_alerts
        self.records: dict[str, Record] = {}
        self.seqs: dict[str, int] = {}
        self.tallies: dict[str, Tally] = {}
        self.gone: deque[tuple[int, Record]] = deque(maxlen=GONE_KEPT)
        self._open: dict[Key, str] = {}
        self._by_address: dict[str, set[str]] = {}
        self._rule_ids: set[str] = set()
        self._evidence: dict[str, dict[str, FlowRecord]] = {}
        self._evidence_size = 0
        self._saved_flows: set[str] = set()
        self._on_disk: set[str] = set()
        self._unsaved: set[str] = set()
        self._put_at: dict[str, float] = {}
        reserved = self._counters.value().get("seq", 0)
        # Where the counter is lost, its numbers stand in the ids: none may be given again.
        given = (record["id"].removeprefix("inc-") for record in self._alerts.records())
        self._seq = self._reserved = max(
            reserved if isinstance(reserved, int) else 0,
            *(int(number) for number in given if number.isdecimal()),
            0,
        )
        self._reserve()
        self._load()

    def _load(self) -> None:
        for record in self._alerts.records():
            self._index(record)
            self._on_disk.add(record["id"])
            self.seqs[record["id"]] = self.next_seq()
        for flow in self._flows.records():
            owner = flow.get("incident")
            if owner in self.records:
                self._evidence.setdefault(owner, {})[flow["id"]] = flow  # type: ignore[assignment]
                self._evidence_size += 1
                self._saved_flows.add(flow["id"])
            else:
                # Its incident was dropped and the end came before this flow's turn.
                self._outbox.add(lambda flow_id=flow["id"]: self._flows.delete(flow_id))  # type: ignore[misc]

    # --- numbers

    @property
    def seq(self) -> int:
        return self._seq

    def next_seq(self) -> int:
        self._seq += 1
        if self._reserved - self._seq < SEQ_AHEAD // 2:
            self._reserve()
        return self._seq

    def _reserve(self) -> None:
        self._reserved = max(self._reserved, self._seq) + SEQ_AHEAD
        value = {"seq": self._reserved}
        self._outbox.add(lambda: self._counters.replace(value))

    def new_ids(self, time_s: float) -> tuple[str, str]:
        """(incident id, rule id "secureflux-<epoch>", with -2, -3 … within one second)."""
        base = rule_id = f"secureflux-{max(int(time_s), 0):010d}"
        again = 1
        while rule_id in self._rule_ids:
            again += 1
            rule_id = f"{base}-{again}"
        return f"inc-{self.next_seq()}", rule_id

    # --- records

    def open_id(self, key: Key) -> str | None:
        return self._open.get(key)

    def open_records(self) -> list[Record]:
        return [self.records[incident_id] for incident_id in self._open.values()]

    def open_at(self, address: str) -> Iterator[Record]:
        """OPEN incidents whose own side is `address`."""
        for incident_id in sorted(self._by_address.get(address, ())):
            yield self.records[incident_id]

    def publish(self, record: Record) -> None:
        """Make `record` the current one; written to disk by the next `save` that is due."""
        before = self.records.get(record["id"])
        if before is not None:
            self._unindex(before)
        self._index(record)
        self.seqs[record["id"]] = self.next_seq()
        self._unsaved.add(record["id"])

    def _index(self, record: Record) -> None:
        self.records[record["id"]] = record
        self._rule_ids.add(record["rule_id"])
        if record["status"] == OPEN:
            key = key_of(record)
            self._open[key] = record["id"]
            self._by_address.setdefault(key[1], set()).add(record["id"])

    def _unindex(self, record: Record) -> None:
        if record["status"] == OPEN:
            key = key_of(record)
            if self._open.get(key) == record["id"]:
                del self._open[key]
            at = self._by_address.get(key[1], set())
            at.discard(record["id"])
            if not at:
                self._by_address.pop(key[1], None)

    def drop(self, incident_id: str, *, folded: bool) -> None:
        """Forget an incident and its evidence; a folded one is still told to readers as CLOSED."""
        record = self.records.pop(incident_id)
        self._unindex(record)
        self._rule_ids.discard(record["rule_id"])
        self.seqs.pop(incident_id)
        self.tallies.pop(incident_id, None)
        self._unsaved.discard(incident_id)
        for flow_id in self._evidence.pop(incident_id, {}):
            self._forget_flow(flow_id)
        self._put_at.pop(incident_id, None)
        if incident_id in self._on_disk:
            self._on_disk.discard(incident_id)
            self._outbox.add(lambda: self._alerts.delete(incident_id))
        if folded:
            self.gone.append((self.next_seq(), {**record, "status": CLOSED}))

    # --- evidence

    def evidence(self, incident_id: str) -> list[FlowRecord]:
        """The incident's flows, newest first; the oddest one is always among them."""
        flows = self._evidence.get(incident_id, {}).values()
        return sorted(flows, key=lambda flow: (flow["time"], flow["id"]), reverse=True)

    def worst(self, record: Record) -> FlowRecord | None:
        return self._evidence.get(record["id"], {}).get(record["worst_flow"] or "")

    def keep_flow(self, incident_id: str, flow: FlowRecord, worst: FlowRecord | None) -> None:
        """Keep `flow` as evidence, at most KEPT an incident: the newest and the oddest."""
        kept = self._evidence.setdefault(incident_id, {})
        self._evidence_size += flow["id"] not in kept
        self._saved_flows.discard(flow["id"])
        kept[flow["id"]] = flow
        worst_id = flow["id"] if is_odder(flow, worst) else worst["id"] if worst else ""
        self._trim(kept, KEPT, worst_id)

    def move_evidence(self, from_id: str, to_id: str) -> None:
        """Let the flows of one incident be those of another."""
        moved = self._evidence.pop(from_id, {})
        kept = self._evidence.setdefault(to_id, {})
        for flow_id, flow in moved.items():
            self._evidence_size -= flow_id in kept
            self._saved_flows.discard(flow_id)
            kept[flow_id] = {**flow, "incident": to_id}
        self._trim(kept, KEPT, self.records[to_id]["worst_flow"] or "")

    def _trim(self, kept: dict[str, FlowRecord], limit: int, worst_id: str) -> None:
        for flow_id in [f for f in kept if f != worst_id][: max(len(kept) - limit, 0)]:
            del kept[flow_id]
            self._forget_flow(flow_id)

    def _forget_flow(self, flow_id: str) -> None:
        self._evidence_size -= 1
        if flow_id in self._saved_flows:
            self._saved_flows.discard(flow_id)
            self._outbox.add(lambda: self._flows.delete(flow_id))

    def _bound_evidence(self) -> None:
        if self._evidence_size <= EVIDENCE_LIMIT:
            return
        longest_idle = sorted(self._evidence, key=lambda i: self.records[i]["last_time"])
        for incident_id in longest_idle:
            worst_id = self.records[incident_id]["worst_flow"] or ""
            self._trim(self._evidence[incident_id], EVIDENCE_FLOOR, worst_id)
            if self._evidence_size <= EVIDENCE_LIMIT * 3 // 4:
                return

    # --- disk

    def save(self, now_s: float, *, everything: bool = False) -> None:
        """Write what changed and was not written within the last second."""
        self._bound_evidence()
        for incident_id in sorted(self._unsaved):
            if everything or abs(now_s - self._put_at.get(incident_id, -math.inf)) >= PUT_EVERY_S:
                self.save_one(incident_id, now_s)

    def save_one(self, incident_id: str, now_s: float) -> None:
        record = self.records[incident_id]
        self._unsaved.discard(incident_id)
        self._put_at[incident_id] = now_s
        self._on_disk.add(incident_id)
        self._outbox.add(lambda: self._alerts.put(record))
        flows: list[dict[str, Any]] = [
            dict(flow)
            for flow_id, flow in self._evidence.get(incident_id, {}).items()
            if flow_id not in self._saved_flows
        ]
        if flows:
            self._saved_flows.update(str(flow["id"]) for flow in flows)
            self._outbox.add(lambda: self._flows.put_many(flows))

    def flush(self) -> None:
        """Return when every change carried out so far is on disk (StoreError if it can't be)."""
        self._flows.flush()
        self._alerts.flush()

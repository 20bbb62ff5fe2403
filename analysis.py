"""The analysis: frames go in, verdicts and incidents come out.

The way through the rooms, without a thread of its own: the engine's thread drives it.
"""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from addresses import LocalNetworks, address_of, addresses_of
from alerts import Incidents
from batches import RECORDED_FLOW, SEVERITIES, UNREAD_REASONS, FlowBatch, FrameBatch, VerdictBatch
from flow_log import FlowLog
from flow_tracker import BACK_NS, FlowTracker
from ml.likeness import Likeness
from packets import TUNNELS, Decoder
from patterns import Windows
from predict import Predictor
from settings import Settings
from store import Store
from traffic import Traffic
from visibility import Visibility

__all__ = ["Analysis"]

TICK_S: Final = 0.2
PROVISIONAL_S: Final = 1.0
DEVICE_ROWS: Final = 256
"""Flows of one batch that count towards the busiest devices; more would cost, not tell, more."""


class Analysis:
    """The rooms from frames to incidents, wired; used by one thread.

    store: the documents; run: prefix of this run's flow ids; background: whether the live model
    trains in a thread of its own (live) or at once (a file as fast as it can be read).
    visibility: what counts the devices of a network that is watched live.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        run: str,
        background: bool = True,
        interface_networks: tuple[str, ...] = (),
        visibility: Visibility | None = None,
    ) -> None:
        self.settings = settings
        self.visibility = visibility
        self.is_local = LocalNetworks(
            [str(network) for network in settings.local_networks], interface_networks
        )
        self.decoder = Decoder()
        self.tracker = FlowTracker(
            capacity=settings.MAX_FLOWS,
            active_s=settings.ACTIVE_TIMEOUT_SECONDS,
            idle_s=settings.IDLE_TIMEOUT_SECONDS,
            quiet_s=settings.QUIET_SECONDS,
        )
        self.windows = Windows(is_local=self.is_local, window_seconds=settings.ALERT_WINDOW_SECONDS)
        self.predictor = Predictor(settings, background=background)
        likeness = Likeness(lambda: self.predictor.models)
        self.incidents = Incidents(
            store,
            max_alerts=settings.MAX_ALERTS,
            window_seconds=settings.ALERT_WINDOW_SECONDS,
            local_networks=self.is_local,
            now=time.time,
            # A fresh live model draws its line on few flows: it may object to twice as many.
            alpha=2 * settings.ALPHA,
            describe_models=self.predictor.describe,
            learn=self.predictor.add_confirmed,
            unlearn=self.predictor.forget_confirmed,
            hidden_attacks=likeness.hidden_by,
            around=likeness.around,
            like=likeness.like,
            logged=lambda: self.flow_log.newest(
                limit=settings.LOG_ROWS, accept=lambda row: row["final_decision"] == "ALERT"
            ),
        )
        self.flow_log = FlowLog(
            store.document("logs_store", limit=settings.LOG_ROWS, like=RECORDED_FLOW),
            limit=settings.LOG_ROWS,
            run=run,
        )
        self.traffic = Traffic()
        self.verdicts = {"ALERT": 0, "ALLOW": 0}
        self.severities = dict.fromkeys(reversed(SEVERITIES), 0)
        self.first_ns = 0
        self.last_ns = 0
        self._last_tick_ns = 0
        self._last_provisional_ns = 0

    def feed(self, frames: FrameBatch) -> None:
        """One batch of frames through all rooms."""
        batch = self.decoder.decode(frames)
        if len(frames):
            self.first_ns = self.first_ns or int(frames.time_ns[0])
            newest_ns = int(frames.time_ns.max())
            jumped_back = newest_ns < self.last_ns - BACK_NS
            self.last_ns = newest_ns if jumped_back else max(self.last_ns, newest_ns)
        if len(batch):
            self.traffic.add_packets(batch.rows)
            if self.visibility is not None:
                self.visibility.add(batch)
        findings = self.windows.packets(batch)
        ended = self.tracker.track(batch)
        findings += self.windows.flows(ended)
        if findings:
            self.incidents.add_findings(findings)
        self._judge(ended)

    def tick(self, now_ns: int) -> None:
        """Move the clock on: time-outs, provisional verdicts, windows, incidents."""
        # Apart: also back, where a clock was set.
        if abs(now_ns - self._last_tick_ns) < TICK_S * 1e9:
            return
        self._last_tick_ns = now_ns
        findings = self.windows.tick(now_ns)
        ended = self.tracker.expire(now_ns)
        findings += self.windows.flows(ended)
        if findings:
            self.incidents.add_findings(findings)
        self._judge(ended)
        if abs(now_ns - self._last_provisional_ns) >= PROVISIONAL_S * 1e9:
            self._last_provisional_ns = now_ns
            self._judge(self.tracker.provisional(now_ns), final=False)
        self.traffic.move_to(now_ns / 1e9)
        self.incidents.tick(now_ns / 1e9)

    def finish(self) -> None:
        """The last packet has come: end every flow and write what is pending."""
        # What was still waiting for an answer has failed now.
        findings = self.windows.tick(self.last_ns + 2_000_000_000)
        ended = self.tracker.flush()
        findings += self.windows.flows(ended)
        if findings:
            self.incidents.add_findings(findings)
        self._judge(ended)
        self.incidents.tick(self.last_ns / 1e9, final=True)

    def _judge(self, flows: FlowBatch, *, final: bool = True) -> None:
        if not len(flows):
            return
        verdicts = self.predictor.judge(flows)
        records = self.flow_log.records(flows, verdicts)
        self.incidents.count_flows(flows)
        joined_later = self.incidents.add_flows(records)
        self.flow_log.put(records)
        self.flow_log.join(joined_later)
        if not final:
            return
        self._learn(flows, verdicts)
        alerted = int(verdicts.alert.sum())
        self.verdicts["ALERT"] += alerted
        self.verdicts["ALLOW"] += len(flows) - alerted
        for place, name in enumerate(SEVERITIES):
            self.severities[name] += int((verdicts.severity == place).sum())
        self.traffic.add_flows(int(flows.rows["last_ns"].max()) / 1e9, len(flows))
        self._count_devices(flows)

    def _learn(self, flows: FlowBatch, verdicts: VerdictBatch) -> None:
        """Let flows teach, but those that reach the target of a flood: its sources are forged,
        so that no quarantine of sources could take them out again."""
        besieged = self.incidents.besieged()
        if besieged:
            targets = addresses_of(flows.rows, "dst")
            keep = np.array([address not in besieged for address in targets], bool)
            flows, verdicts = FlowBatch(flows.rows[keep]), verdicts.taken(keep)
        self.predictor.learn(flows, verdicts, self.incidents.quarantined())

    def _count_devices(self, flows: FlowBatch) -> None:
        for row in flows.rows[:DEVICE_ROWS]:
            size = int(row["wire_bytes"].sum())
            for address in (address_of(row, "src"), address_of(row, "dst")):
                if self.is_local(address):
                    self.traffic.add_device(address, size)

    def counters(self) -> dict[str, Any]:
        """Sums since the start, by cause."""
        unread = self.decoder.unread
        return {
            "packets": self.decoder.frames,
            "decoded": self.decoder.packets,
            "bytes": self.decoder.wire_bytes,
            "unread": {
                name: int(unread[place])
                for place, name in enumerate(UNREAD_REASONS)
                if unread[place]
            },
            "tunnels": {
                name: int(count)
                for name, count in zip(TUNNELS, self.decoder.tunnels, strict=True)
                if count
            },
            "table_drops": self.tracker.evicted,
            "flows_active": self.tracker.active,
            "flows_ended": self.tracker.ended,
            "late_packets": self.tracker.late_packets,
            "rows_shed": self.flow_log.shed,
            "windows_evicted": sum(self.windows.evicted.values()),
            "hidden_by_whitelist": self.incidents.hidden_by_whitelist,
        }

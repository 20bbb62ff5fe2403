"""Captures interfaces, decodes, tracks and counts devices until a line comes; tells all as JSON.

For tests that watch from inside a network namespace:
    python -m tests.watcher_child INTERFACE...
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from collections import Counter

import flow_tracker
import packets
from addresses import address_of
from batches import UNREAD_REASONS
from capture import Capture
from packets import Decoder
from visibility import Visibility

__all__: list[str] = []

QUIET_READS = 8
"""Reads in a row that bring nothing before the end: on a busy machine an interface's last frames
come later than the sender has gone."""


def _wait_for_a_line(asked: threading.Event) -> None:
    sys.stdin.readline()
    asked.set()


def main(interfaces: list[str]) -> None:
    packets.warm()
    flow_tracker.warm()
    live = Capture(interfaces)
    decoder = Decoder()
    decoder.watch_several(len(interfaces) > 1)
    tracker = flow_tracker.FlowTracker(capacity=1024)
    visibility = Visibility(listen_s=1.0)
    frames: Counter[str] = Counter()
    flows = []
    live.start()
    print(json.dumps("capturing"), flush=True)  # noqa: T201
    asked = threading.Event()
    threading.Thread(target=_wait_for_a_line, args=(asked,), daemon=True).start()
    stopped = False
    quiet = 0
    while True:
        batch = live.read(0.05)
        quiet = 0 if batch is not None else quiet + 1
        if batch is not None:
            frames[batch.interface] += len(batch)
            rows = decoder.decode(batch)
            visibility.add(rows)
            flows += list(tracker.track(rows).rows)
        elif stopped:
            break
        elif asked.is_set() and quiet >= QUIET_READS:
            live.stop()
            stopped = True
    flows += list(tracker.flush().rows)
    told = {
        "frames": dict(frames),
        "packets": decoder.packets,
        "unread": dict(zip(UNREAD_REASONS, decoder.unread.tolist(), strict=True)),
        "flows": [
            {
                "src": address_of(row, "src"),
                "dst": address_of(row, "dst"),
                "protocol": int(row["protocol"]),
                "dst_port": int(row["dst_port"]),
                "packets": row["packets"].tolist(),
            }
            for row in flows
        ],
        "devices": visibility.told(),
        "status": dataclasses.asdict(live.status()),
    }
    print(json.dumps(told), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])

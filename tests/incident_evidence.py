"""Findings and flows for the tests of the incident room, made by hand; times are packet time."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np

from batches import FLOW, EndReason, Finding, FlowBatch, FlowRecord

T0 = 1_769_437_845.0
"""An epoch second in January 2026."""
SCANNER = "203.0.113.50"
NAS = "192.168.1.20"


def finding(
    subpattern: str = "VERTICAL_SCAN",
    *,
    pattern: str = "SRC_SCAN",
    source: str = SCANNER,
    target: str = NAS,
    at: float = 0.0,
    seconds: float = 38.0,
    **changed: Any,
) -> Finding:
    """A finding whose window begins `at` seconds after T0."""
    values: dict[str, Any] = {
        "pattern": pattern,
        "subpattern": subpattern,
        "source": source,
        "target": target,
        "key_is": "source",
        "targets": (target,),
        "ports": (22, 80, 443),
        "protocol": 6,
        "count": 412,
        "amounts": {"ports": 412, "seconds": seconds},
        "value": 20.0,
        "line": 15.0,
        "spoofable": False,
        "first_ns": round((T0 + at) * 1e9),
        "last_ns": round((T0 + at + seconds) * 1e9),
    }
    return Finding(**{**values, **changed})


def flow(
    flow_id: str,
    *,
    source: str = "192.168.1.57",
    target: str = "198.51.100.23",
    at: float = 0.0,
    score: float = -3.0,
    ratio: float | None = 3.0,
    beyond: bool = False,
    **changed: Any,
) -> FlowRecord:
    """An ALERT flow that ended `at` seconds after T0."""
    deviation = {
        "feature": "Total Length Fwd Packet",
        "label": "Bytes sent",
        "unit": "bytes",
        "value": 1.9e9,
        "low": 4e4,
        "high": 1.4e7,
        "ordinary": 2.1e6,
        "ratio": ratio,
        "share": 0.6,
        "log": True,
    }
    record: dict[str, Any] = {
        "id": flow_id,
        "seq": 1,
        "timestamp": "",
        "time": T0 + at,
        "src_ip": source,
        "dst_ip": target,
        "src_port": 40112,
        "dst_port": 443,
        "protocol": "TCP",
        "service": "HTTPS",
        "length": 1_900_000_000,
        "duration_s": 842.0,
        "packets": 1_400_000,
        "bytes": 1_903_100_000,
        "state": "fin",
        "connection_state": "SF",
        "scores": {"home": None, "industrial": None, "live": score},
        "raw": {"home": None, "industrial": None, "live": -0.6},
        "model_votes": {"home": "UNAVAILABLE", "industrial": "UNAVAILABLE", "live": "ANOMALY"},
        "final_decision": "ALERT",
        "severity": "MEDIUM",
        "borderline": False,
        "extreme": False,
        "explainability": {"top_deviations": ["Total Length Fwd Packet High"]},
        "deviations": [deviation],
        "rarity": {"n": 1000.0, "reference": 4512, "beyond": beyond},
        "names": {"src": None, "dst": None},
        "incident": None,
        "features": [float(i) for i in range(40)],
    }
    record.update(changed)
    return record  # type: ignore[return-value]


def flow_batch(
    pairs: list[tuple[str, str]], *, at: float = 0.0, first_id: int = 1, **columns: Any
) -> FlowBatch:
    """Ended IPv4 flows of these (source, target) pairs, for `count_flows`."""
    rows = np.zeros(len(pairs), FLOW)
    rows["id"] = np.arange(first_id, first_id + len(pairs))
    rows["last_ns"] = round((T0 + at) * 1e9)
    rows["end_reason"] = EndReason.FIN
    for place, (source, target) in enumerate(pairs):
        rows["src_lo"][place] = int(ipaddress.ip_address(source))
        rows["dst_lo"][place] = int(ipaddress.ip_address(target))
    for name, value in columns.items():
        rows[name] = value
    return FlowBatch(rows)

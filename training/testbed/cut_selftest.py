"""Cut the bundled self-test from the lab recording: flows of its attacks, without the rest.

    python training/testbed/cut_selftest.py home_lab.pcap.gz home_lab.labels.tsv ml/models/selftest

Attacks without flows of their own (ARP) stay out. The recording is of the project's own lab, so
its flows may be shipped.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from numpy.typing import NDArray

from addresses import address_text
from batches import ICMP, TCP, UDP, Rows
from ml.selftest import MOST, Attack, write
from training.datasets import capture_flows


class _Kind(NamedTuple):
    """How flows of an attack are told from harmless ones of the same device at the same time."""

    pattern: str
    title: str
    protocol: int
    port: int | None = None
    anywhere: bool = False  # targets beyond the victims that the labels name


KINDS: Final[dict[str, _Kind]] = {
    "slowloris": _Kind("SLOW_CONNECTIONS", "slow connections that block a web server", TCP, 80),
    "connect_scan": _Kind("VERTICAL_SCAN", "a port scan by whole connections", TCP),
    "dns_tunnel": _Kind("DNS_TUNNEL", "a tunnel through DNS", UDP, 53),
    "syn_flood": _Kind("SYN_FLOOD", "a SYN flood from one source", TCP, 80),
    "wan_sweep": _Kind("HORIZONTAL_SWEEP", "a sweep of the internet for telnet", TCP, 23, True),
    "exfil": _Kind("EXFILTRATION", "an upload of files to a stranger", TCP, 8080),
    "syn_scan": _Kind("VERTICAL_SCAN", "a port scan by half connections", TCP),
    "ssh_brute": _Kind("CREDENTIAL_GUESSING", "guessing of SSH passwords", TCP, 22),
    "icmp_flood": _Kind("ICMP_FLOOD", "a flood of pings", ICMP),
    "udp_flood": _Kind("UDP_FLOOD", "a UDP flood", UDP, 9999),
    "udp_scan": _Kind("UDP_SCAN", "a UDP port scan", UDP),
    "port_sweep": _Kind("HORIZONTAL_SWEEP", "a sweep of the network for SSH", TCP, 22, True),
    "ftp_brute": _Kind("CREDENTIAL_GUESSING", "guessing of FTP passwords", TCP, 21),
    "http_brute": _Kind("CREDENTIAL_GUESSING", "guessing of web passwords", TCP, 80),
    "dns_random": _Kind("DNS_RANDOM", "lookups of random names", UDP, 53),
    "null_scan": _Kind("STEALTH_SCAN", "a NULL scan", TCP),
    "http_flood": _Kind("HTTP_BURST", "a flood of web requests", TCP, 80),
    "v6_scan": _Kind("VERTICAL_SCAN", "a port scan over IPv6", TCP),
    "syn_flood_rand": _Kind("SYN_FLOOD", "a SYN flood from spoofed sources", TCP, 22),
    "xmas_scan": _Kind("STEALTH_SCAN", "a Christmas tree scan", TCP),
    "fin_scan": _Kind("STEALTH_SCAN", "a FIN scan", TCP),
    "c2_beacon": _Kind("BEACON", "a bot that calls home", TCP, 443),
    "slow_scan": _Kind("VERTICAL_SCAN", "a slow port scan", TCP),
}


def _texts(rows: Rows, side: str) -> NDArray[np.str_]:
    return np.array(
        [
            address_text(int(row[f"{side}_hi"]), int(row[f"{side}_lo"]), int(row["ip_version"]))
            for row in rows
        ]
    )


def _evenly(rows: Rows) -> Rows:
    ordered = rows[np.argsort(rows["first_ns"], kind="stable")]
    if len(ordered) <= MOST:
        return ordered
    places = np.linspace(0, len(ordered) - 1, MOST).round().astype(np.intp)
    kept: Rows = ordered[places]
    return kept


def cut(capture: Path, labels: Path) -> tuple[Attack, ...]:
    rows = capture_flows(capture, fewest_packets=1)
    sources, targets = _texts(rows, "src"), _texts(rows, "dst")
    found = []
    with labels.open(newline="", encoding="utf-8") as file:
        for label in csv.DictReader(file, delimiter="\t"):
            kind = KINDS.get(label["kind"])
            if kind is None:
                continue
            start_ns, end_ns = (
                int(float(label[f"{edge}_epoch"]) * 1e9) for edge in ("start", "end")
            )
            mine = (rows["first_ns"] >= start_ns) & (rows["first_ns"] <= end_ns)
            mine &= rows["protocol"] == kind.protocol
            if kind.port is not None:
                mine &= rows["dst_port"] == kind.port
            if not kind.anywhere:
                mine &= np.isin(targets, label["victim_ips"].split(","))
            if label["attacker_ips"] != "random":
                mine &= np.isin(sources, label["attacker_ips"].split(","))
            found.append(Attack(label["kind"], kind.title, kind.pattern, _evenly(rows[mine])))
    return tuple(found)


def main() -> None:
    capture, labels, out = map(Path, sys.argv[1:4])
    source = {
        "name": "attacks of our lab recording home_lab",
        "licence": "MIT (ours)",
        "capture_sha256": hashlib.sha256(capture.read_bytes()).hexdigest(),
    }
    found = cut(capture, labels)
    write(out, found, source=source)
    told = ", ".join(f"{one.name} {len(one)}" for one in found)
    sys.stdout.write(f"{sum(map(len, found))} flows of {len(found)} attacks: {told}\n")


if __name__ == "__main__":
    main()

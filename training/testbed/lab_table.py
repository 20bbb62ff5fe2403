"""Which attacks of a labelled recording became incidents, and which incidents are false.

    python app.py replay home_lab.pcap.gz --exit --summary s.json
    python training/testbed/lab_table.py s.json home_lab.labels.tsv

An attack is told where an incident names its attacker (or, for floods, its victim) under one of
the names that fit, with evidence from the attack's time. An incident that fits no attack at all
is false.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any, Final

SLACK_S: Final = 10.0
"""Evidence may come that much after an attack's end: unanswered probes, flows that end late."""
FITS: Final[dict[str, tuple[str, ...]]] = {
    "arp_sweep": ("ARP_SWEEP",),
    "connect_scan": ("VERTICAL_SCAN",),
    "syn_scan": ("VERTICAL_SCAN",),
    "v6_scan": ("VERTICAL_SCAN",),
    "slow_scan": ("VERTICAL_SCAN",),
    "null_scan": ("STEALTH_SCAN",),
    "xmas_scan": ("STEALTH_SCAN",),
    "fin_scan": ("STEALTH_SCAN",),
    "udp_scan": ("UDP_SCAN",),
    "wan_sweep": ("HORIZONTAL_SWEEP",),
    "port_sweep": ("HORIZONTAL_SWEEP", "ARP_SWEEP"),  # absent hosts never get past ARP
    "syn_flood": ("SYN_FLOOD",),
    "syn_flood_rand": ("SYN_FLOOD",),
    "icmp_flood": ("ICMP_FLOOD",),
    "udp_flood": ("UDP_FLOOD",),
    "http_flood": ("HTTP_BURST",),
    "ssh_brute": ("CREDENTIAL_GUESSING",),
    "ftp_brute": ("CREDENTIAL_GUESSING",),
    "http_brute": ("CREDENTIAL_GUESSING",),
}


def _concerns(incident: dict[str, Any], row: dict[str, str]) -> bool:
    attackers, victims = row["attacker_ips"].split(","), row["victim_ips"].split(",")
    if incident["subpattern"].endswith("_FLOOD"):
        return incident["dst_ip"] in victims
    return incident["src_ip"] in attackers


def _overlaps(incident: dict[str, Any], row: dict[str, str]) -> bool:
    start, end = float(row["start_epoch"]), float(row["end_epoch"])
    return bool(incident["first_time"] <= end + SLACK_S and incident["last_time"] >= start)


def main() -> None:
    summary, labels = Path(sys.argv[1]), Path(sys.argv[2])
    incidents = json.loads(summary.read_text(encoding="utf-8"))["incidents"]
    with labels.open(encoding="utf-8") as file:
        attacks = [row for row in csv.DictReader(file, delimiter="\t") if row["kind"] != "benign"]
    told = 0
    lines = []
    explained: set[str] = set()
    for row in attacks:
        mine = [one for one in incidents if _overlaps(one, row) and _concerns(one, row)]
        explained.update(one["id"] for one in mine)
        named = [one for one in mine if one["subpattern"] in FITS.get(row["kind"], ())]
        told += bool(named)
        words = ", ".join(f"{one['subpattern']} ({one['severity']})" for one in named)
        lines.append(f"{row['phase']}  {row['kind']:15} {row['attacker_ips']:14} {words or '-'}")
    lines.append(f"{told} of {len(attacks)} attacks told by name")
    false = [one for one in incidents if one["id"] not in explained]
    lines.append(f"{len(false)} false incidents of {len(incidents)}")
    lines += [f"  {one['timestamp']} {one['subpattern']} {one['title']}" for one in false]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

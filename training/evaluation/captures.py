"""The whole system on recorded captures: what it tells of attacks, and of harmless traffic.

Each capture is replayed into a fresh installation, as `python app.py replay CAPTURE --exit` does.
An attack counts as detected only by an incident that names an address which the capture's index
names, and not before the attack began: alarms about bystanders are no hit.
"""

from __future__ import annotations

import csv
import ipaddress
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from addresses import addresses_of
from analysis import Analysis
from errors import InputError
from replay import Replay
from settings import Settings
from store import Store
from training.datasets import capture_flows

__all__ = ["Captured", "Phase", "Told", "captures", "lab", "replayed"]

log = logging.getLogger("secureflux.training")

BEFORE_S: Final = 1.0
AFTER_S: Final = 7.0
"""Evidence of a phase may carry a time so long after it (a flow ends by its last packet)."""
MOST: Final = 2000
"""Incidents looked at."""
ATTACKED: Final[Mapping[str, tuple[str, ...]]] = {
    "arp_sweep": ("ARP_SWEEP",),
    "slowloris": ("SLOW_CONNECTIONS",),
    "connect_scan": ("VERTICAL_SCAN",),
    "dns_tunnel": ("DNS_TUNNEL",),
    "syn_flood": ("SYN_FLOOD",),
    "wan_sweep": ("HORIZONTAL_SWEEP",),
    "exfil": ("EXFILTRATION",),
    "syn_scan": ("VERTICAL_SCAN",),
    "ssh_brute": ("CREDENTIAL_GUESSING",),
    "icmp_flood": ("ICMP_FLOOD",),
    "udp_flood": ("UDP_FLOOD",),
    "udp_scan": ("UDP_SCAN",),
    "arp_spoof": ("ARP_CONFLICT",),
    "port_sweep": ("HORIZONTAL_SWEEP",),
    "ftp_brute": ("CREDENTIAL_GUESSING",),
    "http_brute": ("CREDENTIAL_GUESSING", "HTTP_BURST"),
    "dns_random": ("DNS_RANDOM",),
    "null_scan": ("STEALTH_SCAN",),
    "http_flood": ("HTTP_BURST",),
    "v6_scan": ("VERTICAL_SCAN",),
    "syn_flood_rand": ("SYN_FLOOD",),
    "xmas_scan": ("STEALTH_SCAN",),
    "fin_scan": ("STEALTH_SCAN",),
    "c2_beacon": ("BEACON",),
    "slow_scan": ("VERTICAL_SCAN",),
}
"""The names under which the kinds of a lab's phases are told rightly."""


@dataclass(frozen=True, slots=True)
class Captured:
    """One capture: names of incidents that hit what the index names, and of all others.

    units: (source, minute) pairs with traffic; alarmed: those of them within an incident.
    """

    name: str
    attack: bool
    hits: tuple[str, ...]
    others: tuple[str, ...]
    units: int
    alarmed: int


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of a lab with an attack: by what names it was told, whether one is right."""

    phase: str
    kind: str
    named: tuple[str, ...]
    right: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What a replay told: the incidents at its end, their evidence as it came in, (incident id,
    packet time), and the capture's first second."""

    incidents: Sequence[Mapping[str, Any]]
    evidence: list[tuple[str, float]]
    first_s: float


def replayed(path: Path) -> Told:
    """A capture, replayed into a fresh installation."""
    with tempfile.TemporaryDirectory(prefix="secureflux-evaluation-") as folder:
        settings = replace(
            Settings(), DATA_DIR=folder, LIVE_MODEL_PATH=str(Path(folder) / "models" / "live")
        )
        store = Store(Path(folder))
        try:
            analysis = Analysis(settings, store, run="evaluation", background=False)
            source = Replay([path], snaplen=settings.SNAPLEN)
            evidence: list[tuple[str, float]] = []
            while (batch := source.read(0.0)) is not None:
                analysis.feed(batch)
                analysis.tick(analysis.last_ns)
                _note(analysis, evidence)
            analysis.finish()
            _note(analysis, evidence)
            incidents = list(analysis.incidents.list(status="all", limit=MOST))
            analysis.predictor.close()
        finally:
            store.close()
    return Told(incidents, evidence, analysis.first_ns / 1e9)


def _note(analysis: Analysis, evidence: list[tuple[str, float]]) -> None:
    """Incidents whose evidence has grown since the last look."""
    known = dict(evidence)
    for incident in analysis.incidents.list(status="all", limit=MOST):
        if known.get(incident["id"]) != incident["last_time"]:
            evidence.append((incident["id"], float(incident["last_time"])))


# --- a folder of captures -----------------------------------------------------------------------


def captures(folder: Path) -> Iterator[Captured]:
    """Every capture that `folder`/index.tsv calls an attack or benign."""
    index = folder / "index.tsv"
    if not index.is_file():
        raise InputError(f"There is no index.tsv in {folder}: it says what each capture holds.")
    with index.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["kind"] in _KINDS]
    for row in rows:
        path = folder / row["file"]
        if path.is_file():
            log.info("Capture %s", row["file"])
            yield _captured(path, row)


_KINDS: Final = ("attack", "benign")


def _captured(path: Path, row: Mapping[str, str]) -> Captured:
    told = replayed(path)
    named = _addresses(row["expected_incident"])
    start = re.search(r"start(?:s|ed)?(?: at)? (\d+(?:\.\d+)?) ?s", row["expected_incident"])
    begins_s = told.first_s + (float(start.group(1)) if start else 0.0) - BEFORE_S
    hits: list[str] = []
    others: list[str] = []
    for incident in told.incidents:
        within = incident["last_time"] >= begins_s
        hit = row["kind"] == "attack" and within and (not named or _touches(incident, named))
        (hits if hit else others).append(_name(incident))
    units, alarmed = _units(path, told.incidents)
    return Captured(
        Path(row["file"]).name,
        row["kind"] == "attack",
        tuple(dict.fromkeys(hits)),
        tuple(dict.fromkeys(others)),
        units,
        alarmed,
    )


def _addresses(text: str) -> frozenset[str]:
    """The IP and MAC addresses that a sentence names."""
    found = re.findall(r"[0-9A-Fa-f:.]*[0-9A-Fa-f](?::[0-9A-Fa-f]+)*", text)
    kept = set()
    for word in found:
        word = word.strip(".:")
        if re.fullmatch(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", word):
            kept.add(word.lower())
            continue
        for candidate in (word, word.partition(":")[0]):
            try:
                kept.add(str(ipaddress.ip_address(candidate)))
                break
            except ValueError:
                continue
    return frozenset(kept)


def _touches(incident: Mapping[str, Any], named: frozenset[str]) -> bool:
    return bool(_parties(incident) & named)


def _parties(incident: Mapping[str, Any]) -> set[str]:
    """Who an incident is about."""
    key = "dst_ip" if incident["key_is"] == "target" else "src_ip"
    parties = {str(incident[key])}
    if incident["key_is"] != "target" and incident.get("dst_ip"):
        parties.add(str(incident["dst_ip"]))
    return parties


def _name(incident: Mapping[str, Any]) -> str:
    return str(incident.get("subpattern") or incident["pattern"])


def _units(path: Path, incidents: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """(source, minute) pairs of a capture's flows, and how many of them an incident covers."""
    rows = capture_flows(path, fewest_packets=1)
    minutes = (rows["first_ns"] // 60_000_000_000).tolist()
    units = set(zip(addresses_of(rows, "src"), minutes, strict=True))
    alarmed = set()
    for incident in incidents:
        sources = set(incident.get("sources") or ()) | {str(incident["src_ip"])}
        low, high = int(incident["first_time"] // 60), int(incident["last_time"] // 60)
        alarmed |= {unit for unit in units if unit[0] in sources and low <= unit[1] <= high}
    return len(units), len(alarmed)


# --- a lab with labelled phases -----------------------------------------------------------------


def lab(capture: Path, labels: Path) -> tuple[list[Phase], list[str]]:
    """(every phase with an attack, the incidents that belong to none: false ones) of a lab."""
    told = replayed(capture)
    try:
        with labels.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file, delimiter="\t") if row["kind"] != "benign"]
    except OSError as error:
        raise InputError(f"{labels} can't be read: {error.strerror}.") from error
    named: dict[str, list[str]] = {row["phase"]: [] for row in rows}
    false = []
    for incident in told.incidents:
        times = [time_s for name, time_s in told.evidence if name == incident["id"]]
        fitting = [row for row in rows if _belongs(incident, times, row)]
        for row in fitting:
            named[row["phase"]].append(_name(incident))
        if not fitting:
            false.append(f"{_name(incident)}: {incident['title']}")
    phases = [
        Phase(
            row["phase"],
            row["kind"],
            tuple(dict.fromkeys(named[row["phase"]])),
            bool(set(named[row["phase"]]) & set(ATTACKED.get(row["kind"], ()))),
        )
        for row in rows
    ]
    return phases, false


def _belongs(incident: Mapping[str, Any], times: Sequence[float], row: Mapping[str, str]) -> bool:
    """Evidence within the phase, about one of its parties."""
    start_s, end_s = float(row["start_epoch"]) - BEFORE_S, float(row["end_epoch"]) + AFTER_S
    if not any(start_s <= time_s <= end_s for time_s in times):
        return False
    attackers = set(row["attacker_ips"].split(","))
    if attackers == {"random"} or incident["key_is"] == "target":
        return str(incident["dst_ip"]) in row["victim_ips"].split(",")
    return str(incident["src_ip"]) in attackers

"""Normal flows to learn from, and attacks to measure with: tables of flows and captures."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batches import FlowBatch, Rows
from capture import read_capture
from errors import InputError
from features import COLUMNS, HOME, INDUSTRIAL, REDUCED, matrix, select
from flow_tracker import FlowTracker
from packets import Decoder

__all__ = [
    "DAYS",
    "FEATURES_OF",
    "Flows",
    "capture_flows",
    "captures_in",
    "joined",
    "read_attacks",
    "read_elsewhere",
    "read_normal",
]

log = logging.getLogger("secureflux.training")

Values = NDArray[np.float64]
Words = NDArray[np.str_]

FEATURES_OF: Final = {"home": HOME, "industrial": INDUSTRIAL, "reduced": REDUCED}
DAYS: Final = ("Monday", "Tuesday", "Wednesday")

_CIC_CITATION: Final = (
    "Sharafaldin, Lashkari, Ghorbani: Toward Generating a New Intrusion Detection Dataset and "
    "Intrusion Traffic Characterization, ICISSP 2018; corrected edition: Liu, Engelen, Lynar, "
    "Essam, Joosen: Error Prevalence in NIDS datasets, IEEE CNS 2022"
)
_SENTINEL_CITATION: Final = (
    "Miettinen, Marchal, Hafeez, Asokan, Sadeghi, Tarkoma: IoT Sentinel: Automated Device-Type "
    "Identification for Security Enforcement in IoT, ICDCS 2017"
)
_MODBUS_CITATION: Final = (
    "Lemay, Fernandez: Providing SCADA Network Data Sets for Intrusion Detection Research, "
    "USENIX CSET 2016"
)


@dataclass(frozen=True, slots=True)
class Flows:
    """Flows of two packets or more.

    values: (n, k) features in the order asked for. groups: (n,) the day, plant, device or capture,
    by which data is split. labels: (n,) what the flow is, `normal` where it is that.
    sources: where they come from: name, citation, licence, flows.
    """

    values: Values
    groups: Words
    labels: Words
    sources: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.values)

    def where(self, mask: NDArray[np.bool_]) -> Flows:
        return Flows(self.values[mask], self.groups[mask], self.labels[mask], self.sources)


def joined(parts: list[Flows]) -> Flows:
    return Flows(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.groups for part in parts]),
        np.concatenate([part.labels for part in parts]),
        tuple(source for part in parts for source in part.sources),
    )


def read_normal(name: str, data: Path) -> Flows:
    """The normal flows a model is trained on, with FEATURES_OF[name] as columns.

    data: the layout of the data set (flows/, captures/, lab/), or any folder of captures, whose
    traffic is then taken as normal.
    """
    names = FEATURES_OF[name]
    if not (data / "flows").is_dir() and not (data / "lab").is_dir():
        return _captures(captures_in(data), names, source="captures given to the training")
    parts: list[Flows] = []
    if name != "industrial":
        devices = _devices(data, names)
        captures = _benign_captures(data, names, set(devices.groups.tolist()))
        parts += [devices, *captures, *_lab(data, names)]
    if name != "home":
        parts += [_cic_days(data, names), _modbus(data, names)]
    return joined(parts)


def read_attacks(name: str, data: Path) -> Flows | None:
    """Attack flows to measure a model with, by class; None where the folder has none.

    Home: the attack phases of the recorded lab, flows of the attacker (group `lab attack`).
    Industrial: CIC-IDS2017 (group: the day). Reduced: both.
    """
    parts = []
    if name != "industrial" and (data / "lab" / "home_lab.pcap.gz").exists():
        parts.append(_lab_attacks(data, FEATURES_OF[name]))
    if name != "home" and (data / "flows" / "flows_dev.parquet").exists():
        frame = _table(data / "flows" / "flows_dev.parquet")
        frame = frame[(frame["edition"] == "improved") & frame["attack"]]
        groups, labels = (frame[column].to_numpy(str) for column in ("day", "label"))
        parts.append(_enough_packets(frame, FEATURES_OF[name], groups, labels, ()))
    return joined(parts) if parts else None


def read_elsewhere(data: Path) -> Flows | None:
    """Normal and attack flows of a network and an edition no model is trained on, REDUCED columns.

    A day of CSE-CIC-IDS2018 in its original edition, which counts padding and ends flows at the
    first FIN; None where the folder has none.
    """
    path = data / "flows" / "flows_dev.parquet"
    if not path.exists():
        return None
    frame = _table(path)
    frame = frame[frame["edition"] != "improved"]
    labels = np.where(frame["attack"], frame["label"].to_numpy(str), "normal")
    return _enough_packets(frame, REDUCED, frame["net"].to_numpy(str), labels, ())


# --- tables -------------------------------------------------------------------------------------


def _table(path: Path) -> Any:
    """A flow table under canonical column names; InputError where it can't be read."""
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
        aliases = json.loads((path.parent.parent / "dialects" / "aliases.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read as a table of flows: {error}.") from error
    canonical = {
        key: spelling
        for key, spellings in aliases.items()
        for spelling in spellings
        if spelling in COLUMNS
    }
    return frame.rename(columns=canonical)


def _enough_packets(
    frame: Any,
    names: tuple[str, ...],
    groups: Words,
    labels: Words,
    sources: tuple[dict[str, Any], ...],
) -> Flows:
    """Flows of one packet are left out: tools that made these tables drop them too."""
    enough = (frame["Total Fwd Packets"] + frame["Total Bwd Packets"]).to_numpy() >= 2
    values = frame[list(names)].to_numpy(np.float64)[enough]
    kept = tuple({**source, "flows": int(enough.sum())} for source in sources)
    return Flows(values, groups[enough], labels[enough], kept)


def _devices(data: Path, names: tuple[str, ...]) -> Flows:
    frame = _table(data / "flows" / "home_ics_dev.parquet")
    frame = frame[frame["net"] == "home-iotsentinel"]
    return _normal(
        frame,
        names,
        np.char.add("device ", frame["device"].to_numpy(str)),
        name="IoT Sentinel, 16 devices",
        citation=_SENTINEL_CITATION,
    )


def _modbus(data: Path, names: tuple[str, ...]) -> Flows:
    frame = _table(data / "flows" / "home_ics_dev.parquet")
    frame = frame[frame["net"] == "ics-lemay-modbus"]
    return _normal(
        frame,
        names,
        np.char.add("plant ", frame["file"].to_numpy(str)),
        name="Modbus SCADA data set, polling",
        citation=_MODBUS_CITATION,
    )


def _cic_days(data: Path, names: tuple[str, ...]) -> Flows:
    """The improved edition alone: the original counts padding, flags and windows differently."""
    frame = _table(data / "flows" / "flows_dev.parquet")
    frame = frame[frame["edition"] == "improved"]
    return _normal(
        frame,
        names,
        frame["day"].to_numpy(str),
        name="CIC-IDS2017, improved edition, benign flows",
        citation=_CIC_CITATION,
        licence="as its authors publish it, with citation",
    )


def _normal(
    frame: Any,
    names: tuple[str, ...],
    groups: Words,
    *,
    name: str,
    citation: str,
    licence: str = "as its authors publish it",
) -> Flows:
    """The rows that are no attack, with their source."""
    harmless = ~frame["attack"].to_numpy(bool)
    labels = np.full(int(harmless.sum()), "normal")
    source = {"name": name, "citation": citation, "licence": licence}
    return _enough_packets(frame[harmless], names, groups[harmless], labels, (source,))


# --- captures -----------------------------------------------------------------------------------


def captures_in(folder: Path) -> list[Path]:
    """Every capture of a folder and the folders in it, in the order of their names."""
    endings = (".pcap", ".pcapng", ".cap", ".pcap.gz", ".pcapng.gz", ".cap.gz")
    found = sorted(p for p in folder.rglob("*") if p.name.lower().endswith(endings))
    if not found:
        raise InputError(
            f"There is nothing to learn from in {folder}: neither the data set's folders flows/ "
            "and lab/ nor captures (*.pcap, *.pcapng, also packed with gzip)."
        )
    return found


def capture_flows(path: Path, *, fewest_packets: int = 2) -> Rows:
    """(n,) FLOW rows of a capture, all ended."""
    decoder, tracker = Decoder(), FlowTracker()
    capture = read_capture(path)
    parts: list[FlowBatch] = [tracker.track(decoder.decode(frames)) for frames in capture]
    parts.append(tracker.flush())
    if capture.damage:
        log.warning("%s", capture.damage)
    rows = np.concatenate([part.rows for part in parts])
    kept: Rows = rows[rows["packets"].sum(axis=1) >= fewest_packets]
    return kept


def _captures(
    paths: list[Path], names: tuple[str, ...], *, source: str, licence: str = "your own"
) -> Flows:
    parts = []
    for path in paths:
        rows = capture_flows(path)
        parts.append(_of_rows(rows, names, f"capture {path.name}", "normal"))
    flows = joined(parts)
    told = {"name": source, "citation": "", "licence": licence, "flows": len(flows)}
    return Flows(flows.values, flows.groups, flows.labels, (told,))


def _of_rows(rows: Rows, names: tuple[str, ...], group: str, label: str) -> Flows:
    values = select(matrix(rows), names)
    return Flows(values, np.full(len(rows), group), np.full(len(rows), label), ())


def _benign_captures(data: Path, names: tuple[str, ...], known: set[str]) -> list[Flows]:
    """The benign captures of homes and offices, a source each licence.

    Those of plants (`ics_`) are another network, that of a load generator (`_ab`) is no normal
    use, and those of a device in the table of flows would stand on both sides of a split.
    """
    index = data / "captures" / "index.tsv"
    if not index.exists():
        return []
    devices = [group.removeprefix("device ") for group in known]
    by_licence: dict[str, list[Path]] = {}
    with index.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            name = Path(row["file"]).name
            if row["kind"] != "benign" or name.startswith("ics_") or "_ab." in name:
                continue
            if not any(f"/{device}/" in row["source"] for device in devices):
                by_licence.setdefault(row["licence"], []).append(data / "captures" / row["file"])
    return [
        _captures(
            paths,
            names,
            source=f"{len(paths)} public captures: " + ", ".join(p.name for p in paths),
            licence=licence,
        )
        for licence, paths in by_licence.items()
    ]


@dataclass(frozen=True, slots=True)
class _Phase:
    """A stretch of the lab's recording, epoch nanoseconds."""

    kind: str
    start_ns: int
    end_ns: int
    attackers: tuple[str, ...]


def _phases(path: Path) -> Iterator[_Phase]:
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            yield _Phase(
                row["kind"],
                int(float(row["start_epoch"]) * 1e9),
                int(float(row["end_epoch"]) * 1e9),
                tuple(row["attacker_ips"].split(",")),
            )


def _lab(data: Path, names: tuple[str, ...]) -> list[Flows]:
    """The lab's quiet recording, and of the other one what lies within a harmless phase."""
    parts = []
    for recording in ("home_lab_quiet", "home_lab"):
        path = data / "lab" / f"{recording}.pcap.gz"
        if not path.exists():
            continue
        rows = capture_flows(path)
        harmless = np.zeros(len(rows), bool)
        for phase in _phases(path.with_name(f"{recording}.labels.tsv")):
            if phase.kind == "benign":
                harmless |= (rows["first_ns"] >= phase.start_ns) & (rows["last_ns"] <= phase.end_ns)
        flows = _of_rows(rows[harmless], names, f"lab {recording}", "normal")
        source = {
            "name": f"our lab, harmless traffic of {recording}",
            "citation": "",
            "licence": "MIT (ours)",
            "flows": len(flows),
        }
        parts.append(Flows(flows.values, flows.groups, flows.labels, (source,)))
    return parts


def _lab_attacks(data: Path, names: tuple[str, ...]) -> Flows:
    """What the attacker of each phase sent while it lasted."""
    from addresses import address_text

    path = data / "lab" / "home_lab.pcap.gz"
    rows = capture_flows(path)
    sources = np.array(
        [
            address_text(int(row["src_hi"]), int(row["src_lo"]), int(row["ip_version"]))
            for row in rows
        ]
    )
    parts = []
    for phase in _phases(path.with_name("home_lab.labels.tsv")):
        if phase.kind == "benign":
            continue
        within = (rows["first_ns"] >= phase.start_ns) & (rows["first_ns"] <= phase.end_ns)
        if phase.attackers != ("random",):
            within &= np.isin(sources, phase.attackers)
        parts.append(_of_rows(rows[within], names, "lab attack", phase.kind))
    return joined(parts)

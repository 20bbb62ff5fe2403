"""The model for flow files that hold little: any record of a flow can be put to it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features import REDUCED, matrix, select
from ml import registry
from ml.model import Model
from tests.frames import golden
from tests.test_flow_tracker import flows_of

ROOT = Path(__file__).resolve().parent.parent
DIALECTS = ROOT.parent / "shared" / "data" / "dialects"


@pytest.fixture(scope="module")
def model() -> Model:
    return registry.load(registry.REDUCED_FOLDER)


def nine(duration_us: float, fwd: float, bwd: float, fwd_bytes: float, bwd_bytes: float) -> Any:
    """The features of a record that holds a time, two counts of packets and two of bytes."""
    seconds = duration_us / 1e6
    return (
        *(duration_us, fwd, bwd, fwd_bytes, bwd_bytes),
        *(fwd_bytes / fwd if fwd else 0.0, bwd_bytes / bwd if bwd else 0.0),
        (fwd_bytes + bwd_bytes) / seconds if seconds else 0.0,
        (fwd + bwd) / seconds if seconds else 0.0,
    )


def zeek(line: str) -> Any:
    one = json.loads(line)
    return nine(
        one.get("duration", 0.0) * 1e6,
        *(one["orig_pkts"], one["resp_pkts"], one.get("orig_bytes", 0), one.get("resp_bytes", 0)),
    )


def suricata(line: str) -> Any:
    """Whole frames: 66 bytes a packet are taken off for their headers, 42 for UDP."""
    one = json.loads(line)
    flow, header = one["flow"], 66 if one["proto"] == "TCP" else 42
    seconds = datetime.fromisoformat(flow["end"]) - datetime.fromisoformat(flow["start"])
    packets = flow["pkts_toserver"], flow["pkts_toclient"]
    frames = flow["bytes_toserver"], flow["bytes_toclient"]
    payload = [max(b - header * n, 0) for b, n in zip(frames, packets, strict=True)]
    return nine(seconds.total_seconds() * 1e6, *packets, *payload)


def nfstream(line: str) -> Any:
    one = next(csv.DictReader([HEADERS["nfstream_default.csv"], line]))
    header = 54 if one["protocol"] == "6" else 42
    packets = float(one["src2dst_packets"]), float(one["dst2src_packets"])
    frames = float(one["src2dst_bytes"]), float(one["dst2src_bytes"])
    payload = [max(b - header * n, 0.0) for b, n in zip(frames, packets, strict=True)]
    return nine(float(one["bidirectional_duration_ms"]) * 1e3, *packets, *payload)


HEADERS: dict[str, str] = {}
READERS: dict[str, Callable[[str], Any]] = {
    "zeek_conn_json.log": zeek,
    "suricata_eve_flow.json": suricata,
    "nfstream_default.csv": nfstream,
}
CIC = ("cic2017_improved_cns2022.csv", "cic2017_mlcve_orig.csv", "cic2018_parquet_edition.csv")


def of_records(name: str) -> Any:
    """(n, 9) of a fixture, flows of two packets or more."""
    lines = (DIALECTS / name).read_text(encoding="utf-8").splitlines()
    if name in READERS:
        if name.endswith(".csv"):
            HEADERS[name] = lines.pop(0)
        values = np.array([READERS[name](line) for line in lines if line])
    else:
        aliases = json.loads((DIALECTS / "aliases.json").read_text())
        canonical = {a: name for name in REDUCED for a in (name, *_spellings(aliases, name))}
        rows = list(csv.reader(lines))
        places = {canonical.get(column.strip()): at for at, column in enumerate(rows[0])}
        values = np.array([[float(row[places[name]]) for name in REDUCED] for row in rows[1:]])
    return values[values[:, 1] + values[:, 2] >= 2]


def _spellings(aliases: dict[str, list[str]], name: str) -> list[str]:
    return next(spellings for spellings in aliases.values() if name in spellings)


def test_five_numbers_of_a_record_are_enough() -> None:
    names = dict(zip(REDUCED, select(matrix(flows_of(golden())), REDUCED)[0], strict=True))
    assert nine(60400, 4, 2, 120, 1000) == pytest.approx(tuple(names.values()))


def test_the_shipped_model_votes_alone_and_knows_its_line(model: Model) -> None:
    manifest = registry.verify(registry.REDUCED_FOLDER)
    assert (model.name, model.features) == ("reduced", REDUCED)
    assert manifest["threshold"]["weight"] == 1.0
    assert manifest["threshold"]["threshold"] == pytest.approx(-2.0)
    assert model.expert_names == ("forest", "neighbours", "mixture")
    assert len(manifest["training"]["sources"]) >= 3


def test_flows_of_our_own_are_judged(model: Model) -> None:
    assert model.calibration is not None
    rows = flows_of(golden())
    ordinary = select(matrix(rows), REDUCED)
    # 40 GB in two packets, answered by nothing.
    absurd = np.array([nine(1e3, 2, 0, 4e10, 0)])
    scores = model.calibration.score(
        model.look(model.transformed(np.concatenate([ordinary, absurd]))).oddness
    )
    assert scores[0] > -2.0
    assert scores[1] < -2.0


@pytest.mark.skipif(not DIALECTS.is_dir(), reason="the fixtures are not beside the code")
@pytest.mark.parametrize("name", [*READERS, *CIC])
def test_records_of_other_programs_are_judged(name: str, model: Model) -> None:
    assert model.calibration is not None
    values = of_records(name)
    assert len(values) >= 20
    oddness = model.look(model.transformed(values)).oddness
    scores = model.calibration.score(oddness)
    assert np.isfinite(scores).all()
    assert (scores <= 0).all()
    # Ordinary in bulk: were a unit wrong by a thousand, most would lie beyond the line.
    assert np.median(scores) > -2.0
    wrong = values * np.where(np.arange(9) == 0, 1e-6, 1.0)
    moved = model.calibration.score(model.look(model.transformed(wrong)).oddness)
    assert np.median(moved) < np.median(scores)

"""Regions around judged flows, and the attacks that hiding them would hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addresses import LocalNetworks
from batches import Finding
from capture import read_capture
from features import LIVE, matrix
from flow_tracker import FlowTracker
from ml import selftest
from ml.likeness import CENTRES, STRENGTH, Likeness
from ml.model import Model, fit
from packets import Decoder
from patterns import Windows

LAB = Path(__file__).resolve().parents[2] / "shared" / "data" / "lab"


def flows(n: int, *, seed: int = 1) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    kinds = np.random.default_rng(0).normal(4, 2, (4, len(LIVE)))
    return np.exp(kinds[rng.integers(0, 4, n)] + rng.normal(0, 0.2, (n, len(LIVE))))


def fitted(version: str, *, seed: int = 1) -> Model:
    normal = flows(600, seed=seed)
    return fit("live", version, LIVE, normal[:450], normal[450:]).model


@pytest.fixture(scope="module")
def model() -> Model:
    return fitted("1")


def suppression(**changed: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"subpattern": "ANOMALY", "protocol": "IP", "limit": None, "centres": []}
    return {**told, **changed}


def test_a_region_holds_its_own_flows_and_their_likes_alone(model: Model) -> None:
    likeness = Likeness(lambda: [model])
    row = flows(1, seed=9)
    region = likeness.around(row.tolist())
    assert region is not None
    assert region["model"] == "live 1"
    centres = region["centres"]
    asked = [row[0], row[0] * 1.001, row[0] * 50.0]
    assert likeness.like(centres, [one.tolist() for one in asked]) == [True, True, False]


def test_flows_without_their_values_are_like_nothing(model: Model) -> None:
    likeness = Likeness(lambda: [model])
    assert likeness.around([[], [1.0, 2.0]]) is None
    centres = flows(1).tolist()
    assert likeness.like(centres, []) == []
    odd = [[1.0], [float("nan")] * len(LIVE)]
    assert likeness.like(centres, [*odd, *centres, []]) == [False, False, True, False]
    assert likeness.like([], centres) == likeness.like(odd, centres) == [False]
    assert Likeness(list).around(centres) is None
    assert Likeness(list).like(centres, centres) == [False]


def test_judged_flows_of_another_version_of_the_program_hide_nothing(model: Model) -> None:
    """It had other features, so that nothing is known of what lies around them."""
    likeness = Likeness(lambda: [model])
    assert likeness.hidden_by(suppression(centres=[[1.0] * (len(LIVE) - 4)])) == []


def test_few_centres_stand_for_many_flows(model: Model) -> None:
    likeness = Likeness(lambda: [model])
    many = flows(50, seed=9).tolist()
    region = likeness.around(many)
    assert region is not None
    assert len(region["centres"]) == CENTRES
    assert all(centre in many for centre in region["centres"])
    alone = likeness.around(many[:1])
    assert alone is not None
    assert alone["radius"] == region["radius"]
    held = [sum(likeness.like(one["centres"], many)) for one in (alone, region)]
    assert held[0] < held[1]


def test_a_retraining_takes_the_region_along(model: Model) -> None:
    serving = [model]
    likeness = Likeness(lambda: serving)
    row = flows(1, seed=9).tolist()
    region = likeness.around(row)
    assert region is not None
    serving[0] = fitted("2", seed=4)
    assert likeness.like(region["centres"], row) == [True]
    again = likeness.around(row)
    assert again is not None
    assert again["model"] == "live 2"
    assert again["radius"] != region["radius"]


def test_windows_hide_what_was_no_stronger(model: Model) -> None:
    likeness = Likeness(lambda: [model])
    names = [
        {one["name"] for one in likeness.hidden_by(suppression(subpattern=of, limit=limit))}
        for of, limit in (("VERTICAL_SCAN", 1.5), ("VERTICAL_SCAN", 20.0), ("UDP_FLOOD", 1.7))
    ]
    assert names == [set(), {"connect_scan", "slow_scan"}, {"udp_flood"}]


def test_a_region_around_an_attack_hides_it_for_its_protocol_alone(model: Model) -> None:
    likeness = Likeness(lambda: [model])
    attack = next(one for one in selftest.attacks() if one.name == "exfil")
    region = likeness.around(matrix(attack.rows).tolist())
    assert region is not None
    tcp = likeness.hidden_by(suppression(centres=region["centres"], protocol="TCP"))
    assert {"name": "exfil", "title": attack.title, "hidden": 1.0} in tcp
    udp = likeness.hidden_by(suppression(centres=region["centres"], protocol="UDP"))
    assert "exfil" not in {one["name"] for one in udp}
    normal = likeness.around(flows(20).tolist())
    assert normal is not None
    assert likeness.hidden_by(suppression(centres=normal["centres"])) == []


def test_strengths_are_those_of_bundled_attacks() -> None:
    known = {attack.name for attack in selftest.attacks()}
    assert set(STRENGTH) <= known


@pytest.mark.skipif(not LAB.is_dir(), reason="the lab recording is not at hand")
def test_strengths_are_what_the_windows_reach() -> None:
    """Scans alone: they do not depend on how a capture is cut into batches."""
    lines = [line.split("\t") for line in (LAB / "home_lab.labels.tsv").read_text().splitlines()]
    phases = {line[1]: (float(line[3]) - 1, float(line[4]) + 3) for line in lines[1:]}
    windows = Windows(is_local=LocalNetworks([]), window_seconds=120)
    decoder, tracker = Decoder(), FlowTracker(capacity=131_072, active_s=120, idle_s=120, quiet_s=5)
    found: list[Finding] = []
    last_ns = 0
    for frames in read_capture(LAB / "home_lab.pcap.gz"):
        batch = decoder.decode(frames)
        found += windows.packets(batch)
        found += windows.flows(tracker.track(batch))
        now_ns = int(frames.time_ns.max())
        if now_ns - last_ns > 200_000_000:
            last_ns = now_ns
            found += windows.tick(now_ns)
            found += windows.flows(tracker.expire(now_ns))
    for name in ("syn_scan", "connect_scan", "udp_scan", "fin_scan", "wan_sweep"):
        pattern = next(one.pattern for one in selftest.attacks() if one.name == name)
        start, end = phases[name]
        reached = max(
            one.value / one.line
            for one in found
            if one.subpattern == pattern and start <= one.last_ns / 1e9 <= end
        )
        assert reached == pytest.approx(STRENGTH[name], rel=0.02), name

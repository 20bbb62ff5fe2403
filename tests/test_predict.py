from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from addresses import address_text
from batches import FLOW, MODELS, EndReason, FlowBatch, FlowRecord, VerdictBatch
from features import LIVE, matrix
from ml.calibration import Calibration
from ml.forest import warm
from ml.recalibration import FILE, LOCAL_NEEDED, FlowRate
from ml.voting import extreme_line, severities
from predict import LEARNED_PER_SECOND, Predictor
from settings import ROOT, Settings
from words import protocol_name

HOME, INDUSTRIAL, LIVE_PLACE = (MODELS.index(name) for name in ("home", "industrial", "live"))
START_NS = 1_700_000_000_000_000_000
CLIENT = (192 << 24) | (168 << 16) | (1 << 8) | 20
NAN = float("nan")


def flows(
    n: int,
    *,
    seed: int = 0,
    source: int = CLIENT,
    at_s: float = 0.0,
    end: EndReason = EndReason.FIN,
) -> FlowBatch:
    """Ordinary web and DNS flows of one client, of two packets or more."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(n, FLOW)
    web = rng.random(n) < 0.6
    packets = np.where(web[:, None], rng.integers(6, 25, (n, 2)), 1)
    mean = np.where(web[:, None], rng.normal((90, 700), (10, 80), (n, 2)), (45, 120))
    duration = np.where(web, rng.gamma(3, 4e8, n), rng.gamma(3, 5e6, n)).astype(np.int64) + 1000
    rows["id"] = np.arange(1, n + 1)
    rows["first_ns"] = START_NS + int(at_s * 1e9)
    rows["last_ns"] = rows["first_ns"] + duration
    rows["src_lo"], rows["dst_lo"] = source, np.where(web, 0x5DB8D822, (CLIENT & ~0xFF) | 1)
    rows["src_port"] = rng.integers(32768, 61000, n)
    rows["dst_port"] = np.where(web, 443, 53)
    rows["protocol"] = np.where(web, 6, 17)
    rows["ip_version"] = 4
    rows["packets"] = packets
    rows["bytes"] = (packets * mean).astype(np.int64)
    rows["square_sum"] = (packets * mean**2 * 1.5).astype(np.int64)
    rows["length_max"] = np.where(web[:, None], (517, 1448), mean)
    rows["length_min"] = np.where(web[:, None], 0, mean)
    rows["dir_first_ns"] = rows["first_ns"][:, None]
    rows["dir_last_ns"] = rows["last_ns"][:, None]
    gaps = np.maximum(packets - 1, 1)
    rows["iat_mean"][:, :2] = np.where(packets > 1, duration[:, None] / gaps, 0)
    rows["iat_m2"][:, :2] = rows["iat_mean"][:, :2] ** 2 * gaps * rng.gamma(5, 0.3, (n, 2))
    rows["flag_counts"][:, 0] = np.where(web, 2, 0)
    rows["flag_counts"][:, 1] = np.where(web, 2, 0)
    rows["flag_counts"][:, 3] = np.where(web, packets.sum(axis=1) // 3, 0)
    rows["init_window"] = np.where(web[:, None], (64240, 65160), 0)
    rows["end_reason"] = int(end)
    return FlowBatch(rows)


def odd_flows(n: int, *, seed: int = 9, at_s: float = 0.0, source: int = CLIENT) -> FlowBatch:
    """Giant one-way uploads over hours: nothing like them was ever normal here."""
    batch = flows(n, seed=seed, at_s=at_s, source=source)
    rows = batch.rows
    rows["packets"] = (90_000, 3)
    rows["bytes"] = (120_000_000, 0)
    rows["square_sum"] = (120_000_000 * 1400, 0)
    rows["length_max"], rows["length_min"] = (1460, 0), (1200, 0)
    rows["flag_counts"] = (0, 1, 0, 80_000)
    rows["init_window"] = (1024, 29200)
    return batch


def one_packet(batch: FlowBatch) -> FlowBatch:
    rows = batch.rows
    rows["packets"] = (1, 0)
    rows["bytes"], rows["square_sum"] = (40, 0), (1600, 0)
    rows["last_ns"] = rows["first_ns"]
    return batch


def settings(folder: Path, **changes: Any) -> Settings:
    return Settings(LIVE_MODEL_PATH=str(folder / "live"), **changes)


def teach(predictor: Predictor, batch: FlowBatch, barred: set[str] | None = None) -> VerdictBatch:
    verdicts = predictor.judge(batch)
    predictor.learn(batch, verdicts, barred or set())
    return verdicts


def teach_all(predictor: Predictor, n: int, *, seed: int = 0, at_s: float = 0.0) -> None:
    """n flows, so slowly that none is passed over."""
    for i in range(0, n, 250):
        count = min(250, n - i)
        teach(predictor, flows(count, seed=seed + i, at_s=at_s + i / 50))


def record(batch: FlowBatch, verdicts: VerdictBatch, place: int = 0) -> FlowRecord:
    row = batch.rows[place]
    score = {
        name: None if np.isnan(s) else float(s)
        for name, s in zip(MODELS, verdicts.scores[place], strict=True)
    }
    own = float(verdicts.autoencoder[place])
    score["autoencoder"] = None if np.isnan(own) else own
    votes = {
        name: {1: "ANOMALY", 0: "NORMAL", -1: "UNAVAILABLE"}[int(v)]
        for name, v in zip(MODELS, verdicts.votes[place], strict=True)
    }
    return cast(
        FlowRecord,
        {
            "id": f"run-{int(row['id'])}",
            "scores": score,
            "model_votes": votes,
            "packets": int(row["packets"].sum()),
            "protocol": protocol_name(int(row["protocol"])),
            "state": EndReason(int(row["end_reason"])).name.lower(),
            "features": matrix(batch.rows[place : place + 1])[0].tolist(),
        },
    )


def states(predictor: Predictor) -> dict[str, str]:
    return {model["name"]: model["state"] for model in predictor.status()["models"]}


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    warm()


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which 1,000 flows have been learned."""
    folder = tmp_path_factory.mktemp("learned")
    predictor = Predictor(settings(folder), background=False)
    teach_all(predictor, 1000)
    predictor.close()
    assert states(predictor) == dict.fromkeys(MODELS, "READY")
    return folder


@pytest.fixture
def trained(learned: Path, tmp_path: Path) -> Predictor:
    shutil.copytree(learned, tmp_path / "own")
    return Predictor(settings(tmp_path / "own"), background=False)


# --- the specification's table ------------------------------------------------------------------

T = -2.0
JUST = 1e-9
LOW, MEDIUM, HIGH, CRITICAL = range(4)


@pytest.mark.parametrize(
    ("scores", "votes", "severity", "borderline"),
    [
        # on a line is not below it
        ((0, 0, 0), (0, 0, 0), LOW, False),
        ((0, 0, T * 0.65), (0, 0, 0), LOW, False),
        ((0, 0, T * 0.65 - JUST), (0, 0, 0), LOW, True),
        ((0, 0, T), (0, 0, 0), LOW, True),
        ((0, 0, T - JUST), (0, 0, 1), MEDIUM, False),
        ((0, 0, T * 2), (0, 0, 1), MEDIUM, False),
        ((0, 0, T * 2 - JUST), (0, 0, 1), CRITICAL, False),
        ((T, T - JUST, T - JUST), (0, 1, 1), HIGH, False),
        ((T - JUST, T - JUST, T - JUST), (1, 1, 1), CRITICAL, False),
        ((T * 2 - JUST, 0, 0), (1, 0, 0), CRITICAL, False),
        # who does not vote is never against, and two of two are not all three
        ((NAN, NAN, NAN), (-1, -1, -1), LOW, False),
        ((NAN, NAN, T - JUST), (-1, -1, 1), MEDIUM, False),
        ((NAN, T - JUST, T - JUST), (-1, 1, 1), HIGH, False),
        ((NAN, T * 2 - JUST, T - JUST), (-1, 1, 1), CRITICAL, False),
        ((NAN, T * 0.65 - JUST, 0), (-1, 0, 0), LOW, True),
    ],
)
def test_votes_and_severity_on_both_sides_of_each_edge(
    scores: tuple[float, ...], votes: tuple[int, ...], severity: int, borderline: bool
) -> None:
    got_votes, got_severity, got_borderline = severities(np.array([scores]), np.full(3, T))
    assert tuple(got_votes[0]) == votes
    assert got_severity[0] == severity
    assert got_borderline[0] == borderline


def test_each_model_has_its_own_line() -> None:
    votes, severity, _ = severities(np.array([[-2.5, -2.5, -2.5]]), np.array([-3.0, -2.4, -2.6]))
    assert votes.tolist() == [[0, 1, 0]]
    assert severity.tolist() == [MEDIUM]


def test_one_flow_is_an_incident_alone_only_far_beyond_everything_normal() -> None:
    calibration = Calibration.fit(np.linspace(0, 1, 999))
    # A quiet network: 1.25 times the oddest normal score, log10(2 / 1000).
    assert extreme_line(calibration, 1.0) == pytest.approx(1.25 * np.log10(2 / 1000))
    # A busy one: such a flow may come once in 20 days.
    assert extreme_line(calibration, 1e6) == pytest.approx(np.log10(0.05 / 1e6))
    assert extreme_line(Calibration.fit(np.linspace(0, 1, 99)), 1.0) == -np.inf
    assert extreme_line(Calibration.fit(np.linspace(0, 1, 100)), 1.0) > -np.inf


# --- who may vote -------------------------------------------------------------------------------


def test_in_the_first_minutes_nobody_votes(tmp_path: Path) -> None:
    predictor = Predictor(settings(tmp_path), background=False)
    verdicts = predictor.judge(odd_flows(3))
    assert (verdicts.votes == -1).all()
    assert np.isnan(verdicts.scores).all()
    assert np.isnan(verdicts.thresholds).all()
    assert verdicts.references.tolist() == [0, 0, 0]
    assert not verdicts.alert.any()
    assert not verdicts.extreme.any()
    assert verdicts.deviations == [[], [], []]
    assert states(predictor) == {
        "home": "CALIBRATING",
        "industrial": "CALIBRATING",
        "live": "WARMING UP",
    }
    sentences = [model["sentence"] for model in predictor.status()["models"]]
    assert "0 of 500" in sentences[0]
    assert "0 of 500" in sentences[2]


def test_models_from_elsewhere_vote_after_500_local_flows_of_two_packets(tmp_path: Path) -> None:
    predictor = Predictor(settings(tmp_path), background=False)
    teach(predictor, one_packet(flows(100)))
    assert predictor.status()["models"][HOME]["calibrated"] == 0
    teach_all(predictor, LOCAL_NEEDED - 1, at_s=10)
    status = predictor.status()["models"][HOME]
    assert (status["state"], status["calibrated"]) == ("CALIBRATING", 499)
    teach(predictor, flows(1, seed=77, at_s=100))
    verdicts = predictor.judge(flows(400, seed=78))
    # The live model still warms up: the others share the budget.
    assert verdicts.references.tolist() == [500, 500, 0]
    assert verdicts.thresholds[:2] == pytest.approx(np.log10(0.005))
    assert (verdicts.votes[:, LIVE_PLACE] == -1).all()
    assert verdicts.alert.mean() < 0.04
    assert predictor.judge(odd_flows(5)).alert.all()


def test_with_the_live_model_the_others_may_spend_a_tenth(trained: Predictor) -> None:
    verdicts = trained.judge(flows(2))
    assert verdicts.thresholds[:2] == pytest.approx(np.log10(2 / 501))
    live = trained.status()["models"][LIVE_PLACE]
    assert live["threshold"] == pytest.approx(np.log10(max(0.008, 2 / (live["reference"] + 1))))


def test_one_packet_and_living_flows_are_judged_by_the_live_model_alone(
    trained: Predictor,
) -> None:
    for batch in (one_packet(flows(5)), flows(5, end=EndReason.ACTIVE)):
        verdicts = trained.judge(batch)
        assert (verdicts.votes[:, :2] == -1).all()
        assert (verdicts.votes[:, LIVE_PLACE] >= 0).all()
    assert (trained.judge(flows(5, end=EndReason.QUIET)).votes >= 0).all()


def test_odd_flows_are_alerts_with_reasons_and_ordinary_ones_are_not(trained: Predictor) -> None:
    ordinary = trained.judge(flows(1000, seed=51))
    assert ordinary.alert.mean() < 0.03
    assert all(
        bool(told) == bool(alert)
        for told, alert in zip(ordinary.deviations, ordinary.alert, strict=True)
    )
    odd = trained.judge(odd_flows(6))
    assert odd.alert.all()
    assert odd.beyond[:, LIVE_PLACE].all()
    assert (odd.scores[:, LIVE_PLACE] < ordinary.scores[:, LIVE_PLACE].min()).all()
    named = {one.feature for told in odd.deviations for one in told}
    assert named & {"Total Fwd Packets", "Total Length Fwd Packet", "PSH Flag Count"}
    assert not np.isnan(odd.raw).any()
    assert ((odd.raw >= -1) & (odd.raw <= 0)).all()


def test_a_flow_is_judged_alike_alone_and_in_company(trained: Predictor) -> None:
    rows = np.concatenate(
        [
            flows(40, seed=61).rows,
            odd_flows(3).rows,
            one_packet(flows(5)).rows,
            flows(5, end=EndReason.ACTIVE).rows,
        ]
    )
    together = trained.judge(FlowBatch(rows))
    for i in range(len(rows)):
        alone = trained.judge(FlowBatch(rows[i : i + 1]))
        for name in ("scores", "raw", "votes", "severity", "alert", "borderline", "extreme"):
            assert np.allclose(
                getattr(alone, name)[0], getattr(together, name)[i], equal_nan=True, atol=1e-9
            )


def test_an_empty_batch_has_empty_verdicts(trained: Predictor) -> None:
    empty = FlowBatch(np.zeros(0, FLOW))
    verdicts = teach(trained, empty)
    assert len(verdicts) == 0
    assert verdicts.scores.shape == (0, 3)
    assert verdicts.deviations == []


def test_a_flood_of_alerts_is_judged_and_explained_within_bounds(trained: Predictor) -> None:
    batch = odd_flows(10_000)
    trained.judge(batch)
    start = time.perf_counter()
    verdicts = trained.judge(batch)
    assert time.perf_counter() - start < 3
    assert verdicts.alert.all()
    assert sum(bool(told) for told in verdicts.deviations) == 68
    # The oddest are the ones explained.
    far = (verdicts.scores / verdicts.thresholds).max(axis=1)
    told = np.array([bool(one) for one in verdicts.deviations])
    assert far[told].min() >= far[~told].max() - 1e-12


# --- what is learned ----------------------------------------------------------------------------


def test_a_restart_keeps_what_was_counted(tmp_path: Path) -> None:
    predictor = Predictor(settings(tmp_path), background=False)
    teach_all(predictor, 300)
    # Killed: nothing is closed; at most 49 flows of the count are lost.
    again = Predictor(settings(tmp_path), background=False)
    counted = again.status()["models"][HOME]["calibrated"]
    assert 250 < counted <= 300
    teach_all(again, 250, seed=5000, at_s=50)
    third = Predictor(settings(tmp_path), background=False)
    assert states(third)["home"] == "READY"
    batch = flows(20, seed=3)
    assert np.array_equal(third.judge(batch).scores[:, HOME], again.judge(batch).scores[:, HOME])


def test_another_model_file_is_calibrated_anew(learned: Path, tmp_path: Path) -> None:
    shutil.copytree(learned, tmp_path / "own")
    path = tmp_path / "own" / "live" / FILE
    kept = json.loads(path.read_text())
    kept["models"]["home"]["model"] = "0" * 64
    path.write_text(json.dumps(kept))
    predictor = Predictor(settings(tmp_path / "own"), background=False)
    assert states(predictor) == {"home": "CALIBRATING", "industrial": "READY", "live": "READY"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"models": 3, "rate": {}}'])
def test_a_damaged_calibration_begins_anew(learned: Path, tmp_path: Path, text: str) -> None:
    shutil.copytree(learned, tmp_path / "own")
    (tmp_path / "own" / "live" / FILE).write_text(text)
    predictor = Predictor(settings(tmp_path / "own"), background=False)
    assert states(predictor)["home"] == "CALIBRATING"
    assert states(predictor)["live"] == "READY"


def _buffer(predictor_folder: Path) -> list[list[str]]:
    lines = (predictor_folder / "live" / "live_baseline_buffer.csv").read_text().splitlines()
    return [line.split(",") for line in lines[1:]]


def test_flows_a_model_objects_to_are_not_fitted(trained: Predictor, tmp_path: Path) -> None:
    before = len(_buffer(tmp_path / "own"))
    # Four of each source: too few to bar it for its flows alone.
    for i in range(50):
        teach(trained, odd_flows(4, seed=i, at_s=1000 + i, source=(10 << 24) | i))
    rows = [cells for cells in _buffer(tmp_path / "own") if cells[2].startswith("10.0.0.")]
    # The fifth that sets the line takes them; quarantine takes them out of there.
    assert {cells[1] for cells in rows} == {"held out"}
    assert len(rows) == pytest.approx(40, abs=20)
    teach(trained, flows(1, at_s=1090), {f"10.0.0.{i}" for i in range(50)})
    assert len(_buffer(tmp_path / "own")) == before + 1


def test_a_source_that_alerts_again_and_again_is_barred(trained: Predictor, tmp_path: Path) -> None:
    device = "10.0.0.66"
    teach(trained, flows(30, at_s=1000, source=(10 << 24) | 66))
    assert any(cells[2] == device for cells in _buffer(tmp_path / "own"))
    teach(trained, odd_flows(5, at_s=1001, source=(10 << 24) | 66))
    assert trained.baseline.barred == {device}
    # Also what it taught before is gone, and it teaches no more.
    teach(trained, flows(100, seed=3, at_s=1002, source=(10 << 24) | 66))
    assert not any(cells[2] == device for cells in _buffer(tmp_path / "own"))


def test_after_a_training_the_others_are_counted_on_the_newest_flows(trained: Predictor) -> None:
    assert trained.judge(flows(1)).references[HOME] == LOCAL_NEEDED
    held = matrix(flows(LOCAL_NEEDED - 100, seed=20, at_s=900).rows)
    trained.baseline.offer(held, ["10.0.0.7"] * len(held), np.ones(len(held), bool), 1.7e9)
    trained.retrain_baseline()
    teach(trained, flows(1, at_s=1000))
    seen = trained.baseline.never_fitted()
    # Flows of one packet were never seen by models from elsewhere and do not count.
    packets = seen[:, LIVE.index("Total Fwd Packets")] + seen[:, LIVE.index("Total Bwd Packets")]
    several = int((packets >= 2).sum())
    assert several > LOCAL_NEEDED
    assert trained.judge(flows(1)).references[HOME] == pytest.approx(several, abs=1)
    version = trained.baseline.status()["version"]
    teach(trained, flows(1, at_s=1001))
    assert trained.baseline.status()["version"] == version


def test_a_quarantined_source_teaches_nothing_from_before_or_now(tmp_path: Path) -> None:
    predictor = Predictor(settings(tmp_path), background=False)
    attacker = (10 << 24) | 66
    teach(predictor, flows(200, source=attacker))
    teach(predictor, flows(100, seed=1, at_s=5))
    assert predictor.status()["models"][HOME]["calibrated"] == 300
    teach(predictor, flows(50, seed=2, source=attacker, at_s=9), {"10.0.0.66"})
    status = predictor.status()
    assert status["models"][HOME]["calibrated"] == 100
    sources = {cells[2] for cells in _buffer(tmp_path)}
    assert sources == {address_text(0, CLIENT, 4)}


def test_provisional_flows_teach_nothing(tmp_path: Path) -> None:
    predictor = Predictor(settings(tmp_path), background=False)
    for end in (EndReason.ACTIVE, EndReason.QUIET):
        teach(predictor, flows(50, end=end))
    assert predictor.status()["models"][HOME]["calibrated"] == 0
    assert predictor.status()["baseline"]["collected"] == 0


def test_a_flood_of_normal_flows_says_one_thing_once(tmp_path: Path) -> None:
    predictor = Predictor(settings(tmp_path), background=False)
    batch = flows(5000)
    batch.rows["last_ns"] = batch.rows["first_ns"]
    teach(predictor, batch)
    teach(predictor, batch)
    assert len(_buffer(tmp_path)) == LEARNED_PER_SECOND


def test_confirmed_flows_are_learned_and_can_be_taken_back(trained: Predictor) -> None:
    batch = odd_flows(2)
    verdicts = trained.judge(batch)
    before = trained.status()["baseline"]["collected"]
    records = [record(batch, verdicts, i) for i in range(2)]
    token = trained.add_confirmed(records)
    assert trained.status()["baseline"]["collected"] == before + 2
    trained.forget_confirmed(token)
    assert trained.status()["baseline"]["collected"] == before
    # A record read back from disk has lost its features.
    bare = cast(FlowRecord, {k: v for k, v in records[0].items() if k != "features"})
    trained.forget_confirmed(trained.add_confirmed([bare]))
    assert trained.status()["baseline"]["collected"] == before


def test_reset_forgets_this_network(trained: Predictor) -> None:
    trained.reset_baseline()
    assert states(trained)["live"] == "WARMING UP"
    teach(trained, flows(1, at_s=2000))
    assert states(trained)["home"] == "CALIBRATING"
    trained.rollback_baseline()
    assert states(trained)["live"] == "READY"
    trained_version = trained.status()["baseline"]["version"]
    assert trained_version == 1


def test_retrain_now(trained: Predictor) -> None:
    before = trained.status()["baseline"]["version"]
    trained.retrain_baseline()
    assert trained.status()["baseline"]["version"] == before + 1


def test_the_flow_rate_is_that_of_packet_time() -> None:
    rate = FlowRate()
    assert rate.per_day == 1
    rate.add(10, 1e9)
    assert rate.per_day == pytest.approx(10 * 1440)
    for minute in range(1, 3000):
        rate.add(10, 1e9 + 60 * minute)
    assert rate.per_day == pytest.approx(14_400, rel=0.01)
    # A clock that jumps back changes nothing, a long silence counts as what it is.
    rate.add(10, 5e8)
    assert rate.per_day == pytest.approx(14_400, rel=0.01)
    rate.add(0, 1e9 + 60 * 3000 + 40 * 86_400)
    assert rate.per_day < 5


# --- what is told -------------------------------------------------------------------------------


def test_a_damaged_model_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    broken = tmp_path / "home"
    shutil.copytree(ROOT / "ml" / "models" / "home", broken)
    (broken / "model.npz").write_bytes(b"no arrays")
    predictor = Predictor(settings(tmp_path, HOME_MODEL_PATH=str(broken)), background=False)
    assert len(predictor.notices) == 1
    assert "sha256 differs" in predictor.notices[0]
    assert states(predictor)["home"] == "UNAVAILABLE"
    teach_all(predictor, 510)
    assert states(predictor)["industrial"] == "READY"
    batch = odd_flows(1)
    verdicts = predictor.judge(batch)
    assert verdicts.votes[0, :2].tolist() == [-1, 1]
    told = predictor.describe(record(batch, verdicts))
    assert told[HOME]["reason_no_vote"] == "its files can't be used"


def test_a_model_in_the_wrong_place_is_refused(tmp_path: Path) -> None:
    wrong = settings(tmp_path, HOME_MODEL_PATH=str(ROOT / "ml" / "models" / "industrial"))
    assert "not the home model" in Predictor(wrong, background=False).notices[0]


def test_status_says_what_each_model_is(trained: Predictor) -> None:
    models = trained.status()["models"]
    assert [model["name"] for model in models] == list(MODELS)
    assert [model["features"] for model in models] == [21, 27, 40]
    assert all(model["calibrated"] == model["needed"] == 500 for model in models)
    assert "other networks" in models[HOME]["trained_on"]
    assert "this network" in models[LIVE_PLACE]["trained_on"]
    assert models[HOME]["sentence"] == (
        "The home model votes. It objects to about 0.40% of normal flows."
    )
    json.dumps(trained.status(), allow_nan=False)


def test_an_incident_shows_how_each_model_sees_its_flow(trained: Predictor) -> None:
    batch = odd_flows(1)
    verdicts = trained.judge(batch)
    told = trained.describe(record(batch, verdicts))
    live = told[LIVE_PLACE]
    assert live["vote"] == "ANOMALY"
    assert live["rarity"]["beyond"]
    assert live["rarity"]["n"] == live["rarity"]["reference"] == verdicts.references[LIVE_PLACE]
    assert len(live["histogram"]) == 48
    assert live["histogram_low"] < live["threshold"] < live["histogram_high"] == 0
    assert live["reason_no_vote"] is None
    assert live["autoencoder"] == verdicts.autoencoder[0] < -1.5
    assert told[HOME]["autoencoder"] is None
    json.dumps(told, allow_nan=False)
    ordinary = flows(1, seed=4)
    seen = trained.describe(record(ordinary, trained.judge(ordinary)))
    assert not seen[LIVE_PLACE]["rarity"]["beyond"]


def test_a_model_that_did_not_vote_says_why(trained: Predictor, tmp_path: Path) -> None:
    def reason(predictor: Predictor, batch: FlowBatch, name: int) -> Any:
        return predictor.describe(record(batch, predictor.judge(batch)))[name]["reason_no_vote"]

    assert reason(trained, one_packet(flows(1)), HOME) == "one packet shows it too little"
    assert reason(trained, flows(1, end=EndReason.ACTIVE), HOME) == "the flow had not ended yet"
    tunnel = flows(1)
    tunnel.rows["protocol"] = 50
    assert reason(trained, tunnel, HOME) == "it never learned from ESP"
    fresh = Predictor(settings(tmp_path / "fresh"), background=False)
    assert reason(fresh, flows(1), HOME) == "not calibrated here yet, 0 of 500 flows"
    assert reason(fresh, flows(1), LIVE_PLACE) == "not trained yet, 0 of 500 flows"
    old = flows(1)
    before = record(old, fresh.judge(old))
    assert trained.describe(before)[LIVE_PLACE]["reason_no_vote"] == (
        "it was not ready when this flow came"
    )


def test_the_live_model_sees_all_columns(trained: Predictor) -> None:
    assert trained.baseline.model is not None
    assert trained.baseline.model.features == LIVE

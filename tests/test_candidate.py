"""A new version beside the serving one, and the versions on disk that do not serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import ModelError
from features import LIVE, matrix
from ml.baseline import NEEDED, Baseline
from ml.candidate import REPEATS, canary, compare
from ml.lessons import refusal
from ml.model import Model, fit
from ml.selftest import attacks
from ml.versions import KEPT, REFUSED_KEPT, Versions
from tests.test_predict import flows

WEIGHT, ALPHA = 0.8, 0.01
SCAN = "null_scan"


def normal(n: int, seed: int) -> np.ndarray:
    return matrix(flows(n, seed=seed).rows)


def of_attack(name: str) -> np.ndarray:
    return matrix(next(one for one in attacks() if one.name == name).rows)


def model_of(normal_flows: np.ndarray, held_out: np.ndarray, version: int = 1) -> Model:
    return fit("live", str(version), LIVE, normal_flows, held_out).model


@pytest.fixture(scope="module")
def serving() -> Model:
    return model_of(normal(800, 1), normal(250, 2))


@pytest.fixture(scope="module")
def blind() -> Model:
    """Has learned a scan as normal."""
    scan = of_attack(SCAN)
    return model_of(
        np.concatenate([normal(800, 3), scan, scan]), np.concatenate([normal(250, 4), scan])
    )


def compared(candidate: Model, serving: Model | None, newest: np.ndarray, **changes: Any) -> Any:
    given: dict[str, Any] = {"by_hand": False, "before": (), **changes}
    return compare(candidate, serving, normal(250, 4), newest, weight=WEIGHT, alpha=ALPHA, **given)


def test_the_next_version_of_the_same_network_serves(serving: Model) -> None:
    found = compared(model_of(normal(900, 5), normal(250, 4)), serving, normal(150, 6))
    assert found.refused is None
    assert found.lost == ()
    assert found.canary[SCAN] >= 0.5
    assert 0 <= found.held_out_rate <= 0.02
    assert found.told()["canary_recall"] == pytest.approx(
        np.mean(list(found.canary.values())), abs=1e-3
    )


def test_a_version_that_objects_to_every_other_flow_is_replaced_at_last(
    serving: Model, blind: Model
) -> None:
    strange = normal(150, 6)
    strange[:, LIVE.index("Flow Duration")] *= 1e3
    for refusals, refused in ((REPEATS - 1, "canary"), (REPEATS, None)):
        before = [{"refused": "canary", "before_rate": 0.3, "toward": None}] * refusals
        found = compared(blind, serving, strange, before=before)
        assert found.before_rate is not None
        assert found.before_rate > 0.05
        assert (found.refused, bool(found.lost)) == (refused, True)


def test_a_version_blind_to_an_attack_does_not_serve(serving: Model, blind: Model) -> None:
    found = compared(blind, serving, normal(150, 6))
    assert found.refused == "canary"
    assert "a NULL scan" in found.lost
    # Neither patience nor a person's wish to train lets it serve.
    again = [{"refused": "canary", "toward": None}] * 5
    assert compared(blind, serving, normal(150, 6), by_hand=True, before=again).refused == "canary"
    assert refusal({"version": 7, **found.told()}) == (
        "Version 7 does not serve: it no longer sees a NULL scan."
        if len(found.lost) == 1
        else f"Version 7 does not serve: it no longer sees {found.lost[0]} and "
        f"{len(found.lost) - 1} more of the bundled attacks."
    )


def test_what_no_version_saw_can_not_be_lost(serving: Model, blind: Model) -> None:
    assert compared(serving, blind, normal(150, 6)).lost == ()
    assert compared(blind, blind, normal(150, 6)).refused is None


def test_the_first_version_serves(blind: Model) -> None:
    found = compared(blind, None, normal(150, 6))
    assert (found.refused, found.moved) == (None, None)


def test_flows_judged_otherwise_are_told_and_outwaited(serving: Model) -> None:
    """A tenth of the flows is of a new kind; the next version takes it for normal."""
    rng = np.random.default_rng(7)
    kind = normal(400, 8)
    kind[:, : LIVE.index("FIN Flag Count")] *= rng.uniform(30, 40, (400, 1))
    candidate = model_of(
        np.concatenate([normal(700, 3), kind[:100]]),
        np.concatenate([normal(220, 4), kind[100:130]]),
    )
    newest = np.concatenate([normal(135, 6), kind[130:145]])
    found = compared(candidate, serving, newest)
    assert (found.refused, found.toward) == ("drift", "normal")
    assert found.moved > 0.05
    assert found.before_rate > found.moved - 0.01
    assert "judges" in str(refusal({"version": 3, **found.told()}))
    assert compared(candidate, serving, newest, by_hand=True).refused is None
    refused = [{"refused": None}, *[{"refused": "drift", "toward": "normal"}] * REPEATS]
    assert compared(candidate, serving, newest, before=refused).refused is None
    assert compared(candidate, serving, newest, before=refused[:-1]).refused == "drift"
    other_way = [{"refused": "drift", "toward": "odd"}] * REPEATS
    assert compared(candidate, serving, newest, before=other_way).refused == "drift"


def test_every_attack_has_its_own_scores(serving: Model) -> None:
    scores = canary(serving)
    assert [(name, len(part)) for name, part in scores.items()] == [
        (one.name, len(one)) for one in attacks()
    ]
    one = attacks()[3]
    assert serving.calibration is not None
    alone = serving.look(serving.transformed(matrix(one.rows))).oddness
    assert np.allclose(scores[one.name], serving.calibration.score(alone))


# --- versions on disk ---------------------------------------------------------------------------


def written(versions: Versions, number: int, refused: str | None) -> Model:
    told = {
        "version": number,
        "trained_at": float(number),
        "flows": 200,
        "newest": float(number),
        "refused": refused,
        "lost": ["a NULL scan"],
    }
    fitted = fit("live", str(number), LIVE, normal(120, number), normal(60, number + 50))
    model = versions.write(fitted, weight=WEIGHT, alpha=ALPHA, told=told)
    (versions.keep if refused else versions.serve)(model)
    return model


def test_refused_versions_are_kept_apart(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    for number, refused in enumerate((None, None, "canary", "canary", "canary", None), start=1):
        written(versions, number, refused)
    kept = sorted(int(path.name) for path in (tmp_path / "versions").iterdir())
    assert kept == [1, 2, 4, 5, 6], f"the newest {REFUSED_KEPT} refused, {KEPT} of the others"
    assert [one["serving"] for one in versions.history()] == [False] * 5 + [True]
    # The one before the serving one is the last that served.
    assert versions.go_back().version == "2"
    # A person may let a refused one serve; from then on it is like others.
    assert versions.use(5).version == "5"
    told = Versions(tmp_path).history()
    assert told[4]["serving"]
    assert [refusal(one) is None for one in told] == [True, True, False, False, True, True]
    assert versions.use(6).version == "6"
    assert versions.go_back().version == "5"


def test_a_damaged_serving_version_gives_way_to_one_that_served(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    for number, refused in enumerate((None, "canary", None), start=1):
        written(versions, number, refused)
    for folder in (tmp_path, tmp_path / "versions" / "3"):
        (folder / "model.npz").write_bytes(b"damaged")
    model = Versions(tmp_path).load_serving()
    assert model is not None
    assert model.version == "1"


def test_a_refused_version_is_told_and_the_one_before_goes_on(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)

    def teach(values: np.ndarray, now_s: float, source: str = "10.0.0.5") -> None:
        held = np.arange(len(values)) % 5 == 0
        baseline.offer(values, [source] * len(values), held, now_s)

    teach(normal(700, 1), 1000.0)
    assert baseline.status()["version"] == 1
    scan = of_attack(SCAN)
    teach(np.concatenate([normal(760, 2), scan[:30]]), 2000.0)
    told = baseline.status()
    assert told["version"] == 1
    last = told["history"][-1]
    assert (last["version"], last["serving"], last["kept"]) == (2, False, True)
    assert last["refused"] == "canary"
    assert "Version 2 does not serve: it no longer sees" in last["refusal"]
    assert last["refusal"] in told["sentence"]
    assert "canary" not in last, "each attack's share is in live_metadata.json alone"
    with pytest.raises(ModelError, match="no earlier version"):
        baseline.rollback()
    baseline.use(2)
    assert baseline.status()["version"] == 2
    assert "does not serve" not in baseline.status()["sentence"]
    # The next 500 are tried again.
    teach(normal(int(NEEDED * 1.3), 9), 3000.0)
    assert baseline.status()["history"][-1]["version"] == 3
    restarted = Baseline(tmp_path, background=False)
    assert restarted.status()["history"] == baseline.status()["history"]


def test_a_changed_network_is_told_and_let_in_at_last(tmp_path: Path) -> None:
    """Flows last nine times as long from some moment on; nobody asks for a training."""
    baseline = Baseline(tmp_path, background=False)
    duration = LIVE.index("Flow Duration")

    def teach(seed: int, now_s: float, *, longer: float, n: int = 40) -> None:
        values = normal(n, seed)
        values[:, duration] *= longer
        held = np.arange(n) % 5 == 0
        baseline.offer(values, ["10.0.0.5"] * n, held, now_s)

    teach(1, 1000.0, longer=1, n=700)
    assert baseline.status()["drift"] is None
    changed_s = 90_000.0
    for step in range(60):
        teach(100 + step, changed_s + 60 * step, longer=9)
        if step == 16:
            told = baseline.status()
            assert told["drift"]["feature"] == "Flow Duration"
            assert told["drift"]["since_s"] == pytest.approx(changed_s, abs=300)
            assert "flows here last longer" in told["sentence"]
            assert "if this is another network now" not in told["sentence"]
    history = baseline.status()["history"]
    assert [one["refused"] for one in history] == [None, "drift", "drift", None]
    assert history[1]["drift"]["feature"] == "Flow Duration"
    assert [one["serving"] for one in history] == [False, False, False, True]
    assert "does not serve" not in baseline.status()["sentence"]


def test_where_nothing_is_as_it_was_a_reset_is_advised(tmp_path: Path) -> None:
    baseline = Baseline(tmp_path, background=False)
    first = normal(700, 1)
    baseline.offer(first, ["10.0.0.5"] * 700, np.arange(700) % 5 == 0, 1000.0)
    # All are beyond the line, so that only the fifth that no vote chooses comes in.
    other = np.roll(normal(150, 2), 7, axis=1) * 50
    baseline.offer(other, ["10.0.0.5"] * 150, np.ones(150, bool), 90_000.0)
    told = baseline.status()
    assert told["drift"] is not None
    assert told["sentence"].endswith("if this is another network now, reset the live model.")
    baseline.reset()
    assert "another network" not in baseline.status()["sentence"]
    assert baseline.status()["drift"] is None

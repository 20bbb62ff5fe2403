"""Three verdicts of a person: what each does, what is kept of it, and how trainings use it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alerts import feedback as alerts_feedback
from batches import ACK, FIN, PSH, SYN, FlowRecord
from errors import InputError, ModelError, UsageError
from features import LIVE, matrix
from flow_tracker import FlowTracker
from ml import registry, selftest
from packets import Decoder
from predict import Predictor
from settings import load_settings
from tests.frames import Frame, batch_of, talk, write_pcap
from tests.incident_evidence import SCANNER, T0, finding, flow
from tests.incident_room import Room
from training.feedback import MOST, Feedback, read
from training.pipeline import train
from training.retraining import retrain

ROOT = Path(__file__).resolve().parent.parent
DAY_S = 86_400


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    opened = Room(tmp_path / "data")
    yield opened
    opened.store.close()


def opened(room: Room, *records: FlowRecord) -> str:
    room.incidents.add_flows(list(records))
    return str(room.only()["id"])


def kept(room: Room) -> dict[str, tuple[str, bool]]:
    """Flow -> its verdict and whether it may be fitted, as the document on the disk has it."""
    room.incidents.tick(room.time_s, final=True)
    room.restart()
    records = json.loads(room.on_disk("feedback_store"))
    return {one["id"].partition("/")[2]: (one["verdict"], one["learn"]) for one in records}


# --- the verdicts


def test_a_false_positive_is_kept_with_its_flows_values(room: Room) -> None:
    incident_id = opened(room, flow("r-1", extreme=True), flow("r-2", at=1))
    room.incidents.mark_false_positive(id=incident_id, learn=True)
    assert kept(room) == {"r-1": ("false", True), "r-2": ("false", True)}
    (record, _) = json.loads(room.on_disk("feedback_store"))
    assert record["features"] == flow("r-1")["features"]
    assert (record["incident"], record["pattern"]) == (incident_id, "ANOMALY")


def test_what_was_not_to_be_learned_stays_out_of_trainings_too(room: Room) -> None:
    incident_id = opened(room, flow("r-1", extreme=True))
    room.incidents.mark_false_positive(id=incident_id, learn=False)
    assert kept(room) == {"r-1": ("false", False)}
    with pytest.raises(InputError, match="no false positive"):
        read(room.directory)


def test_expected_ends_and_hides_it_and_teaches_nothing(room: Room) -> None:
    room.incidents.add_findings([finding()])
    incident_id = str(room.only()["id"])
    preview = room.incidents.preview_false_positive(incident_id, verdict="expected")
    assert preview is not None
    assert preview["learn_default"] is False
    assert "The Live model learns nothing from it." in preview["sentences"]
    answer = room.incidents.close(incident_id, "expected", "Our own scanner.")
    assert answer is not None
    alert = answer["alert"]
    assert (alert["status"], alert["verdict"], alert["learned"]) == ("CLOSED", "expected", None)
    assert answer["changed"]["closed"] == preview["closes"] == [incident_id]
    assert answer["changed"]["suppression"]["reason"].endswith("was expected")
    assert room.baseline.learned == {}
    room.incidents.add_findings([finding(at=60)])
    assert room.incidents.list() == []
    assert room.incidents.suppressions()[0]["hits"] == 1
    undone = room.incidents.undo(answer["undo"])
    assert undone is not None
    assert undone["hits"] == 1
    assert (room.only()["verdict"], room.only()["notes"]) == (None, [])
    assert room.incidents.suppressions() == []


def test_expected_flows_are_remembered_and_never_fitted(room: Room) -> None:
    incident_id = opened(room, flow("r-1", extreme=True))
    room.incidents.close(incident_id, "expected")
    assert kept(room) == {"r-1": ("expected", False)}


def test_what_was_expected_teaches_nothing_while_it_goes_on(room: Room) -> None:
    room.incidents.add_findings([finding()])
    room.incidents.close(str(room.only()["id"]), "expected")
    assert room.incidents.quarantined() == {SCANNER}
    room.pass_time(2 * 3600)
    assert room.incidents.quarantined() == set()
    room.incidents.add_findings([finding(at=2 * 3600)])
    assert room.incidents.list() == []
    assert room.incidents.quarantined() == {SCANNER}
    room.pass_time(2 * 3600)
    assert room.incidents.quarantined() == set()


def test_a_real_attacks_sources_teach_nothing_for_a_week(room: Room) -> None:
    room.incidents.add_findings([finding()])
    incident_id = str(room.only()["id"])
    answer = room.incidents.close(incident_id, "real")
    assert answer is not None
    assert (answer["alert"]["status"], answer["alert"]["verdict"]) == ("CLOSED", "real")
    assert answer["changed"]["suppression"] is None
    room.pass_time(6 * DAY_S)
    assert room.incidents.quarantined() == {SCANNER}
    room.pass_time(2 * DAY_S)
    assert room.incidents.quarantined() == set()
    # Without a verdict the quarantine ends with the incident.
    room.incidents.add_findings([finding(at=8 * DAY_S)])
    assert room.incidents.quarantined() == {SCANNER}
    room.incidents.close(str(room.only()["id"]))
    assert room.incidents.quarantined() == set()


def test_a_real_attack_is_told_again_and_kept_longest(tmp_path: Path) -> None:
    room = Room(tmp_path / "data", max_alerts=3)
    room.incidents.add_findings([finding(source="10.0.0.1")])
    real = str(room.only()["id"])
    room.incidents.close(real, "real")
    room.incidents.add_findings([finding(source="10.0.0.1", at=60)])
    assert room.only()["id"] != real
    for place in range(2, 6):
        room.incidents.add_findings([finding(source=f"10.0.0.{place}", at=60.0 * place)])
        room.incidents.close(str(room.incidents.list(src=f"10.0.0.{place}")[0]["id"]))
    assert room.incidents.get(real) is not None
    room.store.close()


def test_another_verdict_replaces_the_one_before(room: Room) -> None:
    incident_id = opened(room, flow("r-1", extreme=True))
    room.incidents.close(incident_id, "expected")
    assert len(room.incidents.suppressions()) == 1
    answer = room.incidents.close(incident_id, "real")
    assert answer is not None
    assert room.incidents.suppressions() == []
    assert kept(room) == {"r-1": ("real", False)}
    undone = room.incidents.undo(answer["undo"])
    assert undone is not None
    assert undone["alert"]["verdict"] == "expected"
    assert len(room.incidents.suppressions()) == 1
    assert kept(room) == {"r-1": ("expected", False)}


@pytest.mark.parametrize("back", ["undo", "reopen"])
def test_a_verdict_taken_back_takes_its_flows_along(room: Room, back: str) -> None:
    incident_id = opened(room, flow("r-1", extreme=True))
    answer = room.incidents.mark_false_positive(id=incident_id, learn=True)
    assert kept(room) != {}
    if back == "undo":
        room.incidents.undo(answer["undo"])
    else:
        room.incidents.reopen(incident_id)
    assert room.baseline.learned == {}
    assert kept(room) == {}


def test_a_preview_of_real_is_refused(room: Room) -> None:
    incident_id = opened(room, flow("r-1", extreme=True))
    with pytest.raises(UsageError, match="false or expected"):
        room.incidents.preview_false_positive(incident_id, verdict="real")


def test_the_document_is_bounded_and_forgets_the_oldest(tmp_path: Path) -> None:
    assert alerts_feedback.FLOWS_KEPT >= MOST
    room = Room(tmp_path / "data")
    document = room.store.document(alerts_feedback.NAME)
    rows = [
        {**told("false", f"inc-9{i}", [0.0]), "id": f"inc-9{i}/old"}
        for i in range(alerts_feedback.FLOWS_KEPT)
    ]
    document.put_many(rows)
    incident_id = opened(room, flow("r-1", extreme=True))
    room.incidents.close(incident_id, "real")
    assert document.count == alerts_feedback.FLOWS_KEPT
    assert document.records()[0]["id"] == "inc-91/old"
    assert document.records()[-1]["id"] == f"{incident_id}/r-1"
    room.store.close()


# --- trainings


def conversations(seed: int, clients: int) -> list[Frame]:
    """Small exchanges over HTTPS."""
    rng = np.random.default_rng(seed)
    frames: list[Frame] = []
    time_us = 0.0
    for i in range(clients):
        steps = [(time_us, "f", SYN, 0), (time_us + 900, "b", SYN | ACK, 0)]
        for k in range(int(rng.integers(2, 9))):
            time_us += float(rng.gamma(2, 20_000)) + 1_000
            size = int(rng.integers(1, 1_200))
            steps.append((time_us, "bf"[k % 2], PSH | ACK, size))
        steps += [(time_us + 500, "f", FIN | ACK, 0), (time_us + 900, "b", FIN | ACK, 0)]
        frames += talk("10.0.0.5", 30_000 + i, "10.0.0.1", 443, steps)
        time_us += 200_000
    return frames


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captures")
    for i in range(4):
        write_pcap(folder / f"day{i}.pcap", conversations(i, 80))
    return folder


@pytest.fixture(scope="module")
def shipped(captures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped") / "home"
    train("home", captures, folder)
    return folder


def told(verdict: str, incident: str, features: list[float], **changed: Any) -> dict[str, Any]:
    return {
        "id": f"{incident}/{len(features)}-{features[0]}",
        "incident": incident,
        "verdict": verdict,
        "learn": verdict == "false",
        "time": T0,
        "pattern": "ANOMALY",
        "features": features,
        **changed,
    }


def unlike(n: int, seed: int = 1) -> np.ndarray[Any, Any]:
    """(n, len(LIVE)) flows of a kind that the captures do not hold: uploads in full packets."""
    rng = np.random.default_rng(seed)
    frames: list[Frame] = []
    for i in range(n):
        steps = [(i * 1e6, "f", SYN, 0), (i * 1e6 + 900, "b", SYN | ACK, 0)]
        for k in range(60):
            steps.append((i * 1e6 + 2_000 + k * float(rng.uniform(50, 70)), "f", ACK, 1_400))
        frames += talk("10.0.0.9", 40_000 + i, "10.0.0.1", 443, steps)
    tracker = FlowTracker(capacity=1024, active_s=120, idle_s=120, quiet_s=5)
    tracker.track(Decoder().decode(batch_of(sorted(frames))))
    return matrix(tracker.flush().rows)


def data_dir(folder: Path, *records: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "feedback_store.json").write_text(json.dumps(records))
    return folder


def test_feedback_is_read_beside_a_running_program(room: Room) -> None:
    for place, verdict in enumerate(("false", "real", "expected", "false")):
        source = f"192.168.1.{place}"
        room.incidents.add_flows([flow(f"r-{place}", source=source, at=place, extreme=True)])
        incident_id = str(room.only()["id"])
        if verdict == "false":
            answer = room.incidents.mark_false_positive(id=incident_id, learn=True)
        else:
            room.incidents.close(incident_id, verdict)
    feedback = read(room.directory)
    assert (len(feedback.normal), len(feedback.attacks), feedback.incidents) == (2, 1, 2)
    assert feedback.normal[0].tolist() == flow("r-0")["features"]
    room.incidents.undo(answer["undo"])
    assert len(read(room.directory).normal) == 1


def test_feedback_of_another_version_or_damaged_is_left_out(tmp_path: Path) -> None:
    good = told("false", "inc-1", unlike(1)[0].tolist())
    folder = data_dir(
        tmp_path / "data",
        good,
        told("false", "inc-2", [1.0, 2.0]),
        {**good, "id": "x", "features": ["a"] * len(LIVE)},
        {"id": "y"},
    )
    assert len(read(folder).normal) == 1
    with pytest.raises(InputError, match="no false positive"):
        read(tmp_path / "nowhere")


def test_confirmed_flows_join_the_fit_and_are_told(
    captures: Path, shipped: Path, tmp_path: Path
) -> None:
    rows = unlike(40)
    feedback = Feedback(rows, unlike(3, seed=2) * 50.0, incidents=5)
    assert len(rows) == 40
    before = registry.load(shipped)
    out = tmp_path / "data" / "models" / "home"
    model = retrain("home", captures, feedback, shipped=shipped, serving=shipped, out=out)
    assert model.version == "2"
    manifest = registry.verify(out)
    assert manifest["training"]["feedback"] == {"flows": 40, "incidents": 5}
    assert manifest["training"]["flows"] == before.manifest["training"]["flows"] + 40
    assert manifest["training"]["held_out"] == before.manifest["training"]["held_out"]
    assert manifest["training"]["sources"][-1]["flows"] == 40
    card = (out / "README.md").read_text()
    assert "false positives that people confirmed on this network | 40" in card
    judged = manifest["figures"]["feedback"]
    assert judged["real_attacks_flagged"] == "3 of 3"
    still = int(judged["false_positives_still_flagged"].split()[0])
    odd = before.calibration.score(  # type: ignore[union-attr]
        before.look(before.transformed(rows[:, before.columns])).oddness
    )
    assert (odd < before.calibration.threshold(1.0, 0.01)).all()  # type: ignore[union-attr]
    assert still <= 4
    assert registry.load(shipped).version == "1"
    again = retrain("home", captures, feedback, shipped=shipped, serving=out, out=out)
    assert again.version == "3"


def seen_best(folder: Path) -> selftest.Attack:
    """The attack of some flows that the model of a folder objects to most."""
    model = registry.load(folder)
    assert model.calibration is not None
    line = model.calibration.threshold(1.0, 0.01)
    shares = {}
    for attack in selftest.attacks():
        z = model.transformed(matrix(attack.rows)[:, model.columns])
        odd = model.calibration.score(model.look(z).oddness) < line
        shares[attack.name] = float(odd.mean()) if len(attack) >= 10 else 0.0
    best = max(shares, key=lambda name: shares[name])
    assert shares[best] >= 0.9
    return next(one for one in selftest.attacks() if one.name == best)


def test_a_version_that_would_lose_an_attack_does_not_serve(
    captures: Path, shipped: Path, tmp_path: Path
) -> None:
    attack = seen_best(shipped)
    poison = np.tile(matrix(attack.rows), (3, 1))
    out = tmp_path / "models" / "home"
    with pytest.raises(ModelError, match="would no longer see"):
        retrain(
            "home",
            captures,
            Feedback(poison, poison[:0], incidents=1),
            shipped=shipped,
            serving=shipped,
            out=out,
        )
    assert not out.exists()
    assert list(out.parent.iterdir()) == []


def test_flows_of_one_packet_are_not_fitted(captures: Path, shipped: Path, tmp_path: Path) -> None:
    rows = unlike(10)
    rows[:5, LIVE.index("Total Fwd Packets")] = 1.0
    rows[:5, LIVE.index("Total Bwd Packets")] = 0.0
    model = train("home", captures, tmp_path / "out", Feedback(rows, rows[:0], 1))
    assert model.manifest["training"]["feedback"] == {"flows": 5, "incidents": 1}
    with pytest.raises(InputError, match="of a single packet"):
        train("home", captures, tmp_path / "none", Feedback(rows[:5], rows[:0], 1))
    assert not (tmp_path / "none").exists()


def test_a_retrained_model_serves_from_the_data_directory(shipped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    plain = load_settings({"DATA_DIR": str(folder)}, {})
    assert plain.path("HOME_MODEL_PATH") == ROOT / "ml" / "models" / "home"
    retrained = folder / "models" / "home"
    retrained.parent.mkdir(parents=True)
    shipped.rename(retrained)
    try:
        settings = load_settings({"DATA_DIR": str(folder)}, {})
        assert settings.path("HOME_MODEL_PATH") == retrained
        assert settings.path("INDUSTRIAL_MODEL_PATH") == ROOT / "ml" / "models" / "industrial"
        named = load_settings({"DATA_DIR": str(folder), "HOME_MODEL_PATH": "/elsewhere"}, {})
        assert named.path("HOME_MODEL_PATH") == Path("/elsewhere")
    finally:
        retrained.rename(shipped)


def command(*arguments: object, code: int) -> str:
    done = subprocess.run(
        [sys.executable, "app.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_the_command_trains_or_says_why_not(captures: Path, tmp_path: Path) -> None:
    arguments = ("train", "home", "--with-feedback", "--data", captures, "--data-dir")
    said = command(*arguments, tmp_path / "empty", code=InputError.exit_code)
    assert "no false positive was marked" in said
    rows = [told("false", "inc-1", row.tolist()) for row in unlike(4)]
    folder = data_dir(tmp_path / "data", *rows)
    said = command(*arguments, folder, code=0)
    assert "with 4 flows of 1 false positive, in" in said
    assert "4 flows of feedback" in command("models", "list", "--data-dir", folder, code=0)
    attack = seen_best(ROOT / "ml" / "models" / "home")
    poison = [told("false", "inc-2", row) for row in matrix(attack.rows).tolist() * 20]
    data_dir(folder, *rows, *({**one, "id": str(i)} for i, one in enumerate(poison)))
    before = registry.load(folder / "models" / "home").version
    said = command(*arguments, folder, code=ModelError.exit_code)
    assert "would no longer see" in said
    assert registry.load(folder / "models" / "home").version == before


def test_all_models_each_say_why_they_were_not_trained(captures: Path, tmp_path: Path) -> None:
    arguments = ("train", "all", "--with-feedback", "--data", captures, "--data-dir", tmp_path)
    said = command(*arguments, code=InputError.exit_code).splitlines()
    assert [line.partition(":")[0] for line in said] == ["home", "industrial", "reduced", "live"]
    assert "0 of 500" in said[-1]


def test_models_use_shipped_takes_a_retrained_one_away(shipped: Path, tmp_path: Path) -> None:
    retrained = tmp_path / "data" / "models" / "home"
    shutil.copytree(shipped, retrained)
    assert "version 1" in command("models", "list", "--data-dir", tmp_path / "data", code=0)
    said = command("models", "use", "shipped", "--data-dir", tmp_path / "data", code=0)
    assert "home: the shipped version serves from the next start." in said
    assert not retrained.exists()
    said = command("models", "use", "shipped", "--data-dir", tmp_path / "data", code=0)
    assert "serve already" in said
    said = command("models", "verify", 3, "--data-dir", tmp_path / "data", code=2)
    assert "`models use` alone" in said


def test_a_retrained_reduced_model_goes_before_the_shipped_one(tmp_path: Path) -> None:
    assert registry.reduced_folder(tmp_path) == registry.REDUCED_FOLDER
    retrained = tmp_path / "models" / "reduced"
    shutil.copytree(registry.REDUCED_FOLDER, retrained)
    manifest = json.loads((retrained / "manifest.json").read_text())
    manifest["training"]["feedback"] = {"flows": 7, "incidents": 1}
    (retrained / "manifest.json").write_text(json.dumps(manifest))
    assert registry.reduced_folder(tmp_path) == retrained
    assert "7 flows of feedback" in command("models", "list", "--data-dir", tmp_path, code=0)
    (retrained / "model.npz").write_bytes(b"damaged")
    said = command("models", "verify", "--data-dir", tmp_path, code=ModelError.exit_code)
    assert "sha256 differs" in said


def test_retrain_sh_hands_over_to_run_py(tmp_path: Path) -> None:
    """From anywhere, with nothing installed: an interpreter that only tells what it is given."""
    teller = tmp_path / "teller"
    teller.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    teller.chmod(0o755)
    script = ROOT / "training" / "retrain.sh"

    def run(*arguments: str) -> list[str]:
        done = subprocess.run(
            ["sh", str(script), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHON": str(teller)},
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    program = str(ROOT / "run.py")
    assert run() == [program, "train", "all", "--with-feedback"]
    assert run("home", "--data", "my captures") == [
        *(program, "train", "home", "--with-feedback", "--data", "my captures")
    ]
    assert run("--data-dir", "d")[2:] == ["all", "--with-feedback", "--data-dir", "d"]
    assert "retrain.sh" in " ".join(run("--help"))
    assert os.access(script, os.X_OK)


def test_a_retrained_model_that_can_not_be_read_leaves_the_shipped_one(
    shipped: Path, tmp_path: Path
) -> None:
    retrained = tmp_path / "data" / "models" / "home"
    shutil.copytree(shipped, retrained)
    (retrained / "model.npz").write_bytes(b"torn")
    predictor = Predictor(load_settings({"DATA_DIR": str(tmp_path / "data")}, {}))
    (notice,) = predictor.notices
    assert notice.endswith("The shipped one is used.")
    assert [model.name for model in predictor.models] == ["home", "industrial"]
    predictor.close()

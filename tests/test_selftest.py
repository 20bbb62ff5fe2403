from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ml.selftest
from addresses import address_text
from alerts.record import PATTERNS
from batches import FLOW, EndReason
from errors import ModelError
from features import LIVE, matrix
from ml.selftest import FLOWS, FOLDER, MOST, attacks

ROOT = Path(__file__).resolve().parent.parent
LAB = ROOT.parent / "shared" / "data" / "lab"


def test_the_attacks_are_whole_flows_of_the_attacker() -> None:
    found = attacks()
    assert len(found) == len({one.name for one in found}) == 23
    for one in found:
        assert 1 <= len(one) <= MOST
        assert one.rows.dtype == FLOW
        assert one.pattern in PATTERNS
        assert np.isfinite(matrix(one.rows)).all()
        assert matrix(one.rows).shape == (len(one), len(LIVE))
        assert not np.isin(
            one.rows["end_reason"], (int(EndReason.ACTIVE), int(EndReason.QUIET))
        ).any()
        assert (np.diff(one.rows["first_ns"]) >= 0).all()
    guesses = next(one for one in found if one.name == "ssh_brute")
    assert {address_text(0, int(lo), 4) for lo in guesses.rows["src_lo"]} == {"10.77.0.66"}
    assert set(guesses.rows["dst_port"].tolist()) == {22}
    spoofed = next(one for one in found if one.name == "syn_flood_rand")
    assert len(set(spoofed.rows["src_lo"].tolist())) == len(spoofed)


def test_nobody_changes_them_by_accident() -> None:
    with pytest.raises(ValueError, match="read-only"):
        attacks()[0].rows["dst_port"] = 1


def test_files_that_do_not_fit_are_refused_in_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "selftest"
    shutil.copytree(FOLDER, folder)
    (folder / FLOWS).write_bytes((folder / FLOWS).read_bytes()[:-9] + b"something")
    with pytest.raises(ModelError, match="not the file its manifest describes"):
        ml.selftest._load(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["attacks"][0]["title"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shutil.copy(FOLDER / FLOWS, folder / FLOWS)
    with pytest.raises(ModelError, match="damaged or of another version"):
        ml.selftest._load(folder)
    (folder / FLOWS).unlink()
    with pytest.raises(ModelError, match="can't be read"):
        ml.selftest._load(folder)


def test_a_table_of_another_version_is_refused(tmp_path: Path) -> None:
    """Fields read at the wrong place would be flows of nobody."""
    one = next(one for one in attacks() if one.name == "slowloris")
    ml.selftest.write(tmp_path, (one,), source={})
    assert len(ml.selftest._load(tmp_path)) == 1
    np.savez(tmp_path / FLOWS, slowloris=np.zeros(3, FLOW[["id", "first_ns"]]))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["sha256"] = hashlib.sha256((tmp_path / FLOWS).read_bytes()).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="another version"):
        ml.selftest._load(tmp_path)


@pytest.mark.skipif(not LAB.exists(), reason="needs the lab recording beside the repository")
def test_the_script_makes_the_bundled_files(tmp_path: Path) -> None:
    script = ROOT / "training" / "testbed" / "cut_selftest.py"
    capture, labels = LAB / "home_lab.pcap.gz", LAB / "home_lab.labels.tsv"
    subprocess.run(
        [sys.executable, script, capture, labels, tmp_path], check=True, stdout=subprocess.DEVNULL
    )
    made = ml.selftest._load(tmp_path)
    assert [(one.name, one.title, one.pattern) for one in made] == [
        (one.name, one.title, one.pattern) for one in attacks()
    ]
    for one, bundled in zip(made, attacks(), strict=True):
        assert np.array_equal(one.rows, bundled.rows)

"""run.py on small checkouts: the environment it makes, what it redoes, what it hands over."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow  # each environment takes some seconds
APP = """
import json, os, sys
print(json.dumps({"arguments": sys.argv[1:], "prefix": sys.prefix, "folder": os.getcwd()}))
sys.exit(7)
"""


def started(
    checkout: Path, *arguments: str, folder: Path | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    """run.py in a cleaned environment, from another folder."""
    return subprocess.run(
        [sys.executable, str(checkout / "run.py"), *arguments],
        cwd=folder or checkout.parent,
        env={"PATH": os.environ["PATH"], "HOME": str(checkout.parent / "home"), **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def checkout_in(folder: Path) -> Path:
    """A checkout that needs no package, with an app that tells how it was started."""
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "run.py", folder)
    (folder / "requirements.txt").write_text("", encoding="utf-8")
    (folder / "requirements-dev.txt").write_text("", encoding="utf-8")
    (folder / "app.py").write_text(APP, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def first(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A checkout after its first start, and what that said."""
    checkout = checkout_in(tmp_path_factory.mktemp("run") / "checkout with a space")
    return checkout, started(checkout, "check", "--port", "0")


@pytest.fixture
def prepared(first: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> Path:
    """A copy of that checkout, its environment included; moved, so to say."""
    return shutil.copytree(first[0], tmp_path / "moved", symlinks=True)


def test_first_start_makes_the_environment_and_hands_over(
    first: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    checkout, done = first
    assert done.returncode == 7, done.stderr
    assert json.loads(done.stdout) == {
        "arguments": ["check", "--port", "0"],
        "prefix": str(checkout / ".venv"),
        "folder": str(checkout.parent),
    }
    assert done.stderr.startswith(f"Making the environment in {checkout / '.venv'}\n")
    assert "Installing requirements.txt" in done.stderr
    if sys.platform == "linux":
        assert not (checkout / ".venv" / "bin" / "python").is_symlink()


def test_next_start_is_silent_also_after_a_move(prepared: Path, tmp_path: Path) -> None:
    done = started(prepared, "check", folder=tmp_path)
    assert (done.returncode, done.stderr) == (7, "")
    told = json.loads(done.stdout)
    assert (told["prefix"], told["folder"]) == (str(prepared / ".venv"), str(tmp_path))


def test_changed_requirements_are_installed_again(prepared: Path) -> None:
    (prepared / "requirements.txt").write_text("# changed\n", encoding="utf-8")
    done = started(prepared)
    assert "Making" not in done.stderr
    assert "Installing requirements.txt" in done.stderr
    assert started(prepared).stderr == ""


def test_interrupted_installation_is_done_anew(prepared: Path) -> None:
    (prepared / ".venv" / "installing").touch()
    done = started(prepared)
    assert done.returncode == 7
    assert done.stderr.startswith("The last installation was interrupted and is done anew.\n")
    assert not (prepared / ".venv" / "installing").exists()


def test_package_without_a_hash_is_refused_and_nothing_starts(prepared: Path) -> None:
    (prepared / "requirements.txt").write_text("flask==3.1.3\n", encoding="utf-8")
    done = started(prepared)
    assert (done.returncode, done.stdout) == (1, "")
    assert "hash" in done.stderr
    assert "requirements.txt could not be installed" in done.stderr
    assert "could not be installed" in started(prepared).stderr, "it is tried again"


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of folders are POSIX'")
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write anywhere")
def test_checkout_that_can_not_be_written_gets_its_environment_elsewhere(tmp_path: Path) -> None:
    checkout = checkout_in(tmp_path / "checkout")
    checkout.chmod(0o500)
    done = started(checkout)
    assert done.returncode == 7
    prefix = Path(json.loads(done.stdout)["prefix"])
    assert prefix.is_relative_to(tmp_path / "home" / ".cache" / "secureflux")
    assert started(checkout).stderr == ""


def test_python_without_venv_is_told_what_to_install(tmp_path: Path) -> None:
    checkout = checkout_in(tmp_path / "checkout")
    # What Debian's python3 without python3-venv does: the module is there and refuses.
    (tmp_path / "crippled").mkdir()
    (tmp_path / "crippled" / "venv.py").write_text("import sys; sys.exit(1)", encoding="utf-8")
    done = started(checkout, PYTHONPATH=str(tmp_path / "crippled"))
    assert done.returncode == 1
    assert "can't make virtual environments" in done.stderr
    assert "Install" in done.stderr
    assert not (checkout / ".venv").exists()


def test_environment_whose_python_is_gone_is_made_anew_also_without_ensurepip(
    prepared: Path, tmp_path: Path
) -> None:
    (prepared / ".venv" / "bin" / "python").unlink()
    (tmp_path / "crippled").mkdir()
    (tmp_path / "crippled" / "venv.py").write_text(
        "import runpy, sys\n"
        "if '--without-pip' not in sys.argv: sys.exit('ensurepip is not available')\n"
        f"sys.path.remove({str(tmp_path / 'crippled')!r})\n"
        "runpy.run_module('venv', run_name='__main__', alter_sys=True)\n",
        encoding="utf-8",
    )
    done = started(prepared, PYTHONPATH=str(tmp_path / "crippled"))
    assert done.returncode == 7, done.stderr
    assert "Making the environment" in done.stderr
    assert "Installed 0 packages" in done.stderr
    assert not list((prepared / ".venv").glob("lib/*/site-packages/pip"))


def test_old_python_is_told_in_a_sentence() -> None:
    source = (ROOT / "run.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    pretend = (
        "import sys, runpy; sys.version_info = (3, 9, 2, 'final', 0); "
        f"runpy.run_path({str(ROOT / 'run.py')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", pretend], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("SecureFlux needs Python 3.11 or newer; this is 3.9 (")
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def checked(
    first: tuple[Path, subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A checkout whose environment finds the tools of the one that runs this test."""
    prepared = tmp_path_factory.mktemp("checked") / "checkout"
    shutil.copytree(first[0], prepared, symlinks=True)
    tools = sysconfig.get_paths()["purelib"]
    [packages] = (prepared / ".venv").glob("[lL]ib/**/site-packages")
    (packages / "tools.pth").write_text(tools, encoding="utf-8")
    digests = json.loads((prepared / ".venv" / "installed.json").read_text(encoding="utf-8"))
    digests["requirements-dev.txt"] = digests["requirements.txt"]
    (prepared / ".venv" / "installed.json").write_text(json.dumps(digests), encoding="utf-8")
    (prepared / "app.py").unlink()
    # run.py itself is checked with the repository's own rules, not with the tools' defaults.
    (prepared / "pyproject.toml").write_text(
        '[tool.ruff]\nextend-exclude = ["run.py"]\n[tool.mypy]\nexclude = ["run.py", ".venv"]\n'
        '[tool.pytest.ini_options]\naddopts = "-q"\nmarkers = ["slow: s"]\n',
        encoding="utf-8",
    )
    (prepared / "tests").mkdir()
    (prepared / "tests" / "test_one.py").write_text(
        "import pytest\n\n\ndef test_good() -> None:\n    pass\n\n\n"
        "@pytest.mark.slow\ndef test_slow() -> None:\n    pass\n",
        encoding="utf-8",
    )
    return prepared


def test_checks_all_pass(checked: Path) -> None:
    done = started(checked, "test")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    table = [line.rsplit(maxsplit=3) for line in lines[-5:-1]]
    assert [(name, state) for name, state, _, _ in table] == [
        ("ruff check", "ok"),
        ("ruff format", "ok"),
        ("mypy --strict", "ok"),
        ("pytest", "ok"),
    ]
    assert lines[-1].startswith("2 passed in ")


def test_every_failure_counts_and_nothing_is_left_out(checked: Path) -> None:
    wrong = checked / "wrong.py"
    wrong.write_text("import os\nx: int = 'a'\ny  = 1\n", encoding="utf-8")
    done = started(checked, "test", "--fast")
    wrong.unlink()
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert [line.split()[-3] for line in lines[-5:-1]] == ["FAILED", "FAILED", "FAILED", "ok"]
    assert "F401" in done.stdout
    assert "Incompatible types" in done.stdout
    assert lines[-1].startswith("1 passed, 1 deselected"), "--fast leaves the slow one out"


def test_failing_test_fails_the_run_and_pytest_gets_its_arguments(checked: Path) -> None:
    bad = checked / "tests" / "test_two.py"
    bad.write_text("def test_bad() -> None:\n    assert [] == [1]\n", encoding="utf-8")
    done = started(checked, "test", "--", "-k", "slow or bad")
    bad.unlink()
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("1 failed, 1 passed, 1 deselected")


def test_unknown_option_of_test_is_a_wrong_usage(checked: Path) -> None:
    done = started(checked, "test", "-k", "x")
    assert done.returncode == 2
    assert "after --" in done.stderr

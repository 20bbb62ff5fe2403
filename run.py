#!/usr/bin/env python3
"""Makes the environment beside itself, installs what is needed, and hands over to app.py.

    python3 run.py [COMMAND ...]                          see: python3 run.py --help
    python3 run.py test [--fast|--soak] [-- PYTEST ARGS]  all checks

Needs nothing but Python 3.11 or newer. The environment is `.venv`; a checkout that can't be
written to gets one in the user's cache folder. Packages are installed once, and again when
requirements.txt has changed; what was interrupted is done anew.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

# Everything up to here, and the syntax of the whole file, also suits a Python too old for us.
if sys.version_info < (3, 11):  # noqa: UP036 (this is where older ones are told)
    sys.exit(
        "SecureFlux needs Python 3.11 or newer; this is {}.{} ({}). Start it with a newer one, "
        "for example: python3.11 run.py".format(*sys.version_info[:2], sys.executable)
    )

from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

__all__ = ["Environment", "main"]

ROOT = Path(__file__).resolve().parent
WINDOWS = sys.platform == "win32"
LINE_EVERY_S = 10.0  # progress where there is no terminal
TEST_TIMEOUT_S = 300  # a test that hangs longer is stopped and fails
NOT_MADE = (
    "see pip's words above. All packages are ready-made for Python 3.11 to 3.13 on Linux (x86-64, "
    "arm64), macOS (Apple silicon) and Windows (x86-64); elsewhere one may be missing. The same "
    "command tries again."
)
FAST = "not slow and not live and not browser and not soak"


class StepError(Exception):
    """A step that went wrong, in a sentence."""


def main(arguments: Sequence[str]) -> int:
    """Run the command in the environment; its exit code, where it does not replace us."""
    command = arguments[0] if arguments else "serve"
    try:
        if command == "test" and not {"-h", "--help"} & set(arguments):
            return run_checks(arguments[1:])
        environment = Environment.prepared("requirements.txt")
        if command == "bench":
            try:
                environment.install("requirements-bench.txt")
            except StepError as failure:
                say(f"{failure}\nThe comparison goes on without that peer.")
        if command == "test":
            print(__doc__)
            return 0
        return environment.run_app(arguments)
    except (StepError, OSError) as failure:
        say(str(failure))
        return 1
    except KeyboardInterrupt:
        say("Stopped. The same command goes on from here.")
        return 1


class Environment:
    """The virtual environment and what is installed in it.

    `installed.json` in it has the sha256 of each requirements file that is installed whole;
    `installing` stands there while pip works, so that a half installed one is known and redone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if WINDOWS else "bin/python")
        self._stamp = folder / "installed.json"
        self._installing = folder / "installing"

    @classmethod
    def prepared(cls, *requirements: str) -> "Environment":
        """The environment with these requirements files installed."""
        environment = cls(environment_folder())
        with one_at_a_time(environment.folder):
            if environment._installing.exists():
                say("The last installation was interrupted and is done anew.")
                environment.remove()
            if not environment.works():
                environment.remove()
                environment.make()
            for name in requirements:
                environment.install(name)
        return environment

    def works(self) -> bool:
        """The interpreter starts: its base may be gone or have changed since."""
        try:
            check = "import sys; sys.exit(sys.version_info < (3, 11))"
            command = [str(self.python), "-I", "-S", "-c", check]
            return subprocess.run(command, capture_output=True).returncode == 0
        except OSError:
            return False

    def remove(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def make(self) -> None:
        """A virtual environment, with pip in it where this Python brings one."""
        say(f"Making the environment in {self.folder}")
        # A copy of the interpreter can be given capture rights (setcap) that the system's
        # should not have. macOS' framework builds can't be copied.
        copies = ["--copies"] if sys.platform == "linux" else []
        whole = [sys.executable, "-m", "venv", *copies, str(self.folder)]
        if subprocess.run(whole, capture_output=True).returncode == 0:
            return
        # Debian ships venv without ensurepip; a pip of the system can serve in its place.
        self.remove()
        without = [sys.executable, "-m", "venv", "--without-pip", *copies, str(self.folder)]
        done = subprocess.run(without, capture_output=True, text=True)
        if done.returncode == 0 and self.pip(["--version"]) is not None:
            return
        self.remove()
        version = "{}.{}".format(*sys.version_info[:2])
        if shutil.which("apt-get"):
            remedy = f"Install it with: sudo apt-get install python{version}-venv"
        else:
            remedy = f"Install your system's package for venv and pip of Python {version}."
        detail = done.stderr.strip()
        raise StepError(f"This Python can't make virtual environments. {remedy}\n{detail}".strip())

    def pip(self, arguments: Sequence[str]) -> list[str] | None:
        """The command that runs pip for this environment, None if there is no pip."""
        own = [str(self.python), "-m", "pip"]
        lent = [sys.executable, "-m", "pip", "--python", str(self.python)]
        for command in (own, lent):
            if subprocess.run([*command, "--version"], capture_output=True).returncode == 0:
                return [*command, *arguments]
        return None

    def install(self, name: str) -> None:
        """Install a hash-locked requirements file, unless just that is installed."""
        content = (ROOT / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        stamp = self._installed()
        if stamp.get(name) == digest:
            return
        self._installing.touch()
        command = self.pip(
            [
                *("install", "--require-hashes", "--no-input", "--progress-bar", "off"),
                *("--disable-pip-version-check", "--only-binary=:all:", "-r", str(ROOT / name)),
            ]
        )
        if command is None:
            raise StepError(
                f"There is no pip in {self.folder}. Remove that folder and start again."
            )
        began = time.monotonic()
        packages = content.count(b"==")
        output = follow_pip(command, packages, f"Installing {name}")
        if output:
            # pip takes back what it began when it fails in an orderly way.
            self._installing.unlink()
            raise StepError(
                "\n".join([*output[-15:], f"{name} could not be installed: {NOT_MADE}"])
            )
        self._stamp.write_text(json.dumps({**stamp, name: digest}), encoding="utf-8")
        self._installing.unlink()
        say(f"Installed {packages} packages in {time.monotonic() - began:.0f} s")

    def run_app(self, arguments: Sequence[str]) -> int:
        """Become app.py; on Windows, where that would detach us from the console, wait for it."""
        command = [str(self.python), str(ROOT / "app.py"), *arguments]
        if not WINDOWS:
            sys.stdout.flush()
            os.execv(command[0], command)
        process = subprocess.Popen(command)
        while True:
            # Ctrl-C reaches the program too, which ends in its own way.
            with contextlib.suppress(KeyboardInterrupt):
                return process.wait()

    def _installed(self) -> dict[str, str]:
        try:
            stamp = json.loads(self._stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}


def environment_folder() -> Path:
    """`.venv` beside this file, or a folder of the user's where that can't be written."""
    own = ROOT / ".venv"
    if os.access(own if own.exists() else ROOT, os.W_OK):
        return own
    cache = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    base = Path(cache) if cache else Path("~/.cache").expanduser()
    return base / "secureflux" / f"venv-{hashlib.sha256(bytes(ROOT)).hexdigest()[:12]}"


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold others back that want to install in the same folder."""
    if WINDOWS:
        yield
        return
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(folder.name + ".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another start that is installing")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def follow_pip(command: Sequence[str], packages: int, title: str) -> list[str]:
    """Run pip and tell how far it is; its output if it failed, nothing if it did not."""
    environ = {**os.environ, "PIP_USER": "0", "PYTHONUNBUFFERED": "1"}
    environ.pop("PYTHONHOME", None)
    terminal = sys.stderr.isatty()
    output: list[str] = []
    collected = 0
    told = time.monotonic()
    say(f"{title} ({packages} packages)")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line.rstrip())
            collected += line.startswith(("Collecting ", "Requirement already satisfied"))
            if "Installing collected" in line:
                now_at = f"{title}: unpacking"
            else:
                now_at = f"{title}: {min(collected, packages)} of {packages} fetched"
            if terminal:
                sys.stderr.write(f"\r{now_at:<78}")
                sys.stderr.flush()
            elif time.monotonic() - told > LINE_EVERY_S:
                told = time.monotonic()
                say(now_at)
    if terminal:
        sys.stderr.write("\r" + " " * 78 + "\r")
    return output if process.returncode else []


def run_checks(arguments: Sequence[str]) -> int:
    """All checks, each to its end; 1 if any failed. The last line is pytest's summary."""
    own, pytest = split_arguments(arguments)
    environment = Environment.prepared("requirements.txt", "requirements-dev.txt")
    python = str(environment.python)
    environ = dict(os.environ)
    if not os.access(ROOT, os.W_OK):
        environ["RUFF_CACHE_DIR"] = str(environment.folder / "ruff")
        environ["MYPY_CACHE_DIR"] = str(environment.folder / "mypy")
        pytest = ["-p", "no:cacheprovider", *pytest]
    selected = {"": "not soak", "--fast": FAST, "--soak": ""}[own]
    checks: list[tuple[str, list[str], Callable[..., tuple[int, str]]]] = [
        ("ruff check", ["ruff", "check", "."], run_quietly),
        ("ruff format", ["ruff", "format", "--check", "."], run_quietly),
        ("mypy --strict", ["mypy", "--strict", "."], run_quietly),
        ("pytest", ["pytest", "-m", selected, f"--timeout={TEST_TIMEOUT_S}", *pytest], run_shown),
    ]
    lines = []
    worst = 0
    summary = ""
    for name, module, run in checks:
        began = time.monotonic()
        code, summary = run([python, "-m", *module], environ)
        state = "ok" if code == 0 else "FAILED"
        lines.append(f"{name:<14} {state:<7} {time.monotonic() - began:6.1f} s")
        if run is run_quietly:
            print(lines[-1], flush=True)
        worst = max(worst, min(code, 1) if code >= 0 else 1)
    print("\n".join(["", *lines, summary]), flush=True)
    return worst


def split_arguments(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Our one option, and what follows `--`."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    own = list(arguments[:place])
    if len(own) > 1 or not set(own) <= {"--fast", "--soak"}:
        usage(
            f"test does not know {' '.join(own)}; it takes --fast or --soak, and after -- what "
            "pytest takes."
        )
    return (own[0] if own else ""), list(arguments[place + 1 :])


def run_quietly(command: Sequence[str], environ: dict[str, str]) -> tuple[int, str]:
    """Run a check whose output matters only when it fails: exit code and its last line."""
    done = subprocess.run(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print(done.stdout, end="", flush=True)
    return done.returncode, ""


def run_shown(command: Sequence[str], environ: dict[str, str]) -> tuple[int, str]:
    """Run a check line by line on our output, all but its last line: exit code and that line."""
    last = ""
    color = ["--color=yes"] if sys.stdout.isatty() else []
    with subprocess.Popen(
        [*command, *color],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                if last:
                    print(last, flush=True)
                last = line.rstrip("\n")
    return process.returncode, last


def usage(sentence: str) -> NoReturn:
    say(sentence)
    sys.exit(2)


def say(sentence: str) -> None:
    """Tell the person who started us; standard output stays free for results."""
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

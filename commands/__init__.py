"""The command line: which commands there are, and what all of them share."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from errors import AppError
from settings import Settings, load_settings
from version import VERSION

__all__ = ["main"]

Command = Callable[[argparse.Namespace, Settings], int]


_SHARED_VALUES: Final = ("--data-dir", "--config")
_SHARED_FLAGS: Final = ("--json-logs", "-v", "--verbose")


def main(arguments: Sequence[str]) -> int:
    """Run a command; its exit code (0 done, 1 failed, 2 usage, 3 nothing could be read)."""
    parser = _parser()
    options = parser.parse_args(_with_command(arguments))
    _log_to_stderr(as_json=options.json_logs, verbose=options.verbose)
    signal.signal(signal.SIGTERM, _leave)
    try:
        return _run(options)
    except AppError as error:
        print(f"secureflux: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except BrokenPipeError:
        # The reader of our results went away (`| head`): nothing is wrong with us.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:  # no file a person named: a fault of ours, with its place
            raise
        print(f"secureflux: {error.filename}: {error.strerror}.", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130


def _leave(signal_number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does: what is half made is taken away, what is known is written."""
    raise SystemExit(128 + signal_number)


def _with_command(arguments: Sequence[str]) -> list[str]:
    """The arguments with `serve` in front where no command is named."""
    place = 0
    while place < len(arguments) and arguments[place].startswith("-"):
        option = arguments[place].partition("=")[0]
        if option in ("-h", "--help", "--version"):
            return list(arguments)
        if option not in _SHARED_VALUES and option not in _SHARED_FLAGS:
            return ["serve", *arguments]  # an option of its own
        place += 2 if arguments[place] in _SHARED_VALUES else 1
    return list(arguments) if place < len(arguments) else ["serve", *arguments]


def _run(options: argparse.Namespace) -> int:
    given = {
        name: getattr(options, name.lower(), None)
        for name in ("INTERFACE", "FILTER", "HOST", "PORT", "DATA_DIR")
    }
    extra = {"config": Path(options.config)} if options.config else {}
    settings = load_settings(given, os.environ, **extra)
    command: Command = options.run
    return command(options, settings)


def _parser() -> argparse.ArgumentParser:
    # Imported here, so that `--help` of one command does not pay for the rooms of another.
    from commands import bench, check, flows, models, serve

    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    shared.add_argument("--data-dir", metavar="D", help="where all state lives (default data/)")
    shared.add_argument("--config", metavar="FILE", help="settings file (default settings.toml)")
    shared.add_argument("--json-logs", action="store_true", help="log as JSON lines")
    shared.add_argument("-v", "--verbose", action="store_true", help="log more")
    parser = argparse.ArgumentParser(
        prog="secureflux",
        description="Watches a network and tells in plain words what is not normal there.",
        parents=[shared],
    )
    parser.set_defaults(data_dir=None, config=None, json_logs=False, verbose=False)
    parser.add_argument("--version", action="version", version=f"SecureFlux {VERSION}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for room in (serve, check, flows, models, bench):
        room.add_commands(commands, [shared])
    return parser


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "room": record.name.removeprefix("secureflux."),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _log_to_stderr(*, as_json: bool, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    text.converter = time.localtime
    handler.setFormatter(_JsonLines() if as_json else text)
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    # Their start-up lines and per-request lines say nothing that a person needs.
    for noisy in ("scapy", "numba", "werkzeug", "waitress"):
        logging.getLogger(noisy).setLevel(logging.ERROR)

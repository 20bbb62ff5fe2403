"""Every setting once: name, type, default, unit, range and help, in one table.

A value comes from the first place that names it:

1. an argument of the command line (`--port 8080`),
2. the environment (`SECUREFLUX_PORT=8080`; always upper case),
3. what the page saved (`settings.json` in the data directory),
4. the settings file (`settings.toml`: `PORT = 8080`),
5. the default below.

A name that does not exist or a value that is not allowed stops the start with a SettingError
that says which, where it stands and what is allowed.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, cast, get_type_hints

from errors import SettingError
from setting_kinds import (
    About,
    Network,
    Value,
    a_host,
    a_number,
    a_path,
    a_text,
    names,
    networks,
    one_line,
)

__all__ = [
    "DEFAULT_CONFIG",
    "ENVIRONMENT_PREFIX",
    "ROOT",
    "Settings",
    "load_settings",
    "markdown",
    "table",
]

ROOT: Final = Path(__file__).resolve().parent
"""The folder of the program; relative defaults stand against it, whatever the current folder."""

DEFAULT_CONFIG: Final = ROOT / "settings.toml"
ENVIRONMENT_PREFIX: Final = "SECUREFLUX_"

_LONGEST_VALUE_SHOWN: Final = 60  # characters of a wrong value that its message repeats


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force. Made by load_settings; `Settings()` is all defaults.

    >>> Settings().PORT
    5000
    """

    INTERFACE: Annotated[
        str,
        a_text(
            "The interface to watch, by the name that `check` lists, or several: `eth0, wlan0`. "
            "Empty: the one with the default route.",
            "a name, or a comma list of names",
            names,
        ),
    ] = ""
    FILTER: Annotated[
        str,
        a_text(
            "Only packets that match this BPF filter are read, for example `not port 22`. "
            "Empty: all.",
            "a BPF expression on one line",
            one_line,
        ),
    ] = ""
    SNAPLEN: Annotated[
        int,
        a_number(
            "How much of each packet is kept. Lengths come from the headers, so nothing is "
            "counted short.",
            *(128, 65535, "bytes"),
        ),
    ] = 512
    LOCAL_NETWORKS: Annotated[
        str,
        a_text(
            "What is inside, for example `192.168.1.0/24, fd00::/8`. Empty: the interfaces' own "
            "prefixes and the private ranges.",
            "a comma list of addresses or networks in CIDR form",
            networks,
        ),
    ] = ""
    HOST: Annotated[
        str,
        a_text(
            "The loopback address the pages are served on; others are refused until there is a "
            "password.",
            "an address or a host name",
            a_host,
            page=False,
        ),
    ] = "127.0.0.1"
    PORT: Annotated[
        int,
        a_number(
            "The port the pages are served on. 0: any free one, told at the start.",
            *(0, 65535),
            page=False,
        ),
    ] = 5000
    DATA_DIR: Annotated[
        str,
        a_path(
            "The folder of everything that is learned and decided. Another folder also moves "
            "the defaults of LIVE_MODEL_PATH and log_file.",
            page=False,
        ),
    ] = "data"
    HOME_MODEL_PATH: Annotated[
        str,
        a_path(
            "The home model. One trained again with feedback, in `models/home` of DATA_DIR, "
            "serves instead of the shipped one."
        ),
    ] = "ml/models/home/"
    INDUSTRIAL_MODEL_PATH: Annotated[
        str, a_path("The industrial model; as the home model, from `models/industrial`.")
    ] = "ml/models/industrial/"
    LIVE_MODEL_PATH: Annotated[str, a_path("The model learned from this network.")] = (
        "ml/models/live/"
    )
    MAX_FLOWS: Annotated[
        int,
        a_number(
            "Rows of the table of flows that have not ended. When it is full, the flow that has "
            "been silent longest ends.",
            *(1024, 4_194_304, "flows"),
        ),
    ] = 131_072
    ACTIVE_TIMEOUT_SECONDS: Annotated[
        float, a_number("A flow that lives longer is cut and goes on as a new one.", 1, 86_400, "s")
    ] = 120.0
    IDLE_TIMEOUT_SECONDS: Annotated[
        float, a_number("A flow that is silent longer has ended.", 1, 86_400, "s")
    ] = 120.0
    QUIET_SECONDS: Annotated[
        float,
        a_number("A flow that is silent longer is judged before it has ended.", 0.5, 3600, "s"),
    ] = 5.0
    ALPHA: Annotated[
        float,
        a_number("The share of normal flows that the models together may object to.", 0.0001, 0.2),
    ] = 0.01
    WEIGHT_LIVE: Annotated[
        float, a_number("The part of ALPHA that the model of this network may spend.", 0.001, 1)
    ] = 0.8
    WEIGHT_HOME: Annotated[
        float, a_number("The part of ALPHA that the home model may spend.", 0.001, 1)
    ] = 0.1
    WEIGHT_INDUSTRIAL: Annotated[
        float, a_number("The part of ALPHA that the industrial model may spend.", 0.001, 1)
    ] = 0.1
    MAX_ALERTS: Annotated[
        int, a_number("Incidents kept. Closed ones go first.", 10, 100_000, "incidents")
    ] = 1000
    ALERT_WINDOW_SECONDS: Annotated[
        int, a_number("The window in which evidence of one source is put together.", 10, 3600, "s")
    ] = 120
    LOG_ROWS: Annotated[
        int, a_number("Newest flows kept in logs_store.json.", 100, 200_000, "flows")
    ] = 5000
    MAX_UI_LOGS: Annotated[
        int,
        a_number("Rows that a page's list of flows holds.", 20, 2000, "rows", restart=False),
    ] = 300
    log_file: Annotated[str, a_path("This machine's own log; not used yet.", "a file")] = (
        "data/host_logs.json"
    )
    history_size: Annotated[
        int, a_number("How far back the graphs of this machine reach; not used yet.", 10, 3600, "s")
    ] = 60

    origins: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )
    """Where each value that is not a default came from, for the page: name -> words."""
    notices: tuple[str, ...] = field(default=(), compare=False)
    """What was wrong but did not stop the start, in sentences."""

    def path(self, name: str) -> Path:
        """The path setting of that name, absolute."""
        return ROOT / str(getattr(self, name))

    @property
    def interfaces(self) -> tuple[str, ...]:
        """INTERFACE, parsed; empty means automatic."""
        return names(self.INTERFACE)

    @property
    def local_networks(self) -> tuple[Network, ...]:
        """LOCAL_NETWORKS, parsed; empty means automatic."""
        return networks(self.LOCAL_NETWORKS)


_DEFAULTS: Final[Mapping[str, Value]] = {
    f.name: cast(Value, f.default) for f in fields(Settings) if f.name not in ("origins", "notices")
}
_TABLE: Final[Mapping[str, About]] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Settings, include_extras=True).items()
    if name in _DEFAULTS
}


@dataclass(frozen=True, slots=True)
class _Source:
    """One place values come from.

    kind: argument, environment, page or file. where: the place of a name, in words. values: what
    stands there. folder: what relative paths stand against.
    """

    kind: str
    where: Callable[[str], str]
    values: Mapping[str, object]
    folder: Path


def load_settings(
    arguments: Mapping[str, object],
    environ: Mapping[str, str],
    config: Path = DEFAULT_CONFIG,
) -> Settings:
    """The settings in force, each from the first place that names it.

    arguments: setting name -> value (text or typed); None means not given.
    environ: usually os.environ; names that do not start with SECUREFLUX_ are not looked at.
    config: the settings file; only the default one may be missing.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    argument = _Source("argument", _option, given, Path.cwd())
    environment = _Source("environment", _variable, _from_environment(environ), Path.cwd())
    file = _Source("file", lambda _: str(config), _from_file(config), config.resolve().parent)
    # Where the page's file lies is itself a setting, which the page can't change.
    outside, _ = _merge((argument, environment, file))
    data_dir = ROOT / str(outside.get("DATA_DIR", _DEFAULTS["DATA_DIR"]))
    saved_path = data_dir / "settings.json"
    saved, notices = _from_page(saved_path)
    page = _Source("page", lambda _: str(saved_path), saved, data_dir)
    values, origins = _merge((argument, environment, page, file))
    if "DATA_DIR" in values:
        values.setdefault("LIVE_MODEL_PATH", str(data_dir / "models" / "live"))
        values.setdefault("log_file", str(data_dir / "host_logs.json"))
    for name in ("home", "industrial"):
        # Where one was trained again with feedback, it serves instead of the shipped one.
        retrained = data_dir / "models" / name
        if (retrained / "manifest.json").is_file():
            values.setdefault(f"{name.upper()}_MODEL_PATH", str(retrained))
    kwargs: dict[str, Any] = dict(values)
    return Settings(**kwargs, origins=MappingProxyType(origins), notices=notices)


def table(settings: Settings | None = None) -> list[dict[str, object]]:
    """The table for page and documentation, one dict per setting in the order of the class.

    name, type (text, whole number, number), default, value, unit, range (words), low, high,
    help, restart, page (the page may save it), origin (words, `default` where it is
    one) and fixed (set by an argument or the environment, above what the page saves).
    """
    current = settings or Settings()
    rows: list[dict[str, object]] = []
    for name, about in _TABLE.items():
        origin = current.origins.get(name, "default")
        rows.append(
            {
                "name": name,
                "type": _TYPE_WORDS[type(_DEFAULTS[name])],
                "default": _DEFAULTS[name],
                "value": getattr(current, name),
                "unit": about.unit,
                "range": about.allowed(type(_DEFAULTS[name])),
                "low": None if about.form else about.low,
                "high": None if about.form else about.high,
                "help": about.help,
                "restart": about.restart,
                "page": about.page,
                "origin": origin,
                "fixed": origin in (_option(name), _variable(name)),
            }
        )
    return rows


def markdown() -> str:
    """The table as Markdown, for the documentation."""
    lines = ["| setting | default | allowed | what it does |", "|---|---|---|---|"]
    for row in table():
        default = f"`{row['default']}`" if row["default"] != "" else "empty"
        unit = f" {row['unit']}" if row["unit"] else ""
        allowed = str(row["range"]).replace("|", "\\|")
        lines.append(f"| `{row['name']}` | {default}{unit} | {allowed} | {row['help']} |")
    return "\n".join(lines) + "\n"


_TYPE_WORDS: Final = {str: "text", int: "whole number", float: "number"}


def _option(name: str) -> str:
    return f"argument --{name.lower().replace('_', '-')}"


def _variable(name: str) -> str:
    return f"environment variable {ENVIRONMENT_PREFIX}{name.upper()}"


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    """The variables that are ours, under the names of the table where they have one."""
    names = {name.upper(): name for name in _TABLE}
    found: dict[str, object] = {}
    for variable, value in environ.items():
        if variable.upper().startswith(ENVIRONMENT_PREFIX):
            name = variable[len(ENVIRONMENT_PREFIX) :]
            found[names.get(name.upper(), name)] = value
    return found


def _from_file(config: Path) -> dict[str, object]:
    try:
        # Editors on Windows put a byte order mark first, which TOML does not know.
        return tomllib.loads(config.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        if config == DEFAULT_CONFIG:
            return {}
        raise SettingError(f"There is no settings file {config}.") from None
    except OSError as error:
        raise SettingError(f"{config} can't be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(
            f"{config} is not valid TOML: {error}. A line looks like PORT = 5000 or "
            f'INTERFACE = "eth0".'
        ) from error


def _from_page(path: Path) -> tuple[dict[str, object], tuple[str, ...]]:
    """What the page saved; a damaged file is told and not used (the store sets it aside)."""
    try:
        saved = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}, ()
    except (OSError, ValueError):
        saved = None
    if isinstance(saved, dict):
        return saved, ()
    return {}, (f"{path} is damaged; what the page saved there is not in force.",)


def _merge(sources: tuple[_Source, ...]) -> tuple[dict[str, Value], dict[str, str]]:
    """Values and where they stand, each from the first source that names it; all are checked."""
    values: dict[str, Value] = {}
    origins: dict[str, str] = {}
    for source in sources:
        for name, raw in source.values.items():
            value = _accepted(source, name, raw)
            if name not in values:
                values[name] = value
                origins[name] = source.where(name)
    return values, origins


def _accepted(source: _Source, name: str, raw: object) -> Value:
    where = source.where(name)
    about = _TABLE.get(name)
    if about is None:
        raise SettingError(f"{_sentence(where)}: there is no setting {name}. {_near(name)}")
    if source.kind == "page" and not about.page:
        raise SettingError(
            f"{_sentence(where)}: {name} can't be set there; use the {_option(name)}, "
            f"the {_variable(name)} or settings.toml."
        )
    value = _checked(name, raw, where)
    if about.path:
        value = str(source.folder / Path(str(value)).expanduser())
    return value


def _checked(name: str, raw: object, where: str) -> Value:
    """The value in the setting's own type, or a SettingError."""
    about = _TABLE[name]
    kind = type(_DEFAULTS[name])
    try:
        return about.accepted(kind, raw)
    except (ValueError, OverflowError) as error:
        shown = repr(raw)
        if len(shown) > _LONGEST_VALUE_SHOWN:
            shown = shown[: _LONGEST_VALUE_SHOWN - 1] + "…"
        because = f" ({error})" if about.check else ""
        raise SettingError(
            f"{_sentence(where)}: {name} = {shown} is not allowed{because}. "
            f"Allowed: {about.allowed(kind)}."
        ) from error


def _near(name: str) -> str:
    upper = {known.upper(): known for known in _TABLE}
    near = difflib.get_close_matches(name.upper(), upper, n=1)
    if near:
        return f"Did you mean {upper[near[0]]}?"
    return f"There are: {', '.join(_TABLE)}."


def _sentence(where: str) -> str:
    return where[0].upper() + where[1:] if where.startswith(("argument", "environment")) else where

"""Settings: where a value comes from, and that a wrong one names itself."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest

from errors import SettingError
from settings import DEFAULT_CONFIG, ROOT, Settings, load_settings, markdown, table

SPECIFIED = {
    "INTERFACE": "",
    "HOME_MODEL_PATH": "ml/models/home/",
    "INDUSTRIAL_MODEL_PATH": "ml/models/industrial/",
    "LIVE_MODEL_PATH": "ml/models/live/",
    "MAX_ALERTS": 1000,
    "ALERT_WINDOW_SECONDS": 120,
    "log_file": "data/host_logs.json",
    "history_size": 60,
    "MAX_UI_LOGS": 300,
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A settings file of its own, empty, with a data folder beside it."""
    path = tmp_path / "settings.toml"
    path.write_text("", encoding="utf-8")
    return path


def refusal(config: Path, **arguments: object) -> str:
    """The message with which these arguments or this file are refused."""
    with pytest.raises(SettingError) as caught:
        load_settings(arguments, {}, config)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_defaults_are_the_specified_ones() -> None:
    settings = Settings()
    assert {name: getattr(settings, name) for name in SPECIFIED} == SPECIFIED
    assert (settings.HOST, settings.PORT) == ("127.0.0.1", 5000)


def test_first_source_wins(config: Path) -> None:
    data = config.parent / "data"
    data.mkdir()
    (data / "settings.json").write_text(json.dumps({"MAX_ALERTS": 30, "LOG_ROWS": 300}))
    config.write_text(
        f"DATA_DIR = '{data}'\nPORT = 1\nSNAPLEN = 400\nMAX_ALERTS = 40\nLOG_ROWS = 400\n"
        "history_size = 40\n"
    )
    environ = {"SECUREFLUX_PORT": "2", "SECUREFLUX_SNAPLEN": "200", "SECUREFLUX_MAX_ALERTS": "20"}
    settings = load_settings({"PORT": "10", "INTERFACE": None}, environ, config)
    got = {n: getattr(settings, n) for n in ("PORT", "SNAPLEN", "MAX_ALERTS", "LOG_ROWS")}
    assert got == {"PORT": 10, "SNAPLEN": 200, "MAX_ALERTS": 20, "LOG_ROWS": 300}
    assert (settings.history_size, settings.INTERFACE) == (40, "")
    assert settings.origins == {
        "PORT": "argument --port",
        "SNAPLEN": "environment variable SECUREFLUX_SNAPLEN",
        "MAX_ALERTS": "environment variable SECUREFLUX_MAX_ALERTS",
        "LOG_ROWS": str(data / "settings.json"),
        "DATA_DIR": str(config),
        "history_size": str(config),
    }
    rows = {str(row["name"]): row for row in table(settings)}
    assert [rows[n]["fixed"] for n in ("PORT", "SNAPLEN", "LOG_ROWS", "FILTER")] == [
        True,
        True,
        False,
        False,
    ]
    assert rows["FILTER"]["origin"] == "default"
    assert rows["PORT"]["value"] == 10


def test_lower_case_names_are_upper_case_in_the_environment(config: Path) -> None:
    settings = load_settings({}, {"SECUREFLUX_LOG_FILE": "/tmp/x.json", "PATH": "/bin"}, config)
    assert settings.log_file == "/tmp/x.json"


def test_unknown_name_is_told_with_the_near_one(config: Path) -> None:
    config.write_text("PROT = 5001\n")
    message = refusal(config)
    assert message == f"{config}: there is no setting PROT. Did you mean PORT?"
    config.write_text("[capture]\nx = 1\n")
    assert "there is no setting capture" in refusal(config)
    assert "MAX_ALERTS" in refusal(config), "far from any name: all are listed"


def test_unknown_environment_name_is_told(config: Path) -> None:
    with pytest.raises(SettingError, match=r"SECUREFLUX_PROT: .* Did you mean PORT"):
        load_settings({}, {"SECUREFLUX_PROT": "1"}, config)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", 65536, "a whole number from 0 to 65535"),
        ("PORT", "http", "a whole number from 0 to 65535"),
        ("PORT", 80.5, "a whole number"),
        ("PORT", True, "a whole number"),
        ("PORT", [80], "a whole number"),
        ("MAX_FLOWS", -1, "a whole number from 1024 to 4194304 flows"),
        ("QUIET_SECONDS", "nan", "a number from 0.5 to 3600 s"),
        ("QUIET_SECONDS", "inf", "a number from 0.5 to 3600 s"),
        ("LOCAL_NETWORKS", "10.0.0.0/8, 10.0.0.300", "a comma list of addresses or networks"),
        ("INTERFACE", 5, "a name, or a comma list of names"),
        ("INTERFACE", "eth0\n", "a name"),
        ("FILTER", "tcp\x00", "a BPF expression on one line"),
        ("HOST", "", "an address or a host name"),
        ("HOST", "http://127.0.0.1", "an address or a host name"),
        ("DATA_DIR", " ", "a folder"),
    ],
)
def test_wrong_value_names_itself(config: Path, name: str, value: object, allowed: str) -> None:
    message = refusal(config, **{name: value})
    option = "Argument --" + name.lower().replace("_", "-")
    assert message.startswith(f"{option}: {name} = {value!r} is not allowed"), message
    assert f"Allowed: {allowed}" in message


def test_wrong_network_is_named(config: Path) -> None:
    assert "'10.0.0.300'" in refusal(config, LOCAL_NETWORKS="10.0.0.0/8, 10.0.0.300")


def test_long_wrong_value_is_cut(config: Path) -> None:
    assert len(refusal(config, PORT="x" * 10_000)) < 250


def test_edges_of_a_range_are_allowed(config: Path) -> None:
    ports = [load_settings({"PORT": port}, {}, config).PORT for port in (0, 65535)]
    assert ports == [0, 65535]
    quiet = load_settings({"QUIET_SECONDS": 1}, {}, config).QUIET_SECONDS
    assert (quiet, type(quiet)) == (1.0, float)


def test_local_networks_are_parsed(config: Path) -> None:
    settings = load_settings({"LOCAL_NETWORKS": "192.168.1.7/24, fd00::/8 ,10.1.2.3"}, {}, config)
    assert settings.local_networks == (
        ipaddress.ip_network("192.168.1.0/24"),
        ipaddress.ip_network("fd00::/8"),
        ipaddress.ip_network("10.1.2.3/32"),
    )
    assert Settings().local_networks == ()


def test_broken_file_is_told_with_its_line(config: Path) -> None:
    config.write_text("PORT = 5000\nINTERFACE = eth0\n")
    assert "is not valid TOML" in refusal(config)
    assert "line 2" in refusal(config)
    config.write_bytes(b"\xff\xfe\x00")
    assert "is not valid TOML" in refusal(config)
    config.write_bytes(b"\xef\xbb\xbfPORT = 7\n")
    assert load_settings({}, {}, config).PORT == 7


def test_only_the_default_file_may_be_missing(config: Path) -> None:
    missing = config.with_name("other.toml")
    assert refusal(missing) == f"There is no settings file {missing}."
    assert DEFAULT_CONFIG == ROOT / "settings.toml"


def test_folder_instead_of_a_file_is_told(tmp_path: Path) -> None:
    assert "can't be read" in refusal(tmp_path)


def test_relative_paths_stand_where_they_were_written(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Settings().path("HOME_MODEL_PATH") == ROOT / "ml" / "models" / "home"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config.write_text("HOME_MODEL_PATH = 'models'\n")
    settings = load_settings({"DATA_DIR": "state"}, {}, config)
    assert settings.path("HOME_MODEL_PATH") == tmp_path / "models"
    assert settings.path("DATA_DIR") == elsewhere / "state"
    assert settings.path("LIVE_MODEL_PATH") == elsewhere / "state" / "models" / "live"
    assert settings.path("log_file") == elsewhere / "state" / "host_logs.json"
    set_by_hand = load_settings({"DATA_DIR": "state", "LIVE_MODEL_PATH": "live"}, {}, config)
    assert set_by_hand.path("LIVE_MODEL_PATH") == elsewhere / "live"


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\x00\xff"])
def test_damaged_page_settings_are_told_and_do_not_stop(config: Path, damage: bytes) -> None:
    (config.parent / "settings.json").write_bytes(damage)
    settings = load_settings({"DATA_DIR": str(config.parent)}, {}, config)
    assert settings.MAX_ALERTS == 1000
    assert len(settings.notices) == 1
    assert str(config.parent / "settings.json") in settings.notices[0]


def test_page_can_not_open_the_door(config: Path) -> None:
    (config.parent / "settings.json").write_text('{"HOST": "0.0.0.0"}')
    assert "HOST can't be set there" in refusal(config, DATA_DIR=str(config.parent))


def test_table_tells_everything_about_each_setting() -> None:
    rows = table()
    assert set(SPECIFIED) <= {str(row["name"]) for row in rows}
    for row in rows:
        assert row["help"], row
        assert row["range"], row
        assert row["type"] in ("text", "whole number", "number"), row
        assert row["origin"] == "default", row
        assert row["value"] == row["default"], row
        assert load_settings({str(row["name"]): row["default"]}, {}, DEFAULT_CONFIG), row


def test_markdown_has_a_line_for_each_setting() -> None:
    lines = markdown().splitlines()
    assert len(lines) == len(table()) + 2
    assert all(line.count(" | ") == 3 for line in lines[:1] + lines[2:])
    assert any("`MAX_ALERTS` | `1000` incidents" in line for line in lines)

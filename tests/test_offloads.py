"""Offloads are told with the command that stops them, and frames that only they can make."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from capture import read_offloads
from capture.offloads import offloads_of
from tests.namespaces import Hosts, live

ROOT = Path(__file__).resolve().parents[1]


def offloads(hosts: Hosts, host: str, interface: str) -> dict[str, object]:
    code = (
        "import dataclasses, json; from capture import read_offloads; "
        f"print(json.dumps(dataclasses.asdict(read_offloads({interface!r}))))"
    )
    told: dict[str, object] = json.loads(
        subprocess.run(
            hosts.command(host, sys.executable, "-c", code),
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout
    )
    return told


def test_what_does_not_exist_and_the_loopback_have_none() -> None:
    for name in ("nope0", "lo", "a name that is far too long for an interface", "nope/0", ""):
        assert read_offloads(name).on == (), name
        assert read_offloads(name).sentence is None, name


def test_frames_longer_than_the_wire_takes_are_told_without_an_answer_of_the_system() -> None:
    told = offloads_of("Wi-Fi", (), 1200)
    assert told.command is None
    assert told.sentence is not None
    assert told.sentence.startswith("Packets of Wi-Fi are joined before they are seen; 1,200 ")


class TestReal:
    pytestmark = live("ethtool")

    def test_the_command_that_is_told_switches_off_what_is_on(self) -> None:
        with Hosts("a", "b") as hosts:
            hosts.wire(("a", "eth0", ""), ("b", "eth0", ""))
            hosts.inside("a", "ethtool", "-K", "eth0", "gro", "on")
            told = offloads(hosts, "a", "eth0")
            assert told["on"] == ["gro", "gso", "tso"]
            command = "ethtool -K eth0 gro off gso off tso off"
            assert told["command"] == f"sudo {command}"
            assert str(told["sentence"]).endswith(f": sudo {command}")
            assert "(GRO, GSO, TSO)" in str(told["sentence"])
            # Only what is on.
            hosts.inside("a", "ethtool", "-K", "eth0", "gso", "off", "tso", "off")
            told = offloads(hosts, "a", "eth0")
            assert (told["on"], told["command"]) == (["gro"], "sudo ethtool -K eth0 gro off")
            hosts.inside("a", "ethtool", "-K", "eth0", "gro", "off")
            told = offloads(hosts, "a", "eth0")
            assert told == {"on": [], "long_frames": 0, "command": None, "sentence": None}

    def test_frames_longer_than_the_mtu_are_counted(self) -> None:
        with Hosts("a", "b") as hosts:
            hosts.wire(("a", "eth0", "198.18.1.1/24"), ("b", "eth0", "198.18.1.2/24"))
            counted = []
            for state in ("on", "off"):
                for host in ("a", "b"):
                    hosts.inside(
                        host, "ethtool", "-K", "eth0", "gso", state, "tso", state, "gro", state
                    )
                with hosts.watching("a", "eth0") as told:
                    send_bytes(hosts, 2_000_000)
                part = told["status"]["interfaces"][0]
                counted.append(part["offloads"]["long_frames"])
                received = part["received"]
            assert counted[0] > 20
            assert counted[1] == 0
            assert received > 2_000_000 / 1460


def send_bytes(hosts: Hosts, count: int) -> None:
    """Over TCP, from host b to host a."""
    server = (
        "import socket; s = socket.create_server(('198.18.1.1', 9)); print('up', flush=True); "
        "c, _ = s.accept(); [0 for _ in iter(lambda: c.recv(65536), b'')]"
    )
    client = (
        "import socket; c = socket.create_connection(('198.18.1.1', 9), 5); "
        f"c.sendall(bytes({count})); c.close()"
    )
    serving = subprocess.Popen(
        hosts.command("a", sys.executable, "-c", server), stdout=subprocess.PIPE, text=True
    )
    try:
        assert serving.stdout is not None
        assert serving.stdout.readline() == "up\n"
        hosts.inside("b", sys.executable, "-c", client)
        serving.wait(10)
    finally:
        serving.kill()
        serving.wait(10)

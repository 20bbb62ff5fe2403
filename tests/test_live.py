"""Real packets between two network namespaces, captured by the running program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server import ROOT, Server, started

pytestmark = pytest.mark.live

WATCHED = "192.168.77.1"
OFFENDER = "192.168.77.66"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _why_not() -> str | None:
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    missing = [tool for tool in ("ip", "nmap", "ping", "curl") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    return None


@pytest.fixture
def two_hosts() -> Iterator[tuple[str, str]]:
    """(namespace of the watched host, namespace of the offender), joined by a veth pair."""
    reason = _why_not()
    if reason:
        pytest.skip(reason)
    tag = f"{os.getpid() % 10000:04d}"
    here, there = f"sfw{tag}", f"sfo{tag}"
    try:
        for name in (here, there):
            _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces do not work here: {error.stderr}")
    try:
        _ip(
            "link",
            "add",
            "wan0",
            "netns",
            here,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            there,
        )
        for name, device, address in ((here, "wan0", WATCHED), (there, "eth0", OFFENDER)):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
            _ip("-n", name, "link", "set", device, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield here, there
    finally:
        for name in (here, there):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


class _Inside(Server):
    """The program inside a namespace; asked by a curl in the same namespace."""

    def __init__(self, namespace: str, process: subprocess.Popen[str], address: str) -> None:
        super().__init__(process, address, [])
        self.namespace = namespace

    def ask(self, path: str, body: Any = None) -> Any:
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace, "curl", "-sS", "--max-time", "10"]
            + [self.address + path],
            check=True,
            capture_output=True,
            text=True,
        )
        return json.loads(done.stdout)


@pytest.fixture
def watcher(two_hosts: tuple[str, str], tmp_path: Path) -> Iterator[_Inside]:
    here, _ = two_hosts
    command = ["ip", "netns", "exec", here, sys.executable, "app.py", "serve"]
    command += ["--interface", "wan0", "--port", "0", "--data-dir", str(tmp_path)]
    with started(command) as outside:
        assert any("Packet capture thread started" in line for line in outside.told)
        server = _Inside(here, outside.process, outside.address)
        server.wait_for("/api/live_status", lambda found: found["capture"]["state"] == "capturing")
        yield server
        server.process.terminate()
        assert server.process.wait(20) == 0


def _inside(namespace: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, timeout=60
    )


def test_real_traffic_and_a_real_scan(
    two_hosts: tuple[str, str], watcher: _Inside, tmp_path: Path
) -> None:
    here, there = two_hosts
    served = tmp_path / "www"
    served.mkdir()
    (served / "page.txt").write_text("hello " * 1000)
    web = subprocess.Popen(
        ["ip", "netns", "exec", here, sys.executable, "-m", "http.server", "8081"]
        + ["--bind", WATCHED, "--directory", str(served)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        fetched = _inside(
            there, "curl", "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1",
            f"http://{WATCHED}:8081/page.txt",
        )  # fmt: skip
        assert fetched.stdout.startswith("hello")
        assert _inside(there, "ping", "-c", "3", "-i", "0.2", WATCHED).returncode == 0

        rows = watcher.wait_for(
            "/captured_data",
            lambda found: (
                {"ICMP", "TCP"} <= {r["protocol"] for r in found if r["src_ip"] == OFFENDER}
            ),
        )
        page = next(r for r in rows if r["dst_port"] == 8081 and r["connection_state"] == "SF")
        assert page["length"] > 6000
        assert not [a for a in watcher.ask("/alerts_data") if a["pattern"] == "SRC_SCAN"]

        started = time.monotonic()
        scan = threading.Thread(
            target=_inside,
            args=(there, "nmap", "-n", "-sS", "-p", "1-1000", "--max-rate", "400", WATCHED),
        )
        scan.start()
        alerts = watcher.wait_for(
            "/alerts_data", lambda found: any(a["pattern"] == "SRC_SCAN" for a in found)
        )
        told_after_s = time.monotonic() - started
        scan.join()
        incident = next(a for a in alerts if a["pattern"] == "SRC_SCAN")
        assert incident["src_ip"] == OFFENDER
        assert WATCHED in incident["targets"]
        assert told_after_s < 10

        capture = watcher.ask("/api/live_status")["capture"]
        assert (capture["kernel_drops"], capture["queue_drops"], capture["table_drops"]) == (
            0,
            0,
            0,
        )
        assert capture["packets"] > 1000
    finally:
        web.terminate()
        web.wait(10)


def test_without_a_default_route_the_interface_that_is_up_is_watched(
    two_hosts: tuple[str, str],
) -> None:
    here, _ = two_hosts
    code = "from capture import interface_to_watch; print(interface_to_watch())"
    command = ["ip", "netns", "exec", here, sys.executable, "-c", code]
    chosen = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert chosen.stdout.strip() == "wan0"


def test_without_a_further_packet_a_flow_ends_by_the_clock_and_is_judged(
    two_hosts: tuple[str, str], tmp_path: Path
) -> None:
    here, there = two_hosts
    for name, device in ((here, "wan0"), (there, "eth0")):
        # Neither side says anything by itself.
        _inside(name, "sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1")
        _ip("-n", name, "link", "set", device, "arp", "off")
    command = ["ip", "netns", "exec", here, "env", "SECUREFLUX_IDLE_TIMEOUT_SECONDS=2"]
    command += [sys.executable, "app.py", "serve", "--interface", "wan0", "--port", "0"]
    with started([*command, "--data-dir", str(tmp_path)]) as outside:
        server = _Inside(here, outside.process, outside.address)
        server.wait_for("/api/live_status", lambda found: found["capture"]["state"] == "capturing")
        said = "import socket; socket.socket(2, 2).sendto(b'one', ('192.168.77.1', 9999))"
        # No address is resolved here, so the frame goes out to an address of nobody.
        _ip("-n", there, "neigh", "add", WATCHED, "lladdr", "02:00:00:00:00:99", "dev", "eth0")
        assert _inside(there, sys.executable, "-c", said).returncode == 0
        rows = server.wait_for(
            "/captured_data", lambda found: any(row["state"] == "idle" for row in found)
        )
        assert [(row["dst_port"], row["packets"], row["state"]) for row in rows] == [
            (9999, 1, "idle")
        ]
        assert rows[0]["final_decision"] in ("ALLOW", "ALERT")
        capture = server.ask("/api/live_status")["capture"]
        assert (capture["packets"], capture["flows_ended"], capture["flows_active"]) == (1, 1, 0)
        server.process.terminate()
        assert server.process.wait(20) == 0


def test_two_interfaces_at_once_and_one_that_does_not_exist(
    two_hosts: tuple[str, str], watcher: _Inside
) -> None:
    here, there = two_hosts

    def start(body: str) -> Any:
        done = _inside(
            here, "curl", "-sS", "-X", "POST", "-d", body,
            f"{watcher.address}/api/capture/start",
        )  # fmt: skip
        return json.loads(done.stdout)

    refused = start('{"interface": ["wan0", "nope0"]}')
    assert refused["status"] == "error"
    assert "'nope0'" in refused["error"]
    assert "wan0" in refused["error"].partition("This machine has")[2]
    assert watcher.ask("/api/live_status")["capture"]["interface"] == "wan0"

    capture = start('{"interface": ["wan0", "lo"]}')["capture"]
    assert capture["friendly"] == "Virtual (wan0) and This machine itself (lo)"
    assert [part["name"] for part in capture["interfaces"]] == ["wan0", "lo"]
    offloads = capture["interfaces"][0]["offloads"]
    assert offloads["command"] == "sudo ethtool -K wan0 gso off tso off"
    assert offloads["sentence"].endswith(offloads["command"])
    assert capture["interfaces"][1]["offloads"]["sentence"] is None
    assert _inside(there, "ping", "-c", "3", "-i", "0.2", WATCHED).returncode == 0
    told = watcher.wait_for(
        "/api/live_status",
        lambda found: all(part["received"] >= 6 for part in found["capture"]["interfaces"]),
    )["capture"]
    assert told["received"] >= told["packets"]
    assert told["packets"] == told["decoded"] + sum(told["unread"].values())
    assert (told["kernel_drops"], told["interface_drops"], told["queue_drops"]) == (0, 0, 0)

"""How many devices are heard, and of how many the traffic is seen."""

from __future__ import annotations

import socket
import time

import numpy as np
import psutil
import pytest

from batches import PACKET, PacketBatch, PacketKind
from tests.frames import START_NS
from tests.namespaces import Hosts, live
from visibility import Visibility

ALL = 0xFFFFFFFFFFFF
GATEWAY = 0x02AA00000001


def batch(*packets: tuple[int, int, int, int], time_s: float = 0.0) -> PacketBatch:
    """Packets by (source MAC, target MAC, source and target address as numbers)."""
    rows = np.zeros(len(packets), PACKET)
    for row, (src_mac, dst_mac, src, dst) in zip(rows, packets, strict=True):
        row["src_mac"], row["dst_mac"], row["src_lo"], row["dst_lo"] = src_mac, dst_mac, src, dst
        row["kind"] = int(PacketKind.ARP) if dst_mac == ALL else int(PacketKind.FLOW)
        row["ip_version"] = 4
        row["time_ns"] = START_NS + int(time_s * 1e9)
    return PacketBatch(rows, np.zeros(7, np.int64), len(rows), 0)


def fed(*batches: PacketBatch) -> Visibility:
    """All batches looked at, although they come at once."""
    visibility = Visibility()
    for one in batches:
        visibility._looks = 8.0
        visibility.add(one)
    return visibility


def own_address() -> int:
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            if entry.family == socket.AF_INET and not entry.address.startswith("127."):
                return int.from_bytes(socket.inet_aton(entry.address), "big")
    pytest.skip("this machine has no IPv4 address")


def device(n: int) -> int:
    return 0x020000000000 + n


def test_nothing_is_claimed_too_early() -> None:
    assert Visibility().told()["sentence"] == "Still listening which devices there are."
    visibility = fed(batch((device(1), ALL, 1, 2)), batch((device(1), ALL, 1, 2), time_s=179))
    assert visibility.told()["seen"] is None
    visibility = fed(batch((device(1), ALL, 1, 2)), batch((device(1), ALL, 1, 2), time_s=180))
    assert visibility.told()["heard"] == 2


def test_on_a_switch_only_own_traffic_is_seen() -> None:
    own = own_address()
    told = [(device(n), ALL, n, 99) for n in range(1, 9)]
    # Traffic of this computer with a device and through the gateway is no view of theirs.
    mine = [(device(1), 0x02BB00000001, 1, own), (GATEWAY, 0x02BB00000001, 1 << 30, own)] * 20
    said = fed(batch(*told, *mine), batch(*mine, time_s=200)).told()
    assert (said["seen"], said["heard"]) == (1, 10)
    assert said["sentence"] == (
        "Sees the traffic of 1 of about 10 devices; a switch keeps the rest from this computer. "
        "Run SecureFlux on the gateway or on a mirror port."
    )


def test_on_a_gateway_all_are_seen() -> None:
    through = [(device(n), GATEWAY, n, 1 << 30) for n in range(1, 9)]
    back = [(GATEWAY, device(n), 1 << 30, n) for n in range(1, 9)]
    said = fed(*(batch(*through, *back, time_s=time_s) for time_s in range(0, 240, 40))).told()
    assert (said["seen"], said["heard"]) == (10, 10)
    assert said["sentence"] == "Sees the traffic of all 10 devices heard."


def test_a_packet_that_a_switch_floods_once_proves_nothing() -> None:
    told = [(device(n), ALL, n, 99) for n in (1, 2)]
    leaked = (device(1), device(2), 1, 2)
    for count, seen in ((4, 1), (5, 3)):
        said = fed(batch(*told), batch(*([leaked] * count), time_s=200)).told()
        assert said["seen"] == seen, count


def test_who_is_silent_for_an_hour_is_gone() -> None:
    early = [(device(1), device(2), 1, 2), (device(2), device(1), 2, 1)] * 6
    visibility = fed(batch(*early), batch((device(3), ALL, 3, 99), time_s=3500))
    assert (visibility.told()["seen"], visibility.told()["heard"]) == (3, 4)
    visibility._looks = 8.0
    visibility.add(batch((device(3), ALL, 3, 99), time_s=3700))
    assert (visibility.told()["seen"], visibility.told()["heard"]) == (1, 2)


def test_alone_it_says_so_and_other_interfaces_begin_anew() -> None:
    visibility = fed(batch((0, 0, 1, 2)), batch((0, 0, 1, 2), time_s=200))
    assert visibility.told()["sentence"] == "No other device was heard yet."
    visibility.reset()
    assert visibility.told()["seen"] is None


def test_forged_addresses_fill_no_memory() -> None:
    visibility = fed(
        *(
            batch(*((device(256 * n + k), device(9), 1, 2) for k in range(256)), time_s=n)
            for n in range(40)
        )
    )
    assert len(visibility._heard) == 4096
    assert len(visibility._seen) <= 4096
    assert device(256 * 39 + 255) in visibility._heard


def test_rare_broadcasts_are_found_among_many_packets() -> None:
    many = [(device(1), GATEWAY, 1, 1 << 30)] * 4000
    said = fed(batch(*many, (device(2), ALL, 2, 99)), batch(*many, time_s=300)).told()
    assert said["heard"] == 3


def test_of_batches_that_come_fast_a_part_is_looked_at() -> None:
    visibility = Visibility()
    began_s = time.monotonic()
    for n in range(1, 2001):
        visibility.add(batch((device(n), ALL, 1, 2)))
    looked = len(visibility._heard)
    assert 8 <= looked <= 9 + 20 * (time.monotonic() - began_s)
    # Of several interfaces none is passed over: batches that come together are all looked at.
    assert {device(n) for n in range(1, 9)} <= set(visibility._heard)


class TestReal:
    """A bridge is the switch; one of the hosts at it watches, or the router behind it."""

    pytestmark = live("ping")

    def test_a_host_and_the_router_see_differently(self) -> None:
        names = ("a", "b", "c", "d")
        with Hosts(*names, "s", "r") as hosts:
            hosts.ip("s", "link", "add", "br0", "type", "bridge")
            hosts.inside("s", "sysctl", "-qw", "net.ipv6.conf.br0.disable_ipv6=1")
            hosts.ip("s", "link", "set", "br0", "up")
            for n, host in enumerate((*names, "r"), start=1):
                hosts.wire((host, "eth0", f"198.18.1.{n}/24"), ("s", f"port{host}", ""))
                hosts.ip("s", "link", "set", f"port{host}", "master", "br0")
            hosts.wire(("r", "wan0", "198.18.2.1/24"), ("s", "out0", "198.18.2.9/24"))
            hosts.inside("r", "sysctl", "-qw", "net.ipv4.ip_forward=1")
            for host in names:
                hosts.ip(host, "route", "add", "default", "via", "198.18.1.5")
            hosts.ip("s", "route", "add", "198.18.1.0/24", "via", "198.18.2.1")
            # The switch knows where everybody is.
            for host in names:
                hosts.inside(host, "ping", "-c", "1", "-W", "2", "198.18.1.5")
                hosts.ip(host, "neigh", "flush", "all")
            with hosts.watching("a", "eth0") as host_told, hosts.watching("r", "eth0") as told:
                for host in names:
                    # Asks for the router by a broadcast, then goes through it.
                    hosts.inside(host, "ping", "-c", "8", "-i", "0.2", "198.18.2.9")
        # Asking is heard by all; the pings reach the router alone.
        assert host_told["devices"]["heard"] >= 4
        assert host_told["devices"]["seen"] == 1
        assert "a switch keeps the rest" in host_told["devices"]["sentence"]
        assert told["devices"]["seen"] == told["devices"]["heard"] == 5
        assert told["devices"]["sentence"] == "Sees the traffic of all 5 devices heard."

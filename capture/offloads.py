"""Offloads: what a network card joins or cuts so that frames seen here are not those on the wire.

With them 20 MB of TCP were 748 frames, without them 15,634 (veth, MTU 1500): counts, lengths and
gaps of packets are then not those the models learned from. Nothing is switched off from here;
the command that does it is told. Linux answers by its ethtool call; anywhere else a frame longer
than the interface can send tells the same.
"""

from __future__ import annotations

import array
import contextlib
import shlex
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Final

import psutil

from capture.network_interfaces import is_loopback

__all__ = ["Offloads", "active_offloads", "longest_frame", "offloads_of", "read_offloads"]

# linux/sockios.h and linux/ethtool.h; reading these needs no right.
_SIOCETHTOOL: Final = 0x8946
_GET_FLAGS: Final = 0x25  # ETHTOOL_GFLAGS
_FLAG_LRO: Final = 1 << 15  # ETH_FLAG_LRO
_COMMANDS: Final = {"gro": 0x2B, "gso": 0x23, "tso": 0x1E}  # ETHTOOL_GGRO, GGSO, GTSO
_NAME_BYTES: Final = 16  # IFNAMSIZ
_LINK_HEADER: Final = 22  # bytes: Ethernet's 14 and two VLAN tags


@dataclass(frozen=True, slots=True)
class Offloads:
    """The offloads of one interface.

    on: those that are on, of gro, gso, tso, lro. long_frames: frames seen since the start that
    were longer than the interface's MTU and a link header. command: what switches off those that
    are on, None where that is not known here. sentence: None where all is as on the wire.
    """

    on: tuple[str, ...]
    long_frames: int
    command: str | None
    sentence: str | None


def read_offloads(interface: str) -> Offloads:
    """How the interface stands just now; nothing is on where the system does not tell."""
    return offloads_of(interface, active_offloads(interface))


def offloads_of(interface: str, on: tuple[str, ...], long_frames: int = 0) -> Offloads:
    """What follows from offloads that are on and from frames that were seen."""
    command = None
    sentence = None
    if on:
        switches = " ".join(f"{name} off" for name in on)
        command = f"sudo ethtool -K {shlex.quote(interface)} {switches}"
    if on or long_frames:
        names = f" ({', '.join(name.upper() for name in on)})" if on else ""
        seen = f"; {long_frames:,} frames longer than its MTU were seen" if long_frames else ""
        sentence = (
            f"Packets of {interface} are joined before they are seen{names}{seen}: their counts, "
            "lengths and gaps are not those of the wire, which the models learned from."
        )
        if command:
            sentence += f" This switches it off: {command}"
    return Offloads(on, long_frames, command, sentence)


def longest_frame(interface: str) -> int:
    """Bytes of the longest frame the interface itself can carry; 0: it has no such limit."""
    stats = psutil.net_if_stats().get(interface)
    if stats is None or stats.mtu <= 0 or is_loopback(interface):
        return 0
    return stats.mtu + _LINK_HEADER


def active_offloads(interface: str) -> tuple[str, ...]:
    """Those of gro, gso, tso, lro that are on; none where the system does not tell."""
    name = interface.encode()
    if not sys.platform.startswith("linux") or len(name) >= _NAME_BYTES or is_loopback(interface):
        return ()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        on = [kind for kind, command in _COMMANDS.items() if _ask(asked, name, command)]
        if _ask(asked, name, _GET_FLAGS) & _FLAG_LRO:
            on.append("lro")
    return tuple(on)


def _ask(asked: socket.socket, name: bytes, command: int) -> int:
    """The `data` of one struct ethtool_value; 0 where the driver knows no such question."""
    if sys.platform == "win32":
        return 0
    import fcntl

    value = array.array("I", [command, 0])
    request = struct.pack("16sP8x", name, value.buffer_info()[0])  # struct ifreq
    with contextlib.suppress(OSError):
        fcntl.ioctl(asked, _SIOCETHTOOL, request)
    return value[1]

"""The network interfaces of this machine, and what is missing to capture from one."""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import shlex
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from capture import libpcap

__all__ = [
    "Interface",
    "capture_remedy",
    "default_interface",
    "friendly_name",
    "interface_to_watch",
    "interface_trouble",
    "interfaces",
    "is_loopback",
    "known_interfaces",
    "own_networks",
    "remedy_command",
]

_LINUX: Final = sys.platform.startswith("linux")
_WINDOWS: Final = sys.platform == "win32"
_ARPHRD_LOOPBACK: Final = "772"  # of linux/if_arp.h
_ROUTE_UP: Final = 0x1  # RTF_UP of linux/route.h
# A traffic figure older than this says nothing about "now": it is taken afresh.
_STALE_S: Final = 5.0
_SAMPLE_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface.

    friendly: what people call it. addresses: IPv4 first, without prefix or zone.
    is_default: it holds the default route. packets: received and sent per second just now.
    """

    name: str
    friendly: str
    addresses: tuple[str, ...]
    up: bool
    loopback: bool
    is_default: bool
    packets: int


class _Traffic:
    """Packets per second of every interface between two looks at the system's counters."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken_s = 0.0
        self._counts: dict[str, int] = {}

    def per_second(self) -> dict[str, int]:
        """Waits a quarter of a second where the last look lies more than 5 s back."""
        with self._lock:
            if time.monotonic() - self._taken_s > _STALE_S:
                self._look()
                time.sleep(_SAMPLE_S)
            before, before_s = self._counts, self._taken_s
            self._look()
            elapsed_s = max(self._taken_s - before_s, 1e-3)
            return {
                name: max(0, round((count - before.get(name, count)) / elapsed_s))
                for name, count in self._counts.items()
            }

    def _look(self) -> None:
        counters = psutil.net_io_counters(pernic=True, nowrap=False)
        self._counts = {name: c.packets_recv + c.packets_sent for name, c in counters.items()}
        self._taken_s = time.monotonic()


_traffic = _Traffic()


def known_interfaces() -> list[str]:
    """Names of all interfaces, those that are up first."""
    stats = psutil.net_if_stats()
    names = set(stats) | set(psutil.net_if_addrs())
    return sorted(names, key=lambda name: (name not in stats or not stats[name].isup, name))


def interfaces() -> list[Interface]:
    """All interfaces: the one with the default route first, then those that are up.

    Takes a quarter of a second where it was not asked in the last 5 s (see `packets`).
    """
    stats = psutil.net_if_stats()
    addresses = psutil.net_if_addrs()
    per_second = _traffic.per_second()
    default = default_interface()
    found = []
    for name in known_interfaces():
        plain = sorted(
            (entry.family != socket.AF_INET, entry.address.partition("%")[0])
            for entry in addresses.get(name, [])
            if entry.family in (socket.AF_INET, socket.AF_INET6)
        )
        loopback = is_loopback(name) or any(
            address == "::1" or address.startswith("127.") for _, address in plain
        )
        found.append(
            Interface(
                name=name,
                friendly=friendly_name(name),
                addresses=tuple(address for _, address in plain),
                up=name in stats and bool(stats[name].isup),
                loopback=loopback,
                is_default=name == default,
                packets=per_second.get(name, 0),
            )
        )
    return sorted(found, key=lambda entry: not entry.is_default)


def own_networks() -> tuple[str, ...]:
    """The networks this machine has an address in, in CIDR form: what lies beside it is inside."""
    found = {
        network
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
        for network in (_network(entry.address, entry.netmask),)
        if network is not None
    }
    return tuple(sorted(found))


def _network(address: str, netmask: str | None) -> str | None:
    """None for what is no network, and for a point-to-point line that claims all addresses."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
        if netmask:
            prefix = int(ipaddress.ip_address(netmask)).bit_count()
        else:
            prefix = 32 if parsed.version == 4 else 64  # Windows tells none for IPv6; RFC 7421
        return str(ipaddress.ip_network(f"{parsed}/{prefix}", strict=False)) if prefix else None
    except ValueError:
        return None


def friendly_name(name: str) -> str:
    """What people call it: on Linux by its kind, elsewhere the name says it ("Wi-Fi", "en0")."""
    if not _LINUX:
        return name
    folder = Path("/sys/class/net") / name
    if is_loopback(name):
        kind = "This machine itself"
    elif (folder / "wireless").exists():
        kind = "Wi-Fi"
    elif (folder / "bridge").exists():
        kind = "Bridge"
    elif (folder / "tun_flags").exists():
        kind = "Tunnel"
    elif (folder / "device").exists():
        kind = "Ethernet"
    else:
        kind = "Virtual"
    return f"{kind} ({name})"


def is_loopback(name: str) -> bool:
    """Whether only this machine hears what is sent there."""
    if _LINUX:
        try:
            kind = (Path("/sys/class/net") / name / "type").read_text().strip()
        except (OSError, ValueError):  # gone, no /sys, or a name that is none
            return name == "lo"
        return kind == _ARPHRD_LOOPBACK
    return "loopback" in name.lower() or name == "lo0"


def interface_to_watch() -> str | None:
    """The one with the default route; without one the busiest that is up, the loopback last."""
    found = [one for one in interfaces() if one.up]
    busiest = max(found, key=lambda one: (not one.loopback, one.packets), default=None)
    return default_interface() or (busiest.name if busiest is not None else None)


def default_interface() -> str | None:
    """The interface with the default route, None where there is no such route."""
    if _LINUX:
        return _linux_default_ipv4() or _linux_default_ipv6()
    from scapy.config import conf

    interface = conf.iface
    return str(interface.name) if interface and interface.is_valid() else None


def _table(path: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path(path).read_text().splitlines()]
    except OSError:  # no IPv6 in this kernel, or no /proc here
        return []


def _linux_default_ipv4() -> str | None:
    """/proc/net/route: name, destination, gateway, flags, -, -, metric, mask (hexadecimal)."""
    routes = [
        (int(row[6]), row[0])
        for row in _table("/proc/net/route")[1:]
        if len(row) > 7 and int(row[1], 16) == int(row[7], 16) == 0 and int(row[3], 16) & _ROUTE_UP
    ]
    return min(routes)[1] if routes else None


def _linux_default_ipv6() -> str | None:
    """/proc/net/ipv6_route: destination, its prefix length, ..., metric (5), flags (8), name."""
    routes = [
        (int(row[5], 16), row[9])
        for row in _table("/proc/net/ipv6_route")
        if len(row) > 9
        and int(row[0], 16) == int(row[1], 16) == 0
        and int(row[8], 16) & _ROUTE_UP
        and row[9] != "lo"  # the kernel's own "unreachable" entries
    ]
    return min(routes)[1] if routes else None


def interface_trouble(name: str) -> str | None:
    """Why nothing can come from this interface now, None if all is well."""
    stats = psutil.net_if_stats()
    if name not in stats:
        return f"The interface {name} is gone."
    if not stats[name].isup:
        return f"The interface {name} is down or has no link."
    return None


def capture_remedy(interface: str) -> str | None:
    """None if this process may capture, else one sentence with the exact command to give it."""
    command = remedy_command()
    if command is None:
        return None
    if _WINDOWS and libpcap.library() is None:
        return f"Capturing on {interface} needs Npcap; this opens its download page: {command}"
    if _WINDOWS:
        return (
            f"Npcap lets only administrators capture on {interface}: "
            f"start this command from an administrator's terminal: {command}"
        )
    if sys.platform == "darwin":
        return f"You may not open /dev/bpf* to capture on {interface}; this allows it: {command}"
    if command.startswith("sudo setcap"):
        return f"This program may not capture on {interface}; this allows it for good: {command}"
    return f"This program may not capture on {interface}; start it with more rights: {command}"


def remedy_command() -> str | None:
    """The command by itself, None if this process may capture."""
    if _WINDOWS:
        return _windows_command()
    if sys.platform == "darwin":
        if _may_open_bpf():
            return None
        # Wireshark's ChmodBPF does the same for good, for the group access_bpf.
        return 'sudo chown "$USER" /dev/bpf*'
    if not _LINUX or _may_open_packet_socket():
        return None
    python = Path(sys.executable).resolve()
    if sys.prefix != sys.base_prefix and python.is_relative_to(Path(sys.prefix).resolve()):
        # A copy that only this program uses. Never the system's own Python: that would let
        # everything written in Python capture.
        return f"sudo setcap cap_net_raw,cap_net_admin=eip {shlex.quote(str(python))}"
    return _again_as("sudo ")


def _again_as(prefix: str) -> str:
    return prefix + shlex.join([sys.executable, *sys.orig_argv[1:]])


def _may_open_packet_socket() -> bool:
    try:
        # Protocol 0: such a socket gets no packets, it only asks for the right.
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionError:
        return False
    return True


def _may_open_bpf() -> bool:
    for device in sorted(Path("/dev").glob("bpf*")):
        try:
            os.close(os.open(device, os.O_RDONLY))
        except OSError as error:
            if error.errno == errno.EBUSY:  # somebody captures on it: it could be opened
                continue
            return False
        return True
    return True


def _windows_command() -> str | None:
    if libpcap.library() is None:
        return "start https://npcap.com/#download"
    return _again_as("") if _windows_wants_administrator() else None


def _windows_wants_administrator() -> bool:
    if sys.platform == "win32":
        import winreg

        parameters = r"SYSTEM\CurrentControlSet\Services\npcap\Parameters"
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, parameters) as key:
                admin_only = bool(winreg.QueryValueEx(key, "AdminOnly")[0])
        except OSError:
            return False
        return admin_only and not ctypes.windll.shell32.IsUserAnAdmin()
    return False

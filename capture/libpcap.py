"""The few functions of libpcap (Npcap on Windows) that capturing calls.

Bound here and not through Scapy, because its binding knows no time-stamp precision. Prototypes
after pcap(3PCAP).
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import c_char_p, c_int, c_uint, c_void_p
from ctypes.util import find_library
from functools import cache
from pathlib import Path
from typing import Any, Final

from capture.buffer import FrameBuffer, callback

__all__ = [
    "PERMISSION_DENIED",
    "PROMISCUOUS_DENIED",
    "PcapStat",
    "describe_header",
    "dispatch",
    "error_text",
    "library",
    "require_library",
    "status_text",
]

PERMISSION_DENIED: Final = -8  # PCAP_ERROR_PERM_DENIED
PROMISCUOUS_DENIED: Final = -11  # PCAP_ERROR_PROMISC_PERM_DENIED
_NANOSECONDS: Final = 1  # PCAP_TSTAMP_PRECISION_NANO
_ERROR_BYTES: Final = 256  # PCAP_ERRBUF_SIZE


class PcapStat(ctypes.Structure):
    """struct pcap_stat; Windows appends three more numbers."""

    _fields_ = (
        ("received", c_uint),
        ("dropped", c_uint),
        ("interface_dropped", c_uint),
        ("windows_only", c_uint * 3),
    )


_PROTOTYPES: Final[tuple[tuple[str, Any, tuple[Any, ...]], ...]] = (
    ("pcap_create", c_void_p, (c_char_p, c_char_p)),
    ("pcap_set_snaplen", c_int, (c_void_p, c_int)),
    ("pcap_set_promisc", c_int, (c_void_p, c_int)),
    ("pcap_set_timeout", c_int, (c_void_p, c_int)),
    ("pcap_set_buffer_size", c_int, (c_void_p, c_int)),
    ("pcap_set_tstamp_precision", c_int, (c_void_p, c_int)),
    ("pcap_get_tstamp_precision", c_int, (c_void_p,)),
    ("pcap_activate", c_int, (c_void_p,)),
    ("pcap_statustostr", c_char_p, (c_int,)),
    ("pcap_setnonblock", c_int, (c_void_p, c_int, c_char_p)),
    ("pcap_dispatch", c_int, (c_void_p, c_int, c_void_p, c_void_p)),
    ("pcap_stats", c_int, (c_void_p, ctypes.POINTER(PcapStat))),
    ("pcap_datalink", c_int, (c_void_p,)),
    ("pcap_geterr", c_char_p, (c_void_p,)),
    ("pcap_close", None, (c_void_p,)),
)


def _library_path() -> str | None:
    if sys.platform == "win32":
        folder = Path(os.environ.get("WINDIR", r"C:\Windows")) / "System32" / "Npcap"
        path = folder / "wpcap.dll"
        if not path.exists():
            return None
        os.add_dll_directory(str(folder))
        return str(path)
    return find_library("pcap")


@cache
def library() -> ctypes.CDLL | None:
    """libpcap with its prototypes, or None where it (or a function of it) is missing."""
    path = _library_path()
    if path is None:
        return None
    try:
        loaded = ctypes.CDLL(path)
        for name, result, arguments in _PROTOTYPES:
            function = getattr(loaded, name)
            function.restype = result
            function.argtypes = arguments
    except (OSError, AttributeError):  # not loadable here, or older than 1.5 (2013)
        return None
    return loaded


def require_library() -> ctypes.CDLL:
    """`library()` where the caller has seen that it is there."""
    loaded = library()
    if loaded is None:
        raise RuntimeError("libpcap is not installed")
    return loaded


def error_text(handle: int) -> str:
    """What libpcap says about the last failure on this handle."""
    return _text(require_library().pcap_geterr(handle))


def status_text(status: int) -> str:
    """What a negative answer of pcap_activate means."""
    return _text(require_library().pcap_statustostr(status))


def _text(raw: bytes | None) -> str:
    return (raw or b"unknown error").decode("utf-8", "replace").strip()


def describe_header(handle: int, buffer: FrameBuffer) -> None:
    """Tell the buffer how the packet headers of this handle are laid out."""
    precision = require_library().pcap_get_tstamp_precision(handle)
    buffer.set_header(
        caplen_word=2 if sys.platform == "win32" else 4,
        time_scale=1 if precision == _NANOSECONDS else 1000,
    )


def dispatch(handle: int, buffer: FrameBuffer) -> int:
    """Store what is there, at most the buffer's room; frames stored, negative on an error.

    The interpreter lock is free meanwhile. Never asks for 0 frames: that means "all" to libpcap.
    """
    room = buffer.room
    if room == 0:
        return 0
    handler = ctypes.cast(callback(), c_void_p)
    return int(
        require_library().pcap_dispatch(handle, room, handler, int(buffer.words.ctypes.data))
    )

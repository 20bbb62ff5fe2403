"""A live interface on Linux without libpcap: the kernel's packet ring on Scapy's socket.

TPACKET_V3 (Documentation/networking/packet_mmap.rst): the kernel fills blocks of memory we see,
marks one as ours, and gets it back when compiled code has walked it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import mmap
import os
import select
import socket
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np

from capture.buffer import FrameBuffer, walk_block
from capture.network_interfaces import capture_remedy, remedy_command
from errors import CaptureError

__all__ = ["RingSource"]

_BLOCK_BYTES: Final = 1 << 20
_BLOCKS: Final = 32  # 32 MiB in all, as capture/device.py asks for
# A block goes to us at the latest after this time, full or not.
_GATHER_MS: Final = 40

# linux/if_packet.h, linux/if_ether.h, asm-generic/socket.h
_SOL_PACKET: Final = 263
_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_TPACKET_V3: Final = 2
_SO_ATTACH_FILTER: Final = 26
_STATUS_AT: Final = 8  # of block_status in tpacket_block_desc
_OURS: Final = 1  # TP_STATUS_USER
_BPF_RETURN: Final = 0x06  # BPF_RET | BPF_K

# ARPHRD_* of the socket to libpcap's link type; others need libpcap to make sense of them.
_LINK_TYPES: Final = {1: 1, 772: 1, 65534: 12, 512: 12}
_ARPHRD_LOOPBACK: Final = 772


class RingSource:
    """Frames of one interface; the same door as PcapSource."""

    def __init__(self, interface: str, bpf_filter: str, snaplen: int, frames: int) -> None:
        self._interface = interface
        self._listener = _listen(interface, bpf_filter)
        self._socket: socket.socket = self._listener.ins
        try:
            hardware = self._socket.getsockname()[3]
            if hardware not in _LINK_TYPES:
                raise CaptureError(
                    f"The interface {interface} is of a kind (ARPHRD {hardware}) that only "
                    "libpcap can capture from: install libpcap."
                )
            if not bpf_filter:
                _cut_frames(self._socket, snaplen)
            self._memory = self._make_ring()
        except BaseException:
            self._listener.close()
            raise
        self.link_type = _LINK_TYPES[hardware]
        self.buffer = FrameBuffer(frames, snaplen, skip_outgoing=hardware == _ARPHRD_LOOPBACK)
        ring = np.frombuffer(self._memory, np.uint8).reshape(_BLOCKS, _BLOCK_BYTES)
        self._blocks = list(ring)
        self._status = [block[_STATUS_AT : _STATUS_AT + 4].view(np.uint32) for block in ring]
        self._next = 0
        self._first_interface_drops = _interface_drops(interface)
        self._kernel_drops = 0
        self._statistics()
        self._kernel_drops = 0  # what was lost before the ring was there is not ours to count

    def _make_ring(self) -> mmap.mmap:
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        # struct tpacket_req3; the frame size has no meaning in version 3 but is checked.
        request = struct.pack(
            "7I",
            _BLOCK_BYTES,
            _BLOCKS,
            2048,
            _BLOCK_BYTES * _BLOCKS // 2048,
            _GATHER_MS,
            0,
            0,
        )
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
            return mmap.mmap(self._socket.fileno(), _BLOCK_BYTES * _BLOCKS)
        except OSError as error:
            raise CaptureError(
                f"The kernel gives no memory to capture from {self._interface}: {error.strerror}."
            ) from error

    def wait(self, timeout_s: float) -> bool:
        """Wait until frames may have come; False: there is an error `read` may tell about."""
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        errors = select.POLLERR | select.POLLHUP | select.POLLNVAL
        return not any(event & errors for _, event in poll.poll(max(1, timeout_s * 1000)))

    def read(self) -> int:
        """Store the frames that are there, up to the buffer's room; how many."""
        before = len(self.buffer)
        while self.buffer.room and self._status[self._next][0] & _OURS:
            if walk_block(self.buffer.words, self._blocks[self._next]):
                break
            self._status[self._next][0] = 0
            self._next = (self._next + 1) % _BLOCKS
        stored = len(self.buffer) - before
        if stored == 0:
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise CaptureError(
                    f"The interface {self._interface} gives no more frames: {os.strerror(error)}."
                )
        return stored

    def drops(self) -> tuple[int, int]:
        """Frames lost since opening: by the full ring, by the interface itself."""
        self._statistics()
        lost = _interface_drops(self._interface) - self._first_interface_drops
        return self._kernel_drops, max(0, lost)

    def _statistics(self) -> None:
        """Add up the ring's losses: reading them sets the kernel's counters back to 0."""
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        _, drops, _ = struct.unpack("3I", raw)
        self._kernel_drops += drops

    def close(self) -> None:
        self._blocks = []
        self._status = []
        # Views of the ring still held somewhere keep the memory; the socket is closed all the same.
        with contextlib.suppress(BufferError):
            self._memory.close()
        self._listener.close()


def _listen(interface: str, bpf_filter: str) -> Any:
    """Scapy's listening socket on the interface, with the filter attached."""
    from scapy.arch.linux import L2ListenSocket
    from scapy.config import conf
    from scapy.error import Scapy_Exception

    # It warns that it can't dissect these frames; nobody asks it to.
    logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
    conf.ifaces.reload()  # an interface that came since the last look
    try:
        return L2ListenSocket(interface, promisc=True, filter=bpf_filter or None)
    except PermissionError as error:
        raise CaptureError(
            capture_remedy(interface) or f"The interface {interface} can't be opened: {error}.",
            remedy=remedy_command(),
        ) from error
    except (ValueError, OSError) as error:  # Scapy or the kernel knows no such interface
        raise CaptureError(f"The interface {interface} can't be opened: {error}.") from error
    except Scapy_Exception as error:
        raise CaptureError(
            f"The filter {bpf_filter!r} can't be used ({error}): without libpcap there is none, "
            "and with it only what libpcap understands."
        ) from error


def _cut_frames(raw: socket.socket, snaplen: int) -> None:
    """A filter that lets everything through, but only its first `snaplen` bytes."""
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, snaplen), 8)
    program = struct.pack("HP", 1, ctypes.addressof(instruction))
    raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _interface_drops(interface: str) -> int:
    """Frames the interface itself could not take since it is up (what libpcap counts, too)."""
    folder = Path("/sys/class/net") / interface / "statistics"
    try:
        return sum(
            int((folder / name).read_text()) for name in ("rx_missed_errors", "rx_fifo_errors")
        )
    except (OSError, ValueError):  # no /sys, or the interface is gone
        return 0

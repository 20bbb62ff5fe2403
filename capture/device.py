"""A live interface by libpcap, named, filtered and opened through Scapy.

Importing this module imports Scapy's core (0.2 s), so the capture does it only when it opens.
"""

from __future__ import annotations

import ctypes
import select
import sys
from typing import Any, Final

from scapy.config import conf

from capture import libpcap
from capture.buffer import FrameBuffer
from capture.network_interfaces import capture_remedy, remedy_command
from errors import CaptureError

__all__ = ["PcapSource"]

# Scapy defines its libpcap classes only where this is said before they are imported.
conf.use_pcap = True

from scapy.arch.libpcap import open_pcap  # noqa: E402
from scapy.error import Scapy_Exception  # noqa: E402
from scapy.interfaces import network_name  # noqa: E402
from scapy.libs.structures import bpf_program  # noqa: E402
from scapy.libs.winpcapy import pcap_t  # noqa: E402

# The kernel's buffer: 32 MiB are 0.3 s of 200,000 frames a second, 512 bytes of each; on two cores
# five times overbooked, 16 MiB lost 2 % of them.
_BUFFER_BYTES: Final = 32 << 20
# How long the kernel may keep frames back to hand over more of them at once.
_GATHER_MS: Final = 40
_ERROR_BYTES: Final = 256  # PCAP_ERRBUF_SIZE
_NANOSECONDS: Final = 1  # PCAP_TSTAMP_PRECISION_NANO
_POLL_ERRORS: Final = 0x08 | 0x10 | 0x20  # POLLERR, POLLHUP, POLLNVAL


class _Device(open_pcap):
    """Scapy's libpcap handle, opened with what Scapy has no argument for.

    A large buffer, a snap length and nanoseconds must be set between pcap_create and
    pcap_activate; Scapy 2.8 does both in its constructor, with fixed values.
    """

    def __init__(self, interface: str, snaplen: int) -> None:
        library = libpcap.require_library()
        self.errbuf = ctypes.create_string_buffer(_ERROR_BYTES)
        self.iface = network_name(interface).encode()
        self.address = library.pcap_create(self.iface, self.errbuf)
        if not self.address:
            reason = self.errbuf.value.decode(errors="replace")
            raise CaptureError(f"The interface {interface} can't be opened: {reason}.")
        library.pcap_set_snaplen(self.address, snaplen)
        library.pcap_set_promisc(self.address, 1)
        library.pcap_set_timeout(self.address, _GATHER_MS)
        library.pcap_set_buffer_size(self.address, _BUFFER_BYTES)
        library.pcap_set_tstamp_precision(self.address, _NANOSECONDS)  # or it stays at 1 us
        status = library.pcap_activate(self.address)
        if status < 0:
            error = _refusal(interface, status, libpcap.error_text(self.address))
            library.pcap_close(self.address)
            raise error
        # What the methods of Scapy's class work with.
        self.pcap = ctypes.cast(self.address, ctypes.POINTER(pcap_t))
        self.bpf_program = bpf_program()
        self.dtl = -1


def _refusal(interface: str, status: int, reason: str) -> CaptureError:
    if status in (libpcap.PERMISSION_DENIED, libpcap.PROMISCUOUS_DENIED):
        sentence = capture_remedy(interface)
        if sentence:
            return CaptureError(sentence, remedy=remedy_command())
    reason = reason or libpcap.status_text(status)
    return CaptureError(f"The interface {interface} can't be opened: {reason}.")


class PcapSource:
    """Frames of one interface; `read` stores them in `buffer`.

    link_type: libpcap's DLT number. Raises CaptureError where the interface can't be opened, the
    filter is none, or (from `read`) the interface went away.
    """

    def __init__(self, interface: str, bpf_filter: str, snaplen: int, frames: int) -> None:
        conf.ifaces.reload()  # an interface that came since the last look
        try:
            self._device: Any = _Device(interface, snaplen)
        except ValueError as error:  # Scapy knows no interface of that name
            raise CaptureError(f"The interface {interface} is gone.") from error
        self._interface = interface
        self._handle: int = self._device.address
        try:
            self._filter(bpf_filter)
            self._descriptor = self._make_nonblocking()
        except BaseException:
            self.close()
            raise
        self.link_type = int(self._device.datalink())
        self.buffer = FrameBuffer(frames, snaplen)
        libpcap.describe_header(self._handle, self.buffer)

    def _filter(self, bpf_filter: str) -> None:
        if not bpf_filter:
            return
        try:
            self._device.setfilter(bpf_filter)
        except Scapy_Exception as error:
            raise CaptureError(
                f"The filter {bpf_filter!r} is not one libpcap understands on {self._interface}: "
                f"{libpcap.error_text(self._handle)}."
            ) from error

    def _make_nonblocking(self) -> int | None:
        """The descriptor to wait on. Without it libpcap waits in `read`: at most _GATHER_MS.

        libpcap itself can't be trusted to wait: on Linux its time-out never ends without traffic.
        """
        if sys.platform == "win32":
            return None
        self._device.setnonblock(True)
        descriptor = int(self._device.fileno())
        if descriptor < 0:
            raise CaptureError(f"The interface {self._interface} can't be waited on.")
        return descriptor

    def wait(self, timeout_s: float) -> bool:
        """Wait until frames may have come; False: there is an error `read` may tell about."""
        if sys.platform == "win32" or self._descriptor is None:
            return True
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return not any(event & _POLL_ERRORS for _, event in poll.poll(max(1, timeout_s * 1000)))

    def read(self) -> int:
        """Store the frames that are there, up to the buffer's room; how many."""
        stored = libpcap.dispatch(self._handle, self.buffer)
        if stored < 0:
            reason = libpcap.error_text(self._handle)
            raise CaptureError(f"The interface {self._interface} gives no more frames: {reason}.")
        return stored

    def drops(self) -> tuple[int, int]:
        """Frames lost since opening: by the kernel's full buffer, by the interface itself.

        Both are 32-bit counters and wrap.
        """
        stat = libpcap.PcapStat()
        if libpcap.require_library().pcap_stats(self._handle, ctypes.byref(stat)) < 0:
            return 0, 0
        return stat.dropped, stat.interface_dropped

    def close(self) -> None:
        self._device.close()

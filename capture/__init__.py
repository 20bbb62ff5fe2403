"""Frames in, FrameBatches out: from a live interface or from a file. The door of the room."""

from capture.files import CaptureFile, read_capture
from capture.live import CaptureState, InterfaceStatus, warm
from capture.network_interfaces import (
    Interface,
    capture_remedy,
    default_interface,
    friendly_name,
    interface_to_watch,
    interfaces,
    own_networks,
    remedy_command,
)
from capture.offloads import Offloads, read_offloads
from capture.several import Capture, CaptureStatus

__all__ = [
    "Capture",
    "CaptureFile",
    "CaptureState",
    "CaptureStatus",
    "Interface",
    "InterfaceStatus",
    "Offloads",
    "capture_remedy",
    "default_interface",
    "friendly_name",
    "interface_to_watch",
    "interfaces",
    "own_networks",
    "read_capture",
    "read_offloads",
    "remedy_command",
    "warm",
]

"""Frames in, FrameBatches out: from a live interface or from a file. The door of the room."""

from capture.files import CaptureFile, read_capture
from capture.live import Capture, CaptureState, CaptureStatus, warm
from capture.network_interfaces import (
    Interface,
    capture_remedy,
    default_interface,
    interface_to_watch,
    interfaces,
    own_networks,
    remedy_command,
)

__all__ = [
    "Capture",
    "CaptureFile",
    "CaptureState",
    "CaptureStatus",
    "Interface",
    "capture_remedy",
    "default_interface",
    "interface_to_watch",
    "interfaces",
    "own_networks",
    "read_capture",
    "remedy_command",
    "warm",
]

"""Frames in, FrameBatches out: from a live interface or from a file. The door of the room."""

from capture.files import CaptureFile, read_capture
from capture.live import Capture, CaptureState, CaptureStatus, warm
from capture.network_interfaces import (
    Interface,
    capture_remedy,
    default_interface,
    interfaces,
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
    "interfaces",
    "read_capture",
    "remedy_command",
    "warm",
]

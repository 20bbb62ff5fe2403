"""Frames in, packets out; what can't be read and what is seen twice is counted. The room's door."""

from packets.decoder import Decoder, decode_frames, warm
from packets.tunnels import TUNNELS

__all__ = ["TUNNELS", "Decoder", "decode_frames", "warm"]

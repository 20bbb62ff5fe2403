"""How much memory this process has used at most."""

from __future__ import annotations

import sys

import psutil

__all__ = ["peak_rss_bytes"]


def peak_rss_bytes() -> int:
    """The largest resident set so far, in bytes."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024  # Linux counts KiB

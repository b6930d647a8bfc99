"""The clock that sessions and locks count by."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

Clock = Callable[[], float]
"""Seconds since some moment; only differences count."""

BOOT_TIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_time() -> float:
    """Return the seconds since the machine started, those while it was suspended included.

    S24: a laptop that slept past a TTL must find its locks lost. Python's monotonic clock, and Trio's, stands still
    meanwhile on Linux; on macOS, which has no CLOCK_BOOTTIME, CLOCK_MONOTONIC goes on in sleep.
    """
    return time.clock_gettime(BOOT_TIME)

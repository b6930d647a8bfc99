"""The process's own figures, under the names that every Prometheus client gives them."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc/self")
_START_FIELD: Final = 19
_VIRTUAL_FIELD: Final = 20
_RESIDENT_FIELD: Final = 21
"""Places in /proc/self/stat after the command's name."""


def render_process() -> str:
    """Return the text of processor time, memory and descriptors; memory and descriptors only on Linux."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures: list[tuple[str, str, str, float]] = [
        ("process_cpu_seconds_total", "counter", "Processor time used.", used.ru_utime + used.ru_stime),
        ("process_max_fds", "gauge", "Most descriptors.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    ]
    if _PROC.exists():
        # The command's name is in parentheses and may hold any character, so what counts comes after the last
        # one.
        stat = _PROC.joinpath("stat").read_text().rpartition(")")[2].split()
        since_boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        age_s = since_boot_s - int(stat[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
        resident = int(stat[_RESIDENT_FIELD]) * resource.getpagesize()
        figures += [
            ("process_start_time_seconds", "gauge", "Start, in Unix time.", round(time.time() - age_s, 2)),
            ("process_virtual_memory_bytes", "gauge", "Address space.", int(stat[_VIRTUAL_FIELD])),
            ("process_resident_memory_bytes", "gauge", "Memory.", resident),
            ("process_open_fds", "gauge", "Open descriptors.", len(list(_PROC.joinpath("fd").iterdir()))),
        ]
    return "".join(
        f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n{name} {value}\n" for name, kind, meaning, value in figures
    )

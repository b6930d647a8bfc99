"""The programs in `bench/`, run as people run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"
TIMEOUT_S = 110


def run(program: str, *arguments: str | Path, statuses: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, which has to have one of these statuses."""
    command = [sys.executable, str(BENCH / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert done.returncode in statuses, done.stderr
    return done

"""Simulators, faults and checkers: what proves coord, for the tests of those who use it too.

`open_cluster` starts a cluster in virtual time, and `run_seeded` runs a test of it.
Names are loaded when they are first used: planted bugs must be in place before what they change is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coord.testing.cluster import Cluster, open_cluster
    from coord.testing.cluster_programs import Program
    from coord.testing.deterministic import run_seeded

_HOMES = {
    "Cluster": "coord.testing.cluster",
    "Program": "coord.testing.cluster_programs",
    "open_cluster": "coord.testing.cluster",
    "run_seeded": "coord.testing.deterministic",
}

__all__ = ["Cluster", "Program", "open_cluster", "run_seeded"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'coord.testing' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

"""Which process this is: what a client remembers of the cluster belongs to one process alone (S21).

Two processes that went on with one client id would give the same numbers to different writes, and two that went on with
one session would both believe that they own its locks.
"""

from __future__ import annotations

import os

_count = 0


def count() -> int:
    """Return how many forks lie between this process and the one that loaded the module."""
    return _count


def _in_child() -> None:
    global _count  # noqa: PLW0603  # the process is one thing, and Python's hook takes no argument
    _count += 1


os.register_at_fork(after_in_child=_in_child)

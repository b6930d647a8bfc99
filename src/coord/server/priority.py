"""The priority of the process while its member is behind the cluster.

A member that comes back takes a processor for as long as it loads its store, a snapshot and what it missed. Nobody
waits for that; but where it shares processors with other members and with clients, all of them wait for it. So its
threads are "nice" until it is level with its leader, if the system lets it take that back: with `CAP_SYS_NICE`, or
`LimitNICE=20` in its unit. Otherwise they stay as they are.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import trio
from attrs import define, field

from coord.node.node import Node
from coord.types import Role

NICENESS: Final = 10
_CAP_SYS_NICE: Final = 1 << 23
_LIMIT_NONE: Final = 20
"""The value of RLIMIT_NICE that allows a niceness of 0."""


def _may_return(niceness: int) -> bool:
    """Tell whether a thread that became nicer may be made as it was."""
    if sys.platform != "linux":
        return False
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NICE)
    if soft == resource.RLIM_INFINITY or soft >= _LIMIT_NONE - niceness:
        return True
    lines = Path("/proc/self/status").read_text().splitlines()
    capabilities = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(capabilities, 16) & _CAP_SYS_NICE)


def _threads() -> Iterable[int]:
    return [int(entry.name) for entry in Path("/proc/self/task").iterdir()]


def _set(thread: int, niceness: int) -> None:
    os.setpriority(os.PRIO_PROCESS, thread, niceness)


@define
class Priority:
    """Of all threads of the process."""

    initial: int = field(factory=lambda: os.getpriority(os.PRIO_PROCESS, 0))
    may_return: Callable[[int], bool] = _may_return
    threads: Callable[[], Iterable[int]] = _threads
    set_niceness: Callable[[int, int], None] = _set
    """Of a thread by its id; 0 is the caller's."""
    is_lowered: bool = False

    def lower(self) -> bool:
        """Make this thread nicer, and all that it starts; False if it could not be taken back."""
        if self.initial < NICENESS and self.may_return(self.initial):
            self.set_niceness(0, NICENESS)
            self.is_lowered = True
        return self.is_lowered

    def restore(self) -> None:
        """Make all threads as they were."""
        if self.is_lowered:
            self.is_lowered = False
            for thread in self.threads():
                self.set_niceness(thread, self.initial)


async def until_level(node: Node, patience_s: float) -> None:
    """Return when what is applied is not older than `patience_s`, or there is no leader to be level with."""
    while True:
        is_level = trio.Event()
        node.after_round(is_level.set)
        with trio.move_on_after(patience_s):
            await is_level.wait()
        if is_level.is_set() or node.raft.leader_id == 0 or node.raft.role is Role.LEADER:
            return

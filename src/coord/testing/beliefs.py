"""What programs believe and have done, looked at from outside of all of them: who owns what, at one virtual moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

import trio
from attrs import define, field


class Owned(Protocol):
    """A lock or a leadership."""

    @property
    def is_lost(self) -> bool:
        """Its program, looked at now, would say so."""

    @property
    def fence(self) -> int:
        """The fencing token."""


@define(eq=False)
class Belief:
    """A program's belief that it owns a name."""

    owned: Owned
    name: str
    kind: str
    run: str
    """Which run of which program believes it."""


LEFT_S: Final = 15.0
"""The key of one that went away stands for so long, where it could not be removed: its lease, and a leader's change."""
SHARED = {"read": 1_000_000, "semaphore": 2}
"""Kinds of which so many may own at a time, among themselves."""


@define(eq=False)
class Observer:
    """Sees all programs of a simulation."""

    trace: Callable[..., None]
    over: trio.Event = field(factory=trio.Event)
    """Set when programs should end."""
    is_calm: bool = False
    """The faults are over."""
    is_quiet: bool = False
    """The faults are over, and what they left too."""
    wrong: list[str] = field(factory=list)
    happened: Counter[str] = field(factory=Counter)
    running: dict[str, str] = field(factory=dict)
    """The run of each program that lives."""
    beliefs: list[Belief] = field(factory=list)
    last_fence: dict[str, int] = field(factory=dict)
    consumed: Counter[bytes] = field(factory=Counter)
    """Items that somebody took from the queue."""
    put: dict[bytes, bool] = field(factory=dict)
    """Items, and whether they are known to be in the queue."""
    doubtful_gets: int = 0
    heard: dict[str, int] = field(factory=dict)
    """The fence of the election's owner that each run was told of last."""
    views: dict[str, Callable[[], list[str]]] = field(factory=dict)
    """The addresses that each run sees in the registry."""
    visits: list[tuple[str, list[float]]] = field(factory=list)
    """Who came to the double barrier when, and left; who was killed there never left."""

    @property
    def is_over(self) -> bool:
        """True when programs should end."""
        return self.over.is_set()

    def complain(self, what: str) -> None:
        """Note what should not be."""
        self.trace("wrong", told=what)
        self.wrong.append(what)

    def enter(self, belief: Belief) -> None:
        """Take a new owner: by their own deadlines no two may own what one may (S24), and fences only grow (S27)."""
        self.trace("owns", run=belief.run, kind=belief.kind, name=belief.name, fence=belief.owned.fence)
        self.happened[f"{belief.kind} owned"] += 1
        # A program that was killed believes nothing any more; one that is paused does.
        living = set(self.running.values())
        self.beliefs = [one for one in self.beliefs if one.run in living and not one.owned.is_lost]
        others = [one for one in self.beliefs if one.name == belief.name]
        room = SHARED.get(belief.kind, 0)
        if len([one for one in others if one.kind == belief.kind]) >= max(room, 1) or any(
            one.kind != belief.kind for one in others
        ):
            self.complain(f"{belief.run} owns {belief.name} as {belief.kind} while {_told(others)}")
        self.beliefs.append(belief)
        if not room:
            if belief.owned.fence <= self.last_fence.get(belief.name, 0):
                self.complain(f"{belief.name}: fence {belief.owned.fence} after {self.last_fence[belief.name]}")
            self.last_fence[belief.name] = belief.owned.fence

    def hear(self, run: str, fence: int) -> None:
        """Take what a program was told of an election's owner: never one before the one that it was told of last."""
        self.happened["owners told of"] += 1
        if fence < self.heard.get(run, 0):
            self.complain(f"{run} was told of fence {fence} after {self.heard[run]}")
        self.heard[run] = fence

    def come(self, run: str) -> list[float]:
        """Take one that comes to the double barrier; return its visit: when it came, and later when it left."""
        visit = [trio.current_time()]
        self.visits.append((run, visit))
        return visit

    def meet(self, run: str, visit: list[float]) -> None:
        """Take one that was let in: at least one other was there while it waited, or what a crash left of one."""
        self.happened["met"] += 1
        since = visit[0] - (0.0 if self.is_quiet else LEFT_S)
        if not any(other != run and (len(when) == 1 or when[1] >= since) for other, when in self.visits):
            self.complain(f"{run} was let in though nobody else was there")


def _told(beliefs: list[Belief]) -> str:
    return ", ".join(f"{one.run} does as {one.kind}" for one in beliefs)

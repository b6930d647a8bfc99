"""Runs of Trio that a seed repeats: the one place that knows how to make its scheduler deterministic.

Trio shuffles the tasks that may run, by a generator of its own, so that nobody relies on their order. Seeded, that
shuffle explores interleavings and plays each again. The hooks are private to Trio; `tests/simulation` holds them to
their word: one seed gives one trace, another seed another.

What a run must keep away from, since no seed reaches it: threads, sockets, the wall clock, `id()` and `hash()` of
objects where their order shows, and the order of sets of strings or bytes, which changes from process to process
unless `PYTHONHASHSEED` is set. The simulators iterate over no such set; the variable is needed to be sure of code
under test that might.
"""

from __future__ import annotations

import gc
import hashlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import trio
import trio.testing

Result = TypeVar("Result")


@contextmanager
def seeded_scheduler(seed: int) -> Iterator[None]:
    """Let every `trio.run` in this context schedule as `seed` says, with Python's cycle collector off.

    The collector runs finalizers at a moment that depends on what was allocated before, in other tests too.
    """
    run: Any = trio._core._run
    was_deterministic = run._ALLOW_DETERMINISTIC_SCHEDULING
    was_collecting = gc.isenabled()
    state = run._r.getstate()
    run._ALLOW_DETERMINISTIC_SCHEDULING = True
    run._r.seed(seed)
    gc.disable()
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = was_deterministic
        run._r.setstate(state)
        if was_collecting:
            gc.enable()


def run_seeded(seed: int, main: Callable[[], Awaitable[Result]]) -> Result:
    """Run `main` on a virtual clock that jumps whenever all tasks wait, scheduled as `seed` says."""
    with seeded_scheduler(seed):
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


process: ContextVar[str] = ContextVar("process", default="")
"""Which simulated process a task belongs to; tasks inherit it from the task that started them."""


class Freezer(deque[Any]):
    """Trio's queue of tasks that may run, with the power to stop a process as SIGSTOP does.

    The tasks of a frozen process stay where they are, whatever becomes of their deadlines and of what they wait for,
    and go on from there when it thaws.
    """

    def __init__(self) -> None:
        runner = trio._core._run.GLOBAL_RUN_CONTEXT.runner
        super().__init__(runner.runq)
        runner.runq = self
        self._frozen: dict[str, list[Any]] = {}

    def append(self, task: Any) -> None:
        """Let a task run, or keep it back."""
        if self._frozen and (kept := self._frozen.get(task.context.get(process, ""))) is not None:
            kept.append(task)
        else:
            super().append(task)

    def freeze(self, name: str) -> None:
        """Stop a process; one of its tasks may still be in the midst of its step."""
        self._frozen.setdefault(name, [])

    def thaw(self, name: str) -> None:
        """Let a process go on."""
        for task in self._frozen.pop(name, ()):
            super().append(task)

    def thaw_all(self) -> None:
        """Let every process go on: a run ends only when all its tasks have."""
        for name in tuple(self._frozen):
            self.thaw(name)


class Trace:
    """What happened in a run, line by line: equal runs have equal digests."""

    def __init__(self, show: Callable[[str], None] | None = None) -> None:
        self._digest = hashlib.sha256()
        self._show = show
        self.lines = 0

    def __call__(self, what: str, **fields: Any) -> None:
        """Note `what`, at the virtual time of now."""
        told = " ".join(f"{name}={value!r}" for name, value in fields.items())
        line = f"{trio.current_time():.6f} {what} {told}".rstrip()
        self.lines += 1
        self._digest.update(line.encode() + b"\n")
        if self._show is not None:
            self._show(line)

    @property
    def digest(self) -> str:
        """The digest of all lines so far."""
        return self._digest.hexdigest()


def run_traced(
    seed: int,
    main: Callable[[Trace], Awaitable[None]],
    lasts_s_max: float,
    show: Callable[[str], None] | None = None,
) -> Trace:
    """Run `main` as `run_seeded` does, for so long at most, and return the trace that it was given to write."""

    async def traced() -> Trace:
        trace = Trace(show)
        with trio.fail_after(lasts_s_max):
            await main(trace)
        return trace

    return run_seeded(seed, traced)


def fork(chance: random.Random) -> random.Random:
    """Return a generator of its own, so that what one part draws does not shift what another does."""
    return random.Random(chance.getrandbits(64))

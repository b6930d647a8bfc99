"""Where the links of a run of Trio wait for their sockets: together, in one task.

A task that waits for each socket alone costs a step of that task, a system call to arm Trio's poll again, and the
coroutines between. Here every socket stays registered in a poll of the hub's own, whose descriptor is the only one
that Trio waits for, and what has come is read by plain calls.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from time import monotonic
from typing import Final

import trio
from attrs import define

from coord.transport.pace import BUSY_POLL_S, DISPLACED_S, SHARED_LOOKS, SHARED_S, Pace

SOCKETS_PER_PASS: Final = 128
"""So many are read before other tasks have their turn; the kernel tells of the others first the next time."""
TASKS_AT_ONCE: Final = 64
"""When so many tasks were woken by what was read, they have their turn: what they send is on its way while the rest is
read, and the other side works meanwhile."""
LINGER_S: Final = 0.002
"""How long the hub waits by itself for what comes next, if the last did not take longer to come."""
STINT_S: Final = 0.01
"""For so long at most Trio is not asked what else there is."""


@define(eq=False)
class _Place:
    """A task that waits while others of its socket's events are handled for it."""

    task: trio.lowlevel.Task
    on_readable: Callable[[], None]
    error: BaseException | None = None


class Hub:
    """Handles what comes on every socket that is attended."""

    __slots__ = (
        "_afterwards",
        "_found_at",
        "_is_lingering",
        "_is_reading",
        "_kicks",
        "_left",
        "_must_not_linger",
        "_places",
        "_poll",
        "jobs_elsewhere",
        "pace",
    )

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._places: dict[int, _Place] = {}
        self._is_reading = False
        self._afterwards: list[Callable[[], None]] = []
        self._must_not_linger: Callable[[], bool] = lambda: True
        self._is_lingering = False
        self._found_at = 0.0
        self._kicks = -1
        self.jobs_elsewhere = 0
        """How many jobs threads do for this one."""
        self.pace = Pace()
        """Of what comes where it lingers."""
        self._left: list[tuple[int, int]] = []

    async def attend(self, fd: int, on_readable: Callable[[], None]) -> None:
        """Call `on_readable` in each pass that finds the socket readable or broken, until `dismiss`.

        What it raises ends this alone, and is raised here.
        """
        self._poll.register(fd, select.EPOLLIN)
        place = self._places[fd] = _Place(trio.lowlevel.current_task(), on_readable)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._forget(fd)
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            if place.error is not None:
                raise place.error

    def dismiss(self, fd: int) -> None:
        """Let the task go on that attends to the socket, if there is one.

        To be called before the socket is closed: its number may be another's at once, and where a forked process still
        holds it the poll would go on telling of it.
        """
        place = self._forget(fd)
        if place is not None:
            trio.lowlevel.reschedule(place.task)

    def _forget(self, fd: int) -> _Place | None:
        place = self._places.pop(fd, None)
        if place is not None:
            self._poll.unregister(fd)
        return place

    def after_reading(self, call: Callable[[], None]) -> bool:
        """Have `call` made once all that was found readable in this pass is read; False if nothing is being read.

        It must not raise.
        """
        if self._is_reading:
            self._afterwards.append(call)
        return self._is_reading

    async def run(self) -> None:
        """Be the hub's task."""
        poll = self._poll
        try:
            while True:
                await trio.lowlevel.wait_readable(poll.fileno())
                # What was left comes before what the poll tells of, which begins with the same ones each time.
                found = self._left or poll.poll(0, SOCKETS_PER_PASS)
                ends = monotonic() + STINT_S
                while found:
                    self.pace.found(found)
                    self._left = self._read(found)
                    found = self._linger(ends)
        finally:
            poll.close()
            if self._kicks >= 0:
                os.close(self._kicks)

    def _read(self, found: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Have what was found handled, and then what waits for that; return what is left for the next pass."""
        places = self._places
        # Where it may linger, in a node, no task waits for a message.
        wakes_tasks = self._kicks < 0
        left: list[tuple[int, int]] = []
        self._is_reading = True
        for count, (fd, _) in enumerate(found, 1):
            # One before it in this pass may have closed it. If its number is another's already, that one finds
            # nothing to read.
            place = places.get(fd)
            if fd == self._kicks:
                os.eventfd_read(fd)
            elif place is not None:
                try:
                    place.on_readable()
                except BaseException as error:
                    place.error = error
                    if places.get(fd) is place:
                        self.dismiss(fd)
            # To ask costs as much as a message: it is done after the first, the second, the fourth, the eighth …
            if wakes_tasks and not count & (count - 1) and count < len(found) and _many_are_woken():
                left = found[count:]
                break
        self._is_reading = False
        afterwards, self._afterwards = self._afterwards, []
        for call in afterwards:
            call()
        return left

    # ---- waiting without Trio

    def let_linger(self, unless: Callable[[], bool]) -> None:
        """Wait in the hub's own poll for what comes next, as long as nothing else is to be done.

        For a program that is the hub's alone, such as a node: whatever else Trio waits for may have to wait `LINGER_S`
        longer. Threads that tell the loop something call `kick` after `run_sync_soon`. `unless` tells whether a task
        that must not wait is about to run: those that were chosen for this pass of Trio's are in no statistics.
        """
        self._must_not_linger = unless
        self._kicks = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._kicks, select.EPOLLIN)

    def kick(self) -> None:
        """Have the hub see what `run_sync_soon` was given; from any thread."""
        if self._is_lingering:
            os.eventfd_write(self._kicks, 1)

    def _linger(self, ends: float) -> list[tuple[int, int]]:
        """Return what is found readable within a moment; nothing if something else is to be done.

        Where requests follow each other closely, the way back into Trio's poll and from there to here is a good part
        of what it takes to be reached by one.
        """
        now, before = monotonic(), self._found_at
        self._found_at = now
        if now >= ends or now - before > LINGER_S or self._must_not_linger():
            return []
        self._is_lingering = True
        statistics = trio.lowlevel.current_statistics()
        wait_s = min(LINGER_S, statistics.seconds_to_next_deadline)
        found = []
        if wait_s > 0 and not statistics.tasks_runnable and not statistics.run_sync_soon_queue_size:
            found = self._wait(wait_s, now)
        self._is_lingering = False
        return found

    def _wait(self, wait_s: float, began: float) -> list[tuple[int, int]]:
        poll, pace = self._poll.poll, self.pace
        now, shared = began, 0
        # A thread that works for this process wants its interpreter when it is done, and tells by a kick.
        while pace.is_close and not self.jobs_elsewhere and now - began < min(wait_s, BUSY_POLL_S):
            found = poll(0, SOCKETS_PER_PASS)
            before, now = now, monotonic()
            if found:
                pace.waited(now - began)
                return found
            shared += now - before > SHARED_S
            if now - before > DISPLACED_S:
                pace.displaced()
            elif shared > SHARED_LOOKS:
                break
            # Whoever sends the next message may be on this processor.
            os.sched_yield()
        found = poll(wait_s, SOCKETS_PER_PASS)
        pace.waited(monotonic() - began)
        return found


def _many_are_woken() -> bool:
    return trio.lowlevel.current_statistics().tasks_runnable >= TASKS_AT_ONCE


_HUB: Final[trio.lowlevel.RunVar[Hub | None]] = trio.lowlevel.RunVar("coord.transport.hub")


def existing_hub() -> Hub | None:
    """Return the hub of this run of Trio, None where none was needed yet."""
    return _HUB.get(None)


def current_hub() -> Hub | None:
    """Return the hub of this run of Trio, made at its first use; None where the system has no `epoll`."""
    hub = _HUB.get(None)
    if hub is None and hasattr(select, "epoll"):
        hub = Hub()
        _HUB.set(hub)
        trio.lowlevel.spawn_system_task(hub.run, name="coord.transport.hub")
    return hub

"""The one task that runs all actors of a node.

An actor is an owner, not a task: it has state, an inbox and a synchronous turn. Filling an inbox calls `wake`; the
loop then runs the turns in a fixed order, once per pass of Trio's scheduler, so that all connections that became
readable in one pass share one batch, one write to the log and one frame each of replies.

Where one task reads all connections, the turns run in its step, behind the last of them: a step of the loop's own, and
the look at all sockets before it, are a tenth of the time that a lone request takes on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from coord.transport.hub import Hub, existing_hub

STALL_S = 0.05

Turn = Callable[[], bool]
"""Handles what is in an actor's inbox; True if it stopped before the end, to let others run."""


class Loop:
    """Runs the turns while there is work, and sleeps while there is none."""

    def __init__(self, clock: Callable[[], float], on_stall: Callable[[str, float], None]) -> None:
        self._clock = clock
        self._on_stall = on_stall
        self._turns: Sequence[Turn] = ()
        self._hub: Hub | None = None
        self._task: trio.lowlevel.Task | None = None
        self._is_dirty = False
        self._is_promised = False
        """The turns run once all that has come is read."""
        self._failure: BaseException | None = None
        self.passes = 0
        self.stalls = 0
        """Turns that held everything up for `STALL_S` or more."""

    @property
    def is_awake(self) -> bool:
        """True if the turns run by themselves in this pass of Trio's or the next."""
        return self._task is None

    def wake(self) -> None:
        """Say that an inbox was filled."""
        self._is_dirty = True
        if self._task is None or self._is_promised:
            return
        if self._hub is None:
            self._hub = existing_hub()
        self._is_promised = self._hub is not None and self._hub.after_reading(self._keep_promise)
        if not self._is_promised:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    async def run(self, turns: Sequence[Turn]) -> None:
        """Run until cancelled; an exception out of a turn ends the node (law 7)."""
        self._turns = turns
        while True:
            if not self._is_dirty:
                await self._sleep()
            if self._failure is not None:
                raise self._failure
            self._is_dirty = False
            self.run_pass()
            if self._is_dirty:
                await trio.lowlevel.checkpoint()

    def run_pass(self) -> None:
        """Run every turn once."""
        self.passes += 1
        began = self._clock()
        for turn in self._turns:
            if turn():
                self._is_dirty = True
            ended = self._clock()
            if ended - began >= STALL_S:
                self.stalls += 1
                self._on_stall(turn.__qualname__, ended - began)
            began = ended

    def _keep_promise(self) -> None:
        """Run the turns in another's task; what they raise ends the node, not that task."""
        # The loop may have been cancelled meanwhile.
        if self._task is not None:
            self._is_dirty = False
            try:
                self.run_pass()
            except BaseException as error:
                self._failure = error
                self._is_dirty = True
        self._is_promised = False
        if self._is_dirty:
            self.wake()

    async def _sleep(self) -> None:
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

"""Driving the steps of recipes in a thread that waits."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from attrs import frozen

from coord.client.blocking_calls import BlockingCalls
from coord.client.blocking_watch import BlockingWatch
from coord.client.recipes.steps import Ask, AwaitChange, Outcome, Reply, Steps, TimeIsUp
from coord.client.watching import WatchState
from coord.errors import ApiError, ConnectionFailed, CoordError

GOODBYE_S: Final = 1.0
"""What a block's end may take to clean up in the cluster."""
LOOK_S: Final = 1.0
"""A thread cannot be cancelled: so often one that waits looks whether it still should."""


@frozen
class Runner:
    """Drives steps with the calls of a client; each wait is a watch on a connection of its own.

    Once it `is_over` nothing is awaited any more.
    """

    calls: BlockingCalls
    is_over: Callable[[], bool] = lambda: False

    def run(self, steps: Steps[Outcome], until: float = math.inf) -> Outcome:
        """Take a recipe's steps to their end, and return its outcome.

        Raises what the recipe lets out, and `TimeIsUp` at `until` on the monotonic clock, or within `LOOK_S` of when
        it is over.
        """
        try:
            step = next(steps)
            while True:
                if time.monotonic() >= until:
                    raise TimeIsUp
                self._go_on()
                try:
                    brought = None
                    if isinstance(step, Ask):
                        brought = self._ask(step, until)
                    else:
                        self._await_change(step, until)
                except CoordError as error:
                    if time.monotonic() >= until:
                        raise TimeIsUp from error
                    step = steps.throw(error)
                else:
                    step = steps.send(brought)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        finally:
            steps.close()

    def _go_on(self) -> None:
        if self.is_over():
            raise TimeIsUp

    def _ask(self, step: Ask, until: float) -> Reply[object]:
        seconds = min(self.calls.seconds(step.timeout), until - time.monotonic())
        answer, sends = self.calls.ask(step.verb, seconds, self._go_on)
        return Reply(answer, was_sent_once=sends == 1)

    def _await_change(self, step: AwaitChange, until: float) -> None:
        state = WatchState(0, step.key, step.range_end, step.since, no_put=step.only_deletes)
        # A watch that cannot be created now, or whose start is compacted away, is a gap: what comes next is a read,
        # which waits for the cluster, and raises what is really wrong.
        with BlockingWatch(self.calls.open, itertools.count(1), state) as watch, suppress(ApiError, ConnectionFailed):
            watch.start(min(self.calls.timeout, until - time.monotonic()))
            while not self.is_over() and (left_s := until - time.monotonic()) > 0:
                with suppress(TimeoutError):
                    watch.next(min(left_s, LOOK_S))
                    return

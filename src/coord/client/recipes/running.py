"""Driving the steps of recipes with Trio."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

import trio

from coord.client.calls import Subscription
from coord.client.driver import Driver
from coord.client.recipes.steps import Ask, AwaitChange, Outcome, Reply, Steps, TimeIsUp
from coord.client.watching import WatchState
from coord.errors import ApiError, ConnectionFailed, CoordError


async def run(
    driver: Driver,
    steps: Steps[Outcome],
    shielded_s: float = math.inf,
    when_sent: Callable[[], object] | None = None,
) -> Outcome:
    """Take a recipe's steps to their end, and return its outcome. Raises what the recipe lets out.

    With `shielded_s` what it asks for is waited for though the caller is cancelled, so many seconds in all; then
    `TimeIsUp` is raised. It costs less than a scope does, and is for steps that wait for no change. `when_sent` is
    called once the first thing was asked for, before anything is waited for.
    """
    deadline = shielded_s if shielded_s == math.inf else trio.current_time() + shielded_s
    try:
        step = next(steps)
        while True:
            try:
                brought = None
                if isinstance(step, Ask):
                    brought = await _ask(driver, step, deadline, when_sent)
                    when_sent = None
                else:
                    await _await_change(driver, step)
            except CoordError as error:
                if deadline != math.inf and trio.current_time() >= deadline:
                    raise TimeIsUp from error
                step = steps.throw(error)
            else:
                step = steps.send(brought)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
    finally:
        steps.close()


async def _ask(driver: Driver, step: Ask, deadline: float, when_sent: Callable[[], object] | None) -> Reply[object]:
    verb, timeout = step.verb, step.timeout
    if is_shielded := deadline != math.inf:
        timeout = deadline - trio.current_time()
        if timeout <= 0:
            raise TimeIsUp
    call = await driver.call(
        verb.is_write,
        verb.code,
        verb.arguments,
        timeout,
        verb.guard,
        verb.patience_s,
        is_shielded=is_shielded,
        when_sent=when_sent,
    )
    return Reply(verb.parse(call.header(), call.reply[2]), was_sent_once=call.sends == 1)


async def _await_change(driver: Driver, step: AwaitChange) -> None:
    state = WatchState(0, step.key, step.range_end, step.since, no_put=step.only_deletes)
    subscription = Subscription(state)
    # A watch that cannot be created now, or whose start is compacted away, is a gap: what comes next is a read, which
    # waits for the cluster, and raises what is really wrong.
    with suppress(ApiError, ConnectionFailed):
        await driver.subscribe(subscription, None)
        try:
            # Word of a second creation is news too: the connection broke in between.
            if not subscription.batches and subscription.error is None:
                await driver.wait_news(subscription)
        finally:
            driver.unsubscribe(subscription)

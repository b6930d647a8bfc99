"""Driving the steps of recipes with Trio."""

from __future__ import annotations

from contextlib import suppress

from coord.client.calls import Subscription
from coord.client.driver import Driver
from coord.client.recipes.steps import Ask, AwaitChange, Outcome, Reply, Steps
from coord.client.watching import WatchState
from coord.errors import ApiError, ConnectionFailed, CoordError


async def run(driver: Driver, steps: Steps[Outcome]) -> Outcome:
    """Take a recipe's steps to their end, and return its outcome. Raises what the recipe lets out."""
    try:
        step = next(steps)
        while True:
            try:
                brought = None
                if isinstance(step, Ask):
                    brought = await _ask(driver, step)
                else:
                    await _await_change(driver, step)
            except CoordError as error:
                step = steps.throw(error)
            else:
                step = steps.send(brought)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
    finally:
        steps.close()


async def _ask(driver: Driver, step: Ask) -> Reply[object]:
    verb = step.verb
    call = await driver.call(verb.is_write, verb.code, verb.arguments, step.timeout, verb.guard, verb.patience_s)
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

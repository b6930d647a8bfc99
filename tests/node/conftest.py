from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
import trio.testing

from coord.node.node import Node
from coord.testing.sim_node import SimHost

Scenario = Callable[[SimHost, Node], Awaitable[None]]


def play(scenario: Scenario, host: SimHost | None = None, *, limit_s: float = 10_000.0) -> SimHost:
    """Run a scenario on one node in virtual time, and lose power at its end."""
    machine = host or SimHost(1)

    async def main() -> None:
        with trio.fail_after(limit_s):
            async with trio.open_nursery() as nursery:
                node = await nursery.start(machine.run)
                await scenario(machine, node)
                nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    machine.lose_power()
    return machine

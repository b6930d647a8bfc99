"""Steps that are given a time end by then, however often they would try again; and what is done while they wait."""

from __future__ import annotations

import math

import pytest
import trio
from tests.client.trio_fakes import Network

from coord.client import verbs
from coord.client.client import Client
from coord.client.recipes.running import run
from coord.client.recipes.steps import Steps, TimeIsUp, ask, read_patiently

from .machine_node import MachineNode
from .test_locks import ONE, told


@pytest.mark.parametrize("how", ["silence", "refusals"])
def test_what_tries_again_ends_in_time(how: str) -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        await opened[0].put("k", b"v")
        if how == "silence":
            network.stop(ONE)
        else:
            network.cut(ONE)
        began = trio.current_time()
        with pytest.raises(TimeIsUp):
            await run(opened[0]._driver, read_patiently(verbs.range_("k", {}, 0)), 1.0)
        assert trio.current_time() - began == pytest.approx(1.0, abs=0.2)
        network.down.clear()
        network.resume(ONE)
        reply = await run(opened[0]._driver, read_patiently(verbs.range_("k", {}, 0)), 9.0)
        assert reply.kvs[0].value == b"v"

    told(story)


def test_what_can_be_done_meanwhile_is_done_once_the_first_thing_was_asked_for() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        driver, sent = opened[0]._driver, []
        read = verbs.range_("k", {}, 0)

        async def ask_twice(shielded_s: float) -> None:
            def steps() -> Steps[int]:
                yield from ask(read)
                assert sent == [False]
                yield from ask(read)
                return 1

            answered = trio.Event()
            sent.clear()
            assert await run(driver, steps(), shielded_s, lambda: sent.append(answered.is_set())) == 1
            answered.set()
            assert sent == [False]

        await ask_twice(math.inf)
        await ask_twice(5.0)

        def nothing() -> Steps[int]:
            yield from ()
            return 2

        sent.clear()
        assert await run(driver, nothing(), when_sent=lambda: sent.append(True)) == 2
        assert not sent

    told(story)

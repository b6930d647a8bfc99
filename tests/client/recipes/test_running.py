"""Steps that are given a time end by then, however often they would try again."""

from __future__ import annotations

import pytest
import trio
from tests.client.trio_fakes import Network

from coord.client import verbs
from coord.client.client import Client
from coord.client.recipes.running import run
from coord.client.recipes.steps import TimeIsUp, read_patiently

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

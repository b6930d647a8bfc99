"""What is applied for others gives way to others."""

from __future__ import annotations

import os

import pytest
import trio

from coord.codec import encode
from coord.node.node import Node
from coord.protocol.ops import Op
from coord.testing.sim_node import SimClient, SimHost

from .conftest import play


@pytest.mark.parametrize(("is_awaited", "wanted"), [(True, 0), (False, 4)])
def test_between_entries_that_nobody_here_waits_for_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch, is_awaited: bool, wanted: int
) -> None:
    applied: list[int] = []
    given_way: list[int] = []

    async def scenario(host: SimHost, node: Node) -> None:
        monkeypatch.setattr(os, "sched_yield", lambda: given_way.append(len(applied)))
        on_applied = node.applier.on_applied
        node.applier.on_applied = lambda one: (applied.append(one.index), on_applied(one))[0]
        node.applier.is_held = True
        for number in range(5):
            writes = [[0, int(Op.PUT), None, [b"k%d" % number, b""]]]
            node.writes(SimClient(node), 0, 0, [(0, 0)], encode(writes), writes)
            await trio.sleep(0.1)
        assert node.applier.lag == 5
        if not is_awaited:
            node.consensus.waiters.placed.clear()
        node.applier.is_held = False
        assert not node.applier.turn()

    play(scenario)
    assert len(applied) == 5
    assert given_way == [1, 2, 3, 4][:wanted]

"""The alarm follows what is so, whoever else changes it."""

from __future__ import annotations

import pytest
import trio

from coord.errors import ApiError
from coord.node.node import Node
from coord.node.space import SpaceWatch
from coord.protocol.ops import AlarmAction, Method, Op
from coord.testing.sim_node import SimClient, SimHost
from coord.types import AlarmType

from .conftest import play


def test_an_alarm_that_is_disarmed_at_once_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        node.space.quota_bytes = 1
        raised = trio.Event()
        changed = node.space.alarms_changed

        def tell() -> None:
            changed()
            raised.set()

        monkeypatch.setattr(SpaceWatch, "alarms_changed", lambda space: tell())
        await raised.wait()
        node.log_writer.worker.delay_s_max = 0.0  # type: ignore[attr-defined]
        await client.write(Op.ALARM, [int(AlarmAction.DEACTIVATE), node.member_id, int(AlarmType.NOSPACE)])
        assert not node.space.is_raised()
        await trio.sleep(3)
        assert node.space.is_raised()
        assert await client.request(Method.ALARM_LIST, []) == [[node.member_id, int(AlarmType.NOSPACE)]]

    play(scenario)


def test_refusals_while_the_alarm_is_on_cost_no_entries() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        node.space.quota_bytes = 1
        await trio.sleep(2)
        last = node.raft.log.last_index
        for _ in range(50):
            try:
                await client.put(b"a", b"1")
            except ApiError:
                await trio.sleep(0.1)
        assert node.raft.log.last_index == last

    play(scenario)

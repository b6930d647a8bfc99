"""The alarm follows what is so, whoever else changes it, and on whichever member it is so."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from tests.node.cluster_rig import Trial, play_three, until

from coord.errors import ApiError
from coord.node.node import Node
from coord.node.space import SILENT_S, SpaceWatch
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


def alarms(trial: Trial, name: str) -> list[int]:
    """Return whose NOSPACE alarms a member holds for raised."""
    return sorted(member for member, kind in trial.nodes[name].machine.alarms if kind == AlarmType.NOSPACE)


def test_a_follower_whose_disk_alone_is_full_raises_the_alarm_and_clears_it() -> None:
    """S16: the leader judges what the members report; its own disk has room."""

    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        name = trial.followers()[0]
        full, disk = trial.nodes[name], trial.hosts[name].disk
        await trial.client(leader).put(b"a", b"1")
        disk.capacity_bytes = 0
        await until(lambda: alarms(trial, leader) == [full.member_id])
        with pytest.raises(ApiError, match="database space exceeded"):
            await trial.client(leader).put(b"a", b"2")
        (told,) = trial.hosts[leader].log.of("alarm.state.raised")
        assert told["member"] == full.member_id
        await trio.sleep(3 * SILENT_S)
        assert alarms(trial, leader) == [full.member_id]
        disk.capacity_bytes = None
        await until(lambda: not alarms(trial, leader) and not alarms(trial, name))
        await trial.client(name).put(b"a", b"3")
        await trial.agree()

    play_three(story)


def test_each_member_is_judged_by_its_own_quota_and_reports_no_more_than_needed() -> None:
    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        name = trial.followers()[0]
        node = trial.nodes[name]
        sent: list[float] = []
        send = node.space.send

        def count(reports: object) -> None:
            sent.append(trio.current_time())
            send(reports)  # type: ignore[arg-type]

        node.space.send = count
        await trio.sleep(1)
        node.space.quota_bytes = 1
        await until(lambda: alarms(trial, leader) == [node.member_id], 2.5)
        sent.clear()
        await trio.sleep(100)
        assert 15 <= len(sent) <= 25
        for number in range(40):
            node.space.quota_bytes = number % 2
            await trio.sleep(0.5)
        assert min(later - sooner for sooner, later in pairwise(sent)) > 0.9
        node.space.quota_bytes = 0
        await until(lambda: not alarms(trial, leader), 2.5)

    play_three(story)


def test_the_alarm_of_a_member_that_is_gone_does_not_stay() -> None:
    """Nor is it cleared by a leader that had no time to hear of it."""

    async def story(trial: Trial) -> None:
        first = await trial.leader()
        name = trial.followers()[0]
        trial.nodes[name].space.quota_bytes = 1
        full = trial.nodes[name].member_id
        await until(lambda: alarms(trial, first) == [full])
        await trial.kill(first)
        second = await trial.leader()
        await trio.sleep(2 * SILENT_S)
        assert all(alarms(trial, other) == [full] for other in trial.nodes)
        assert not trial.hosts[second].log.of("alarm.state.cleared")
        await trial.start(first)
        await trial.kill(name)
        third = await trial.leader()
        await until(lambda: not alarms(trial, third), 3 * SILENT_S)
        await trial.client(third).put(b"a", b"1")

    play_three(story)

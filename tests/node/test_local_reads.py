"""Serializable reads on a follower cost the leader nothing: no frame, no read round, no turn of its loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import trio
from attrs import frozen
from tests.node.cluster_rig import Trial, play_three

from coord.node.node import Node
from coord.node.peer_side import PeerSide
from coord.protocol.messages import HeartbeatReply, ReadRequest, SpaceReport
from coord.protocol.ops import Method
from coord.protocol.peer_protocol import PeerMessage
from coord.testing.sim_node import SimClient

STEPS, STEP_S, READS_A_STEP = 1_000, 0.01, 10
IDLE = {HeartbeatReply, SpaceReport}
"""What members say to a leader while nothing is asked of them."""
SLACK = 6
"""Of a hundred beats of either follower, so many may fall into the one window or the next."""

Ask = Callable[[SimClient], Awaitable[object]]


@frozen
class Cost:
    """What a stretch of time cost a leader."""

    heard: Counter[type]
    """Messages of the others."""
    frames_bytes: int
    passes: int
    ranges: int


async def nothing(_: SimClient) -> None: ...


async def local(client: SimClient) -> None:
    records, _, _ = await client.request(Method.RANGE, [b"k", b"", 0, 0, 0, 0, True])
    assert records[0][5] == b"v"


async def linearizable(client: SimClient) -> None:
    assert await client.get(b"k") == b"v"


async def cost_of(ask: Ask, each: int, client: SimClient, leader: Node, heard: Counter[type]) -> Cost:
    def sent() -> int:
        return sum(sent for sent, _ in leader.peers.traffic().values())

    before, passes, ranges = sent(), leader.loop.passes, leader.reader.ranges_served
    heard.clear()
    for _ in range(STEPS):
        async with trio.open_nursery() as nursery:
            for _ in range(each):
                nursery.start_soon(ask, client)
        await trio.sleep(STEP_S)
    return Cost(Counter(heard), sent() - before, leader.loop.passes - passes, leader.reader.ranges_served - ranges)


def test_a_leader_does_not_notice_reads_of_what_a_follower_has(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: Counter[type] = Counter()
    leaders: list[Node] = []
    received = PeerSide.received

    def count(self: PeerSide, sender: int, messages: list[PeerMessage]) -> None:
        if self.node in leaders:
            heard.update(map(type, messages))
        received(self, sender, messages)

    monkeypatch.setattr(PeerSide, "received", count)

    async def story(trial: Trial) -> None:
        name = await trial.leader()
        leaders.append(leader := trial.nodes[name])
        await trial.joined()
        follower = trial.followers()[0]
        await trial.client(name).put(b"k", b"v")
        await trial.agree()
        client = trial.client(follower)
        quiet = await cost_of(nothing, 0, client, leader, heard)
        reading = await cost_of(local, READS_A_STEP, client, leader, heard)
        asked = await cost_of(linearizable, 1, client, leader, heard)
        assert trial.nodes[follower].reader.ranges_served >= READS_A_STEP * STEPS
        assert set(reading.heard) <= IDLE
        assert reading.ranges == 0
        assert reading.heard.total() == pytest.approx(quiet.heard.total(), abs=SLACK)
        assert reading.passes == pytest.approx(quiet.passes, abs=SLACK)
        assert reading.frames_bytes == pytest.approx(quiet.frames_bytes, rel=SLACK / 100)
        # What is counted is not blind: linearizable reads do ask the leader.
        assert asked.heard[ReadRequest] > SLACK
        assert asked.passes > quiet.passes + SLACK

    play_three(story)

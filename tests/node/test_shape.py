"""What requests cost, counted: syncs, frames, steps of tasks, transactions and log lines for 1 000 of each kind.

Three members and real clients run in virtual time that stands still: disks and links take none, so that no heartbeat,
tick or flush comes between, and what is counted is of the requests alone. The scheduler is seeded, so that every
machine counts the same. The bounds lie a little above what is counted today: a change that adds a frame or a task's
step to each request meets them. Whoever saves some lowers them: `pytest -rP tests/node/test_shape.py` tells the counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

import pytest
import trio
from attrs import define, field, frozen

from coord.client.client import Client
from coord.protocol.ops import PEER_SUBPROTOCOL
from coord.testing.cluster import Cluster, open_cluster
from coord.testing.deterministic import process, run_seeded
from coord.transport.memory import MemoryLink

Request = Callable[[Client], Awaitable[object]]

STAND_INS: Final = ("SimWorker.run", "coord.transport.memory")
"""Tasks that stand for a thread, and for the time that a link takes."""
KEY: Final = b"key"
VALUE: Final = bytes(256)


async def put(client: Client) -> None:
    await client.put(KEY, VALUE)


async def get(client: Client) -> None:
    assert await client.get(KEY)


async def get_serializable(client: Client) -> None:
    assert await client.get(KEY, serializable=True)


@frozen
class Load:
    """Who makes the requests: so many callers, each one after the other, over connections to these members."""

    request: Request
    to: str
    connections: int = 1
    callers: int = 1
    requests: int = 200


def many(request: Request) -> Load:
    return Load(request, "all", connections=10, callers=100, requests=1_000)


@frozen(kw_only=True)
class Most:
    """For 1 000 requests, over all three members and all clients."""

    syncs: int = 0
    """Writes of the log that were waited for."""
    member_frames: int = 0
    client_frames: int = 0
    member_steps: int = 0
    """Times that Trio ran one of the members' tasks."""
    client_steps: int = 0
    passes: int = 0
    """Times that a member's actors had a turn."""
    transactions: int = 0
    """Commits of the store: by time and by size, never for a request."""
    log_lines: int = 0


MOST: Final = {
    # The leader and one follower sync, and the other is spared. Frames: an append, which tells of the commit before it,
    # and its answer.
    "puts one by one, to the leader": (
        Load(put, "leader"),
        Most(
            syncs=2_050,
            member_frames=2_050,
            client_frames=2_050,
            member_steps=11_000,
            client_steps=3_050,
            passes=4_700,
            # A segment of the simulated log holds some sixty of them.
            log_lines=60,
        ),
    ),
    # The put to the leader, and word of the commit to the follower, which answers from its own apply (S14); and an
    # append and its answer with the other one, for it is not known before the next tick that it could be spared.
    "puts one by one, to a follower": (
        Load(put, "follower"),
        Most(
            syncs=3_050,
            member_frames=6_050,
            client_frames=2_050,
            member_steps=23_300,
            client_steps=3_050,
            passes=9_150,
            log_lines=60,
        ),
    ),
    # All that comes while a sync is under way shares the next, and its frames; ten callers share a frame of their
    # client's, and of its answers. How it gathers depends on the scheduler's seed, and is half as much again in some.
    "puts of 100 callers": (
        many(put),
        Most(
            syncs=85,
            member_frames=160,
            client_frames=220,
            member_steps=720,
            client_steps=1_450,
            passes=225,
            log_lines=40,
        ),
    ),
    # A round: the leader asks one follower, which makes a quorum.
    "linearizable gets one by one, from the leader": (
        Load(get, "leader"),
        Most(member_frames=2_020, client_frames=2_050, member_steps=9_100, client_steps=3_050, passes=3_050),
    ),
    # The follower asks the leader, and has answered it thereby.
    "linearizable gets one by one, from a follower": (
        Load(get, "follower"),
        Most(member_frames=2_020, client_frames=2_050, member_steps=9_100, client_steps=3_050, passes=3_050),
    ),
    # Those that wait when a round begins share it (S8).
    "linearizable gets of 100 callers": (
        many(get),
        Most(member_frames=70, client_frames=220, member_steps=450, client_steps=1_450, passes=90),
    ),
    # The member that is asked, and nobody else.
    "serializable gets one by one, from a follower": (
        Load(get_serializable, "follower"),
        Most(client_frames=2_050, member_steps=3_050, client_steps=3_050, passes=1_020),
    ),
    "serializable gets of 100 callers": (
        many(get_serializable),
        Most(client_frames=220, member_steps=260, client_steps=1_450, passes=35),
    ),
}


@define(eq=False)
class Tally(trio.abc.Instrument):
    """Counts from `begin` to `end`."""

    cluster: Cluster
    counts: Counter[str] = field(factory=Counter)

    def begin(self) -> None:
        self.counts.subtract(self.told())
        self.cluster.network.on_send = self.sent
        trio.lowlevel.add_instrument(self)

    def end(self) -> None:
        trio.lowlevel.remove_instrument(self)
        self.counts.update(self.told())

    def told(self) -> Counter[str]:
        """What members count themselves, since they started."""
        told: Counter[str] = Counter()
        for name, member in self.cluster.members.items():
            node = self.cluster.node(name)
            told["syncs"] += node.log_writer.syncs
            told["transactions"] += node.keeper.flushes
            told["passes"] += node.loop.passes
            told["log_lines"] += len(member.host.log.records)
        return told

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if not task.name.endswith(STAND_INS):
            self.counts["member_steps" if task.context.get(process) else "client_steps"] += 1

    def sent(self, link: MemoryLink, message: bytes) -> None:
        self.counts["member_frames" if link.subprotocol == PEER_SUBPROTOCOL else "client_frames"] += 1


async def counted(load: Load) -> Counter[str]:
    """Make the requests on a cluster of three that has come to rest."""
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(open_cluster(3, seed=1))
        leader = await cluster.leader()
        followers = [name for name in cluster.names if name != leader]
        members = {"leader": [leader], "follower": followers[:1], "all": cluster.names}[load.to]
        clients = [
            await stack.enter_async_context(cluster.client(endpoints=[members[number % len(members)]]))
            for number in range(load.connections)
        ]
        for client in clients:
            await put(client)
        for name in cluster.names:
            cluster.slow_disk(name, 0.0)
        # Long enough that those are known who are not needed for a quorum.
        await cluster.advance(2.5)
        tally, began = Tally(cluster), trio.current_time()
        tally.begin()

        async def call(client: Client) -> None:
            for _ in range(load.requests // load.callers):
                await load.request(client)

        async with trio.open_nursery() as nursery:
            for number in range(load.callers):
                nursery.start_soon(call, clients[number % load.connections])
        tally.end()
        assert trio.current_time() == began, "time went on: what was counted is not of the requests alone"
        return tally.counts


@pytest.mark.parametrize("name", MOST)
def test_requests_cost_no_more_than_they_did(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.testing.sim_network.DELAY_S_MIN", 0.0)
    monkeypatch.setattr("coord.testing.sim_network.DELAY_S_MAX", 0.0)
    load, most = MOST[name]
    counts = run_seeded(1, lambda: counted(load))
    found = {what.name: round(counts[what.name] * 1_000 / load.requests) for what in Most.__attrs_attrs__}
    allowed = {what: getattr(most, what) for what in found}
    print(found)
    over = {what: f"{cost}, not {allowed[what]}" for what, cost in found.items() if cost > allowed[what]}
    assert not over, f"1 000 {name} cost more than they did: {over}"
    # Who counts nothing guards nothing.
    assert all(cost > 0 for what, cost in found.items() if allowed[what]), found

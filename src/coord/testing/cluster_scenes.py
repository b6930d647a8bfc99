"""Short stories about rules of safety that chance seldom comes upon; each asserts that its rule holds.

Tests play them on coord as it is, and the hunt for planted bugs on what breaks the rule.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from coord.codec import encode
from coord.errors import ApiError, DataDirError
from coord.protocol.entries import encode_entry
from coord.protocol.hello import Purpose, Welcome, decode_answer, encode_hello
from coord.protocol.messages import AppendReply
from coord.protocol.ops import PEER_SUBPROTOCOL, EntryKind, Method, Op
from coord.protocol.peer_protocol import encode_frame
from coord.testing.cluster import Cluster, open_cluster
from coord.testing.cluster_connection import ConnectionLost
from coord.testing.deterministic import run_seeded
from coord.testing.sim_node import peer_url

Scene = Callable[[Cluster], Awaitable[None]]

_LASTS_S_MAX: Final = 300.0
_LEASE: Final = 7
_TTL_S: Final = 40


def play(scene: Scene, seed: int = 1, size: int = 3, **options: Any) -> None:
    """Play a scene on a cluster that has just started."""

    async def main() -> None:
        with trio.fail_after(_LASTS_S_MAX):
            async with open_cluster(size, seed=seed, **options) as cluster:
                await scene(cluster)

    run_seeded(seed, main)


async def others(cluster: Cluster) -> tuple[str, str, str]:
    """Return the leader of three and the other two."""
    leader = await cluster.leader()
    one, other = (name for name in cluster.names if name != leader)
    return leader, one, other


async def a_wiped_member_votes(cluster: Cluster) -> None:
    """S1: who has the acknowledged write is out of reach, and the wiped member must not make up for it."""
    leader, wiped, behind = await others(cluster)
    await cluster.advance(1.0)
    cluster.partition([leader, wiped], [behind])
    await cluster.connection(leader).put(b"k", b"acknowledged")
    await cluster.wipe(wiped)
    cluster.partition([leader], [wiped], [behind])

    async def start() -> None:
        try:
            await cluster.start(wiped)
        except DataDirError:
            return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        await cluster.advance(5.0)
        cluster.network.heal(wiped, behind)
        cluster.network.heal(behind, wiped)
        await cluster.advance(20.0)
        assert cluster.leader_now() in (None, leader), "a member that lost its disk helped another to lead"
        cluster.heal()
        found = await cluster.connection(behind).get(b"k", timeout_s=20.0)
        assert found == b"acknowledged", f"what was acknowledged is {found!r} now"
        nursery.cancel_scope.cancel()


async def a_member_speaks_for_another(cluster: Cluster) -> None:
    """S2: one link says in the name of a dead member that it has what the leader waits for."""
    leader, liar, dead = await others(cluster)
    await cluster.connection(leader).put(b"k", b"v")
    await cluster.advance(1.0)
    node = cluster.node(leader)
    hello = cluster.node(liar).peer_side.hello(node.member_id, Purpose.MESSAGES)
    slandered = cluster.node(dead).member_id
    for name in (liar, dead):
        await cluster.kill(name)
    answers: list[str] = []

    async def write() -> None:
        try:
            await cluster.connection(leader).put(b"k", b"not agreed on", timeout_s=3.0)
        except (ApiError, ConnectionLost) as error:
            answers.append(str(error))
        else:
            answers.append("")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await cluster.advance(0.1)
        link = await cluster.network.endpoint(liar, PEER_SUBPROTOCOL).dial(peer_url(leader))
        link.send(encode_hello(hello))
        assert isinstance(decode_answer(await link.recv()), Welcome)
        link.send(encode_frame([AppendReply(slandered, node.member_id, node.raft.term, node.raft.log.last_index)]))
        await cluster.advance(5.0)
    assert answers != [""], "a write was acknowledged that one member has"


async def an_expiry_of_another_term_comes(cluster: Cluster) -> None:
    """S22: what a deposed leader meant to expire may have been renewed since."""
    leader, *_ = await others(cluster)
    await cluster.connection(leader).write(0, 0, [0, int(Op.LEASE_GRANT), None, [60, _LEASE]], 5.0)
    term = cluster.node(leader).raft.term
    await cluster.connection(leader).request(Method.MOVE_LEADER, [0], 5.0)
    node = cluster.node(await cluster.leader())
    assert node.raft.term > term
    stale = encode([term, node.machine.applied_index, [_LEASE]])
    assert node.consensus.propose_internal(encode_entry(EntryKind.EXPIRY, None, stale))
    await cluster.advance(2.0)
    assert node.machine.lease_ttl(_LEASE), "a lease ended by the word of an earlier leader"


async def a_checkpoint_of_another_term_comes(cluster: Cluster) -> None:
    """S23: what a deposed leader wrote down may be older than a renewal that another has acknowledged."""
    leader, *_ = await others(cluster)
    await _grant(cluster, leader)
    term = cluster.node(leader).raft.term
    await cluster.connection(leader).request(Method.MOVE_LEADER, [0], 5.0)
    node = cluster.node(await cluster.leader())
    stale = encode([term, node.machine.applied_index, [[_LEASE, 1]]])
    assert node.consensus.propose_internal(encode_entry(EntryKind.CHECKPOINT, None, stale))
    await cluster.advance(2.0)
    await _renew(cluster)
    await _change_leader(cluster)
    await _must_live(cluster, _TTL_S / 2)


async def a_renewal_comes_late(cluster: Cluster) -> None:
    """S23: it was missed and written down, then it came; the next leader must not go by what was written down."""
    await _grant(cluster, await cluster.leader())
    await cluster.advance(_TTL_S * 0.8)
    await _renew(cluster)
    await _change_leader(cluster)
    await _must_live(cluster, _TTL_S * 0.9)


async def a_renewal_meets_a_checkpoint_on_its_way(cluster: Cluster) -> None:
    """S23: the disks are slow, rounds are not, so that a renewal overtakes what was proposed before it."""
    leader = await cluster.leader()
    await _grant(cluster, leader)
    began = trio.current_time()
    await cluster.advance(_TTL_S / 2 - 1)
    for name in cluster.names:
        cluster.slow_disk(name, 0.6, log_only=True)
    reaper = cluster.node(leader).leases
    while not reaper.checkpointed:  # noqa: ASYNC110  # virtual time
        await trio.sleep(0.005)
    assert trio.current_time() - began < _TTL_S * 0.6
    await _renew(cluster)
    await cluster.kill(leader)
    for name in cluster.names:
        if name != leader:
            cluster.slow_disk(name, None)
    await _must_live(cluster, _TTL_S * 0.9)


async def leaders_change_after_a_holder_died(cluster: Cluster) -> None:
    """S23: each change gives its keys less than TTL/2 more, though nobody knows when it was heard last."""
    await _grant(cluster, await cluster.leader())
    ends = trio.current_time() + _TTL_S
    for part in (0.45, 0.9):
        await cluster.advance(_TTL_S * part)
        ends += _TTL_S / 2
        await _change_leader(cluster)
    while await _is_there(cluster):
        assert trio.current_time() < ends + 2.0, "a lease that nobody renews outlives its leaders for too long"
        await cluster.advance(0.5)


async def _grant(cluster: Cluster, name: str) -> None:
    await cluster.connection(name).write(0, 0, [0, int(Op.LEASE_GRANT), None, [_TTL_S, _LEASE]], 5.0)


async def _renew(cluster: Cluster) -> None:
    """Renew the lease; return when that is acknowledged."""
    while True:
        try:
            answer = await cluster.connection(await cluster.leader()).request(Method.LEASE_KEEP_ALIVE, [[_LEASE]], 5.0)
        except (ApiError, ConnectionLost):
            await cluster.advance(0.1)
            continue
        assert answer[1] == [[_LEASE, _TTL_S]], f"a lease that still had time is {answer[1]}"
        return


async def _change_leader(cluster: Cluster) -> None:
    leader = await cluster.leader()
    await cluster.kill(leader)
    await cluster.start(leader)
    await cluster.leader()


async def _is_there(cluster: Cluster) -> bool:
    node = cluster.node(await cluster.leader())
    return node.machine.lease_ttl(_LEASE) > 0


async def _must_live(cluster: Cluster, seconds: float) -> None:
    ends = trio.current_time() + seconds
    while trio.current_time() < ends:
        assert await _is_there(cluster), f"a lease ended {ends - trio.current_time():.1f} s too early"
        await cluster.advance(0.5)


SCENES: Final[dict[str, Scene]] = {
    scene.__name__: scene
    for scene in (
        a_wiped_member_votes,
        a_member_speaks_for_another,
        an_expiry_of_another_term_comes,
        a_checkpoint_of_another_term_comes,
        a_renewal_comes_late,
        a_renewal_meets_a_checkpoint_on_its_way,
        leaders_change_after_a_holder_died,
    )
}

"""Short stories about exactly once, in the form of those in `cluster_scenes`: what becomes of one write."""

from __future__ import annotations

from collections import Counter
from typing import Final

import trio

from coord.client.client import Client
from coord.errors import ApiError, ConnectionFailed, OutcomeUnknown
from coord.testing.cluster import Cluster
from coord.testing.cluster_scenes import Scene, others
from coord.testing.history_ledger import replay

ME: Final = "me"


async def answers_are_dropped(cluster: Cluster) -> None:
    """The request arrives and its answer does not: it is sent again through another member, and answered."""
    leader, *_ = await others(cluster)
    async with cluster.client(ME) as client:
        await _settle(cluster, client)
        cluster.cut(leader, ME)
        assert await client.put("k", b"v") == await _revision_of(cluster, b"k")
        _assert_sent_twice(cluster)
        cluster.reset(leader, ME)


async def the_leader_dies_between_append_and_reply(cluster: Cluster) -> None:
    """The others have the write, and tell nobody in time: who leads next finds it in its log."""
    leader, one, other = await others(cluster)
    async with cluster.client(ME) as client:
        await _settle(cluster, client)
        for name in (one, other):
            cluster.slow(name, leader, 0.5)

        async def kill() -> None:
            await cluster.advance(0.1)
            await cluster.kill(leader)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            revision = await client.put("k", b"v")
        assert revision == await _revision_of(cluster, b"k")
        _assert_sent_twice(cluster)


async def a_follower_is_paused_with_a_forwarded_write_inside(cluster: Cluster) -> None:
    """It has sent the write on, and stands still before it can answer."""
    _, one, other = await others(cluster)
    async with cluster.client(ME, endpoints=[one, other]) as client:
        await _settle(cluster, client)
        asked = _active(client)

        async def pause() -> None:
            await cluster.advance(0.003)
            cluster.pause(asked)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pause)
            revision = await client.put("k", b"v")
        assert revision == await _revision_of(cluster, b"k")
        _assert_sent_twice(cluster)
        cluster.resume(asked)
        await cluster.advance(3.0)
        assert revision == await _revision_of(cluster, b"k")


async def a_request_is_overtaken_by_later_ones(cluster: Cluster) -> None:
    """Its first sending arrives when its second was answered, and what it wrote was deleted since."""
    async with cluster.client(ME) as client:
        await _settle(cluster, client)
        slow = _active(client)
        cluster.slow(ME, slow, 3.0)
        await client.put("k", b"v")
        assert await client.delete("k") == 1
        before = len(replay(cluster.ledger).writes)
        await cluster.advance(4.0)
        assert len(replay(cluster.ledger).writes) > before, "the first sending has not arrived"
        assert await client.get("k") is None


async def a_second_sending_is_refused(cluster: Cluster) -> None:
    """S19: a member without a leader refuses it clearly, which says nothing of the first, that was applied."""
    leader, one, other = await others(cluster)
    async with cluster.client(ME, endpoints=[leader, one], timeout=3.0) as client:
        await _settle(cluster, client)
        cluster.cut(leader, ME)
        unknown = False

        async def cut() -> None:
            await cluster.advance(0.1)
            cluster.partition([leader, other], [one])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            try:
                await client.put("k", b"v")
            except OutcomeUnknown:
                unknown = True
            except (ApiError, ConnectionFailed) as error:
                raise AssertionError(f"it was refused, but it was done: {error!r}") from None
        assert unknown
        cluster.heal()
        assert await _revision_of(cluster, b"k")


async def a_forgotten_client_is_in_doubt(cluster: Cluster) -> None:
    """S17: the record that would recognize the second sending is gone; what was never sent goes under a new id."""
    leader, *_ = await others(cluster)
    async with cluster.client(ME) as client, cluster.client("another") as another:
        await _settle(cluster, client)
        cluster.cut(leader, ME)

        async def forget() -> None:
            await cluster.advance(0.1)
            await another.put("other", b"v")

        outcome = ""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forget)
            try:
                await client.put("k", b"v")
            except OutcomeUnknown as error:
                outcome = str(error)
        assert "no longer has this client" in outcome, f"what is in doubt ended with {outcome or 'an answer'}"
        pair = await another.get("k")
        assert pair is not None
        assert pair.version == 1, f"it was done {pair.version} times"
        cluster.heal()
        revision = await client.put("later", b"v")
        assert revision == await _revision_of(cluster, b"later")


SCENES: Final[dict[str, Scene]] = {
    scene.__name__: scene
    for scene in (
        answers_are_dropped,
        the_leader_dies_between_append_and_reply,
        a_follower_is_paused_with_a_forwarded_write_inside,
        a_request_is_overtaken_by_later_ones,
        a_second_sending_is_refused,
        a_forgotten_client_is_in_doubt,
    )
}
OPTIONS: Final[dict[str, dict[str, int]]] = {"a_forgotten_client_is_in_doubt": {"client_records_max": 1}}


async def _settle(cluster: Cluster, client: Client) -> None:
    """Let a client register, and find the connections that it will use."""
    await client.put("first", b"v")
    await cluster.advance(1.0)


def _active(client: Client) -> str:
    """Return the member that a client asks."""
    active = client._core.active
    assert active is not None
    return active.endpoint.host


async def _revision_of(cluster: Cluster, key: bytes) -> int:
    """Return when a key was written, once and never again."""
    async with cluster.client("judge") as client:
        pair = await client.get(key)
    assert pair is not None, f"{key!r} is lost"
    assert pair.version == 1, f"{key!r} was written {pair.version} times"
    return pair.mod_revision


def _assert_sent_twice(cluster: Cluster) -> None:
    """See that the story is about what it says: the log has one number twice."""
    sent = Counter((one.client, one.number) for one in replay(cluster.ledger).writes if one.number)
    assert max(sent.values()) > 1, "nothing was sent twice"

"""Changes of members: what both clients send and return, and that none is ever sent twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from attrs import define

import coord
from coord.client.blocking import BlockingClient
from coord.client.client import Client
from coord.errors import NotFound, OutcomeUnknown, no_leader
from coord.protocol.ops import Method

from .fake_node import FakeNode
from .threaded_fakes import Listener, listening
from .trio_fakes import a_client, a_network, run, settle

NAMES = ("n1:7379", "n2:7379", "n3:7379")
URL = "http://10.0.0.4:7380"
LEARNER = 2**64 - 1
SENT = [
    [Method.MEMBER_ADD, [URL], True],
    [Method.MEMBER_UPDATE, LEARNER, ["http://10.0.0.5:7380", URL]],
    [Method.MEMBER_PROMOTE, LEARNER],
    [Method.MEMBER_REMOVE, [LEARNER, 8]],
    [Method.MOVE_LEADER, 8],
    [Method.MOVE_LEADER, 0],
    [Method.MEMBER_ADD, [URL], False],
]

Change = Callable[[Any], Any]
CHANGES: list[Change] = [
    lambda client: client.member_add([URL]),
    lambda client: client.member_remove(8),
    lambda client: client.member_update(8, [URL]),
    lambda client: client.member_promote(8),
    lambda client: client.move_leader(8),
]


@define
class MortalNode(FakeNode):
    """Makes a change, and dies before it can say so."""

    die: Callable[[], Any] = bool

    def change(self, method: int, *arguments: Any) -> Any:
        result = FakeNode.change(self, method, *arguments)
        self.die()
        return result


def a_blocking_client(*listeners: Listener, timeout: float = 5.0) -> BlockingClient:
    return coord.connect_sync([listener.endpoint for listener in listeners], timeout=timeout)


def test_each_change_returns_what_the_node_answered() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, NAMES[0])
        async with a_client(network) as client:
            added = await client.member_add([URL], is_learner=True)
            assert (added.member.id, added.member.peer_urls, added.member.is_learner) == (LEARNER, (URL,), True)
            assert [member.id for member in added.members] == [7, LEARNER]
            assert added.header.member_id == 7
            updated = await client.member_update(LEARNER, ["http://10.0.0.5:7380", URL])
            assert updated.members[1].peer_urls == ("http://10.0.0.5:7380", URL)
            assert not (await client.member_promote(LEARNER)).members[1].is_learner
            assert len((await client.member_remove(LEARNER, 8)).members) == 1
            assert (await client.move_leader(8)).leader_id == 8
            assert (await client.move_leader()).leader_id == 9
            assert (await client.member_add(URL)).member.becomes_voter
            with pytest.raises(NotFound):
                await client.member_promote(404)
            with pytest.raises(ValueError, match="no member's id"):
                await client.member_remove(2**64)
        assert network.nodes[NAMES[0]].changes[:-1] == SENT

    run(test)


def test_the_blocking_client_does_the_same() -> None:
    with listening(FakeNode()) as (listener,), a_blocking_client(listener) as client:
        assert client.member_add([URL], is_learner=True).member.id == LEARNER
        assert client.member_update(LEARNER, ["http://10.0.0.5:7380", URL]).members[1].peer_urls[1] == URL
        assert not client.member_promote(LEARNER).members[1].is_learner
        assert len(client.member_remove(LEARNER, 8).members) == 1
        assert client.move_leader(8).leader_id == 8
        assert client.move_leader().leader_id == 9
        assert client.member_add(URL).member.becomes_voter
        with pytest.raises(NotFound):
            client.member_promote(404)
    assert listener.node.changes[:-1] == SENT


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_whose_node_is_lost_is_not_made_elsewhere(change: Callable[[Client], Awaitable[Any]]) -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, *NAMES)
        async with a_client(network) as client:
            await client.get("k")
            (first,) = [name for name in NAMES if network.nodes[name].reads]
            network.nodes[first].is_silent = True

            async def ask() -> None:
                with pytest.raises(OutcomeUnknown, match=f"connection to {first} lost"):
                    await change(client)

            async with trio.open_nursery() as callers:
                callers.start_soon(ask)
                await settle()
                network.cut(first)
            # The client itself goes on.
            assert await client.get("k") is None
        assert [len(network.nodes[name].changes) for name in NAMES] == [int(name == first) for name in NAMES]

    run(test)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_is_not_answered_in_time_may_have_happened(change: Callable[[Client], Awaitable[Any]]) -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, NAMES[0])
        node = network.nodes[NAMES[0]]
        async with a_client(network, timeout=2.0) as client:
            node.is_silent = True
            with pytest.raises(OutcomeUnknown, match="may still be applied"):
                await change(client)
            node.is_silent = False
            node.refusals = [OutcomeUnknown("etcdserver: leader changed: the change may still happen")]
            with pytest.raises(OutcomeUnknown, match="leader changed"):
                await change(client)
        assert len(node.changes) == 1

    run(test)


@pytest.mark.parametrize("change", CHANGES)
def test_the_blocking_client_makes_no_change_twice(change: Callable[[BlockingClient], Any]) -> None:
    nodes = [MortalNode(), MortalNode(member_id=8)]
    with listening(*nodes) as listeners:
        for node, listener in zip(nodes, listeners, strict=True):
            node.die = listener.hang_up
        with a_blocking_client(*listeners) as client:
            with pytest.raises(OutcomeUnknown, match="lost"):
                change(client)
            assert client.get("k") is None
        with a_blocking_client(*listeners, timeout=0.3) as client:
            for node in nodes:
                node.die, node.is_silent = bool, True
            with pytest.raises(OutcomeUnknown, match="no answer within"):
                change(client)
    assert sum(len(node.changes) for node in nodes) == 2


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_was_clearly_refused_is_tried_again(change: Callable[[Client], Awaitable[Any]]) -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, NAMES[0])
        node = network.nodes[NAMES[0]]
        async with a_client(network) as client:
            node.refusals = [no_leader(), no_leader()]
            await change(client)
        assert len(node.changes) == 1

    run(test)

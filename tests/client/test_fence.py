"""Writes that depend on an ownership: `fence=` becomes the guard on the wire, and is checked before one is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from attrs import define

import coord
from coord.client import verbs
from coord.client.client import Client
from coord.errors import ClientError, FenceLost

from .fake_node import FakeNode
from .threaded_fakes import listening
from .trio_fakes import a_client, a_network, run

ONE = "n1:1"


class Lost(ClientError):
    """What the ownership of these tests raises."""


@define
class Owner:
    """An ownership, as far as a write needs one."""

    key: bytes
    fence: int
    is_lost: bool = False

    def check(self) -> None:
        if self.is_lost:
            raise Lost("lost")


Write = Callable[[Client, Owner], Awaitable[object]]
WRITES: dict[str, Write] = {
    "put": lambda client, owner: client.put("k", b"v", fence=owner),
    "put_response": lambda client, owner: client.put_response("k", b"v", fence=owner),
    "delete": lambda client, owner: client.delete("k", fence=owner),
    "delete_response": lambda client, owner: client.delete_response("k", fence=owner),
    "txn": lambda client, owner: client.txn(then=[coord.op.put("k", b"v")], fence=owner),
    "txn that only reads": lambda client, owner: client.txn(then=[coord.op.get("k")], fence=owner),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_with_a_fence_is_done_only_while_the_key_is_the_owners(write: Write) -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        node.put(b"k", b"old")
        async with a_client(network) as client:
            owner = Owner(b"lock/1", await client.put("lock/1", b""))
            await write(client, owner)
            # It goes, and comes back: another owner, though the key is the same.
            await client.delete("lock/1")
            await client.put("lock/1", b"")
            before = node.revision
            with pytest.raises(FenceLost):
                await write(client, owner)
            assert node.revision == before

    run(test)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_nothing_is_sent_for_an_ownership_that_is_known_to_be_lost(write: Write) -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            with pytest.raises(Lost):
                await write(client, Owner(b"lock/1", 2, is_lost=True))
        assert network.nodes[ONE].frames == []

    run(test)


def test_the_blocking_client_sends_the_guard_too() -> None:
    with listening(FakeNode()) as [one], coord.connect_sync(one.endpoint) as client:
        fence = client.put("lock/1", b"")
        client._call(verbs.put("k", b"v", 0, False, False, False, [b"lock/1", fence]), None)
        with pytest.raises(FenceLost):
            client._call(verbs.put("k", b"w", 0, False, False, False, [b"lock/1", fence + 1]), None)
        assert one.node.keys[b"k"][5] == b"v"

"""Clients of a member that has no leader: they go elsewhere while they have time left, and else are told the reason."""

from __future__ import annotations

from random import Random

import pytest
import trio

from coord.client import op
from coord.client.client import connect
from coord.client.endpoints import Endpoint
from coord.errors import ConnectionFailed, Unavailable, no_leader
from coord.protocol.ops import Notification
from coord.transport.link import CLOSE_TRY_LATER, Link
from coord.transport.memory import MemoryWire

from . import test_blocking
from .fake_node import FakeNode
from .threaded_fakes import listening
from .trio_fakes import Network, a_client, a_network, run, settle

ALONE = "etcdserver: no leader: n1 waits for n2, n3"


def test_the_first_refusal_for_want_of_a_leader_moves_a_client() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1", "n2:2")
        async with a_client(network) as client:
            await client.get("k")
            await settle()
            first = max(network.nodes, key=lambda name: len(network.nodes[name].frames))
            network.nodes[first].refusals = [no_leader(f"n{number} waits") for number in range(100)]
            await client.put("k", b"v")
            assert len(network.nodes[first].refusals) == 99

    run(test)


def test_the_last_try_of_a_write_leaves_time_for_its_answer() -> None:
    """Else a write of which it was known that nothing was done ends as one that may have happened (S14)."""

    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1")
        node = network.nodes["n1:1"]
        async with a_client(network) as client:
            await client.get("k")
            node.refusals = [no_leader("n1 waits for n2")] * 1000

            async def fall_silent() -> None:
                await trio.sleep(1.55)
                node.is_silent = True

            nursery.start_soon(fall_silent)
            with pytest.raises(Unavailable, match="n1 waits for n2") as caught:
                await client.put("k", b"v", timeout=2.0)
            assert type(caught.value) is Unavailable

    run(test)


def test_the_blocking_clients_last_try_leaves_time_too() -> None:
    with listening(FakeNode()) as (listener,), test_blocking.a_client(listener) as client:
        client.get("k")
        listener.node.refusals = [no_leader(ALONE)] * 1000
        with pytest.raises(Unavailable, match="n1 waits for n2, n3") as caught:
            client.put("k", b"v", timeout=0.6)
        assert type(caught.value) is Unavailable
        tries = 1000 - len(listener.node.refusals)
        assert 1 <= tries <= 4


@pytest.mark.parametrize("in_a_fragment", [False, True])
def test_a_watch_that_lost_its_leader_goes_on_elsewhere_without_a_gap_or_a_double(in_a_fragment: bool) -> None:
    """S30."""

    async def test(nursery: trio.Nursery) -> None:
        state = FakeNode()
        network = Network(nursery, {"n1:1": state, "n2:2": state})
        async with a_client(network) as client, client.watch("k", prefix=True) as watch:
            await settle()
            state.put(b"k1", b"1")
            first, standby = state.sessions
            (watch_id,) = first.watches
            if in_a_fragment:
                event = [0, [b"k2", 3, 3, 1, 0, b"2"], None]
                first.send_notifications([[int(Notification.EVENTS), [watch_id], 3, [event], True]])
            first.watches.clear()
            state.put(b"k2", b"2")
            first.send_notifications([[int(Notification.CANCELED), [watch_id], 0, no_leader().text]])
            await settle()
            await trio.sleep(0.1)
            assert not first.watches
            assert standby.watches, "it went to the other member at once"
            state.put(b"k3", b"3")
            got = [await watch.__anext__() for _ in range(3)]
            assert [(batch.revision, len(batch.events)) for batch in got] == [(2, 1), (3, 1), (4, 1)]

    run(test)


def test_a_node_without_a_cluster_says_whom_it_waits_for() -> None:
    async def dial(endpoint: Endpoint, timeout: float) -> Link:
        await trio.lowlevel.checkpoint()
        wire = MemoryWire(client="client", server=str(endpoint))
        wire.server.close(CLOSE_TRY_LATER, ALONE)
        return wire.client

    async def test(nursery: trio.Nursery) -> None:
        with pytest.raises(Unavailable) as caught:
            async with connect("n1:1", random=Random(1), dial=dial, timeout=2.0):
                pass
        assert caught.value.text == ALONE

    run(test)


def test_a_client_of_a_node_without_a_cluster_waits_for_it_and_then_belongs_to_it() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1")
        node = network.nodes["n1:1"]
        cluster, node.cluster_id = node.cluster_id, 0
        node.refusals = [no_leader(ALONE)] * 1000
        async with a_client(network, timeout=3.0) as client:
            with pytest.raises(Unavailable, match="n1 waits for n2, n3"):
                await client.put("k", b"v")

            async def form_a_cluster() -> None:
                await trio.sleep(1)
                node.cluster_id = cluster
                node.refusals.clear()

            nursery.start_soon(form_a_cluster)
            started = trio.current_time()
            assert await client.put("k", b"v") == 2
            assert trio.current_time() - started < 1.5
            assert client._core.cluster_id == cluster
            node.cluster_id = 0xBAD
            with pytest.raises(ConnectionFailed, match="it belongs to cluster bad, this client belongs to c0ffee"):
                await client.get("k")
            node.cluster_id = 0
            with pytest.raises(ConnectionFailed, match="it has no cluster yet, this client belongs to c0ffee"):
                await client.get("k")

    run(test)


def test_so_does_a_blocking_one() -> None:
    with listening(FakeNode()) as (listener,), test_blocking.a_client(listener) as client:
        node = listener.node
        cluster, node.cluster_id = node.cluster_id, 0
        node.refusals = [no_leader(ALONE)] * 1000
        with pytest.raises(Unavailable, match="n1 waits for n2, n3"):
            client.put("k", b"v", timeout=0.7)
        node.refusals = [no_leader(ALONE)] * 2
        node.cluster_id = cluster
        assert client.put("k", b"v") == 2
        node.cluster_id = 0
        listener.hang_up()
        with pytest.raises(ConnectionFailed, match="it has no cluster yet"):
            client.get("k", timeout=0.3)


def test_a_blocking_client_tries_until_its_time_is_over() -> None:
    """However long the pauses have grown: a cluster that is there at the end is found."""
    with listening(FakeNode()) as (listener,), test_blocking.a_client(listener, timeout=3.0) as client:
        rotation = client._calls.rotation
        for _ in range(20):
            rotation.failed(rotation.endpoints[0], "refused")
        assert rotation.pause_s() > 0.9
        assert client.put("k", b"v", timeout=0.9) == 2


def test_a_call_that_was_refused_says_so_even_if_nobody_is_left() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1")
        async with a_client(network, timeout=2.0) as client:
            await client.get("k")
            network.nodes["n1:1"].refusals = [no_leader(ALONE)] * 1000

            async def die() -> None:
                await trio.sleep(0.5)
                network.cut("n1:1")

            nursery.start_soon(die)
            with pytest.raises(Unavailable, match="n1 waits for n2, n3"):
                await client.put("k", b"v")

    run(test)


def test_what_turned_a_client_away_is_forgotten_once_its_node_is_gone() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1")
        async with a_client(network, timeout=1.0) as client:
            rotation = client._core.rotation
            (endpoint,) = rotation.endpoints
            rotation.turned_away(endpoint, ALONE)
            network.cut("n1:1")
            with pytest.raises(ConnectionFailed):
                await client.get("k")

    run(test)


def test_a_blocking_watch_is_created_again_where_there_is_a_leader() -> None:
    node, other = FakeNode(), FakeNode()
    with listening(node, other) as (one, two), test_blocking.a_client(one, two) as client:
        watch = client.watch("k", timeout=5)
        (session,) = [*node.sessions, *other.sessions]
        carrier = one if session.node is node else two
        rest = two if carrier is one else one
        with carrier.lock:
            (watch_id,) = session.watches
            session.watches.clear()
            session.send_notifications([[int(Notification.CANCELED), [watch_id], 0, no_leader().text]])
            carrier.node.refusals = [no_leader(ALONE)] * 100
        rest.node.refusals = [no_leader(ALONE)] * 2
        with pytest.raises(TimeoutError):
            watch.next(1.0)
        rest.put(b"k", b"v")
        assert watch.next(5.0).revision == 2
        watch.close()


def test_a_serializable_transaction_does_not_go_back() -> None:
    """S29: it tells the node what this client has seen, as a serializable read does."""

    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1")
        async with a_client(network) as client:
            revision = await client.put("k", b"v")
            await client.txn(then=[op.get("k", serializable=True), op.get("k")])
            reads = network.nodes["n1:1"].reads
            assert reads[0][13] == revision
            assert len(reads[1]) < 14

    run(test)

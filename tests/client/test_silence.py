"""Clients of a node that falls silent: its process is stopped, its connections stand (S30)."""

from __future__ import annotations

import time
from random import Random

import pytest
import trio

import coord
from coord.client.client import Client
from coord.errors import DeadlineExceeded, NotFound, no_leader
from coord.limits import PING_GIVE_UP_S, PING_IDLE_S
from coord.transport.link import CLIENT_PATIENCE

from .fake_node import FakeNode
from .threaded_fakes import listening
from .trio_fakes import Network, a_client, run, settle

TTL_S = 5


def two_of_one_cluster(nursery: trio.Nursery) -> Network:
    """Two nodes that serve the same keys and leases."""
    state = FakeNode()
    network = Network(nursery, {"n1:1": state, "n2:2": state})
    network.patience = CLIENT_PATIENCE
    return network


def active(client: Client) -> str:
    assert client._core.active is not None
    return str(client._core.active.endpoint)


def test_a_keep_alive_is_asked_again_elsewhere_after_a_sixth_of_the_ttl() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = two_of_one_cluster(nursery)
        async with a_client(network) as client:
            lease = await client.lease_grant(TTL_S)
            await settle()
            network.stop(active(client))
            started = trio.current_time()
            assert (await client.lease_keep_alive_once(lease.id, ttl_s=TTL_S)).ttl_s == TTL_S
            assert trio.current_time() - started == pytest.approx(TTL_S / 6, abs=0.01)

    run(test)


def test_without_the_ttl_a_keep_alive_is_asked_again_as_any_call_is() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = two_of_one_cluster(nursery)
        async with a_client(network) as client:
            lease = await client.lease_grant(TTL_S)
            await settle()
            network.stop(active(client))
            started = trio.current_time()
            await client.lease_keep_alive_once(lease.id, timeout=3)
            assert trio.current_time() - started == pytest.approx(0.75, abs=0.01)

    run(test)


def test_a_lease_of_five_seconds_lives_through_the_silence_of_a_node() -> None:
    """Renewed three times a TTL, whenever the node that is talked to falls silent."""

    async def test(nursery: trio.Nursery) -> None:
        for silent_at in (0.0, 0.5, 1.0, 1.5):
            network = two_of_one_cluster(nursery)
            async with a_client(network) as client:
                lease = await client.lease_grant(TTL_S)
                renewed = trio.current_time()
                name = active(client)

                async def fall_silent(
                    network: Network = network, name: str = name, silent_at: float = silent_at
                ) -> None:
                    await trio.sleep(silent_at)
                    network.stop(name)

                nursery.start_soon(fall_silent)
                for _ in range(12):
                    await trio.sleep(TTL_S / 3)
                    sent = trio.current_time()
                    await client.lease_keep_alive_once(lease.id, ttl_s=TTL_S)
                    assert trio.current_time() - renewed < TTL_S - max(TTL_S / 10, 0.3)
                    renewed = sent

    run(test)


def test_the_answer_to_a_keep_alive_may_be_an_error_or_come_late() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = two_of_one_cluster(nursery)
        async with a_client(network) as client:
            await client.get("k")
            with pytest.raises(NotFound):
                await client.lease_keep_alive_once(404, ttl_s=TTL_S)
            started = trio.current_time()
            for name in network.nodes:
                network.stop(name)
            with pytest.raises(DeadlineExceeded):
                await client.lease_keep_alive_once(404, ttl_s=TTL_S, timeout=2.0)
            assert trio.current_time() - started <= 2.1

    run(test)


def test_a_node_that_let_a_call_time_out_is_left_for_the_next_call() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = two_of_one_cluster(nursery)
        async with a_client(network) as client:
            await client.get("k")
            await settle()
            first = active(client)
            network.stop(first)
            started = trio.current_time()
            await client.get("k", timeout=1.0)
            assert trio.current_time() - started == pytest.approx(0.25, abs=0.01)
            started = trio.current_time()
            await client.get("k")
            assert trio.current_time() == started
            assert active(client) != first

    run(test)


def test_the_blocking_client_leaves_it_too() -> None:
    with listening(FakeNode(), FakeNode()) as listeners:
        endpoints = [listener.endpoint for listener in listeners]
        with coord.connect_sync(endpoints, random=Random(1)) as client:
            client.get("k")
            silent = next(listener for listener in listeners if listener.node.frames)
            with silent.lock:
                client.get("k", timeout=2.0)
                started = time.monotonic()
                client.get("k")
                assert time.monotonic() - started < 1.0


def test_a_watch_goes_on_elsewhere_when_its_node_falls_silent() -> None:
    """Its connection stands by, since the leader's carries the calls; the pings find it out."""

    async def test(nursery: trio.Nursery) -> None:
        one, other = FakeNode(member_id=7), FakeNode(member_id=8)
        network = Network(nursery, {"n1:1": one, "n2:2": other})
        network.patience = CLIENT_PATIENCE
        async with a_client(network) as client:
            await client.get("k")
            await settle()
            name = active(client)
            (rest,) = network.nodes.keys() - {name}
            async with client.watch("k", since=2) as watch:
                for node in network.nodes.values():
                    node.leader_id = network.nodes[rest].member_id
                await client.get("x")
                assert active(client) == rest, "calls follow the leader"
                assert network.nodes[name].sessions[0].watches, "the watch stays where it is"
                network.stop(name)
                started = trio.current_time()
                network.nodes[rest].put(b"k", b"v")
                with trio.fail_after(60):
                    assert (await watch.__anext__()).revision == 2
                assert PING_IDLE_S < trio.current_time() - started <= PING_GIVE_UP_S + 1

    run(test)


def test_the_blocking_client_asks_elsewhere_too() -> None:
    one, other = FakeNode(), FakeNode()
    one.leases = other.leases = {9: 3}
    with listening(one, other) as listeners:
        endpoints = [listener.endpoint for listener in listeners]
        with coord.connect_sync(endpoints, random=Random(1), timeout=5.0) as client:
            client.get("k")
            silent = next(listener for listener in listeners if listener.node.frames)
            with silent.lock:
                started = time.monotonic()
                assert client.lease_keep_alive_once(9, ttl_s=3).ttl_s == 3
                assert 0.4 < time.monotonic() - started < 1.5
            with pytest.raises(NotFound):
                client.lease_keep_alive_once(404, ttl_s=3)


def test_a_slow_node_gets_more_time_each_time_it_is_asked() -> None:
    node = FakeNode()
    node.leases[9] = 2
    with listening(node) as (listener,), coord.connect_sync(listener.endpoint, timeout=5.0) as client:
        client.get("k")
        node.refusals = [no_leader()]
        assert client.lease_keep_alive_once(9, ttl_s=2).ttl_s == 2
        node.is_silent = True
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.lease_keep_alive_once(9, ttl_s=2, timeout=2.0)
        assert 1.9 < time.monotonic() - started < 2.8
        assert 3 <= len([1 for kind, _ in node.frames if kind == "requests"]) <= 7

"""Live views of a service: current while the cluster is there, the last known one while it is away."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from tests.client.fake_node import FakeNode
from tests.client.trio_fakes import Network, a_client, a_network, run, settle

import coord
from coord.client.recipes import live_range
from coord.client.recipes.discovery import Discovery
from coord.client.recipes.instances import encode_document, instance_key
from coord.client.recipes.mirror import Mirror
from coord.client.responses import Batch, Header, RangeResponse
from coord.errors import ClientClosed, ConnectionFailed, FailedPrecondition, NoInstance
from coord.types import Event, EventType, KeyValue, LeaseId, Revision

ONE, TWO = "n1:1", "n2:2"


def one_state(nursery: trio.Nursery) -> tuple[Network, FakeNode]:
    """Two endpoints of nodes that have the same keys."""
    network = a_network(nursery, ONE, TWO)
    network.nodes[TWO] = network.nodes[ONE]
    return network, network.nodes[ONE]


def register(node: FakeNode, lease: int, address: str, service: str = "api") -> None:
    node.leases[lease] = 10
    node.put(instance_key(service, lease), encode_document(address, None), lease)


def withdraw(node: FakeNode, lease: int) -> None:
    node.delete(instance_key("api", lease))


def watching(network: Network) -> int:
    nodes = {id(node): node for node in network.nodes.values()}
    return sum(len(session.watches) for node in nodes.values() for session in node.sessions)


def carrier(network: Network, node: FakeNode) -> str:
    """The endpoint over which the client's watch goes."""
    session = next(session for session in node.sessions if session.watches)
    return next(name for name, wire in network.wires if wire.server.send == session.send)


def addresses(api: Discovery) -> list[str]:
    return [instance.address for instance in api]


def test_a_view_follows_who_comes_and_goes() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        register(node, 7, "a:1")
        register(node, 8, "other:1", "api2")
        register(node, 9, "inner:1", "api/v2")
        async with a_client(network) as client:
            async with client.discover("api") as api:
                assert (addresses(api), len(api), api.version, api.is_stale) == (["a:1"], 1, 1, False)
                assert api.service == "api"
                with trio.fail_after(1):
                    register(node, 10, "b:1")
                    assert await api.changed() == api.instances
                    assert addresses(api) == ["a:1", "b:1"]
                    known = api.version
                    withdraw(node, 7)
                    await settle()
                    # It happened while nobody waited, and is told all the same.
                    await api.changed(known)
                    assert addresses(api) == ["b:1"]
                    withdraw(node, 10)
                    await api.changed(api.version)
                with pytest.raises(NoInstance, match="is registered"):
                    api.pick()
                assert not api
                # What is no change wakes nobody.
                with trio.move_on_after(5) as scope:
                    node.put(b"api/instance/foreign", b"x")
                    register(node, 11, "inner:2", "api/v2")
                    await api.changed()
                assert scope.cancelled_caught
            await settle()
            assert watching(network) == 0

    run(test)


def test_nothing_is_missed_between_the_read_and_the_watch() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            watch = client.watch

            def watch_late(*arguments: Any, **options: Any) -> coord.Watch:
                register(network.nodes[ONE], 7, "a:1")
                return watch(*arguments, **options)

            client.watch = watch_late  # type: ignore[method-assign]
            async with client.discover("api") as api:
                with trio.fail_after(1):
                    assert len(await api.changed(0)) == 1

    run(test)


def test_a_copy_never_goes_back() -> None:
    def pair(key: bytes, revision: int) -> KeyValue:
        return KeyValue(key, Revision(revision), Revision(revision), 1, LeaseId(0), b"")

    def response(revision: int, *kvs: KeyValue) -> RangeResponse:
        return RangeResponse(Header(1, 1, Revision(revision), 1), list(kvs), False, len(kvs))

    mirror = Mirror()
    mirror.listed(response(9, pair(b"a", 3), pair(b"b", 8)))
    mirror.take([Batch(Revision(8), [Event(EventType.DELETE, pair(b"b", 8))])])
    mirror.take([Batch(Revision(9), [Event(EventType.PUT, pair(b"c", 9))])])
    mirror.listed(response(8))
    assert (list(mirror.kvs), mirror.revision) == ([b"a", b"b"], 9)
    mirror.take(
        [Batch(Revision(10), [Event(EventType.DELETE, pair(b"b", 10)), Event(EventType.DELETE, pair(b"x", 10))])]
    )
    mirror.take([Batch(Revision(12), [])])
    assert (list(mirror.kvs), mirror.revision) == ([b"a"], 12)


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_view_survives_a_broken_connection_and_compaction(is_compacted: bool) -> None:
    async def test(nursery: trio.Nursery) -> None:
        network, node = one_state(nursery)
        register(node, 7, "a:1")
        register(node, 8, "b:1")
        async with a_client(network) as client, client.discover("api") as api:
            await settle()
            network.down.update(network.nodes)
            for name in (ONE, TWO):
                network.cut(name)
            withdraw(node, 7)
            register(node, 9, "c:1")
            withdraw(node, 9)
            register(node, 10, "d:1")
            if is_compacted:
                # The watch cannot go on: what happened is found out by reading all anew.
                node.compact_revision = node.revision
            await trio.sleep(5)
            assert addresses(api) == ["a:1", "b:1"]
            network.down.clear()
            with trio.fail_after(10):
                while addresses(api) != ["b:1", "d:1"]:
                    await api.changed()
            register(node, 11, "e:1")
            with trio.fail_after(10):
                await api.changed(api.version)
                assert addresses(api) == ["b:1", "d:1", "e:1"]
            await settle()
            assert not api.is_stale
            assert watching(network) == 1

    run(test)


def test_an_outage_of_the_cluster_stays_the_clusters() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network, node = one_state(nursery)
        register(node, 7, "a:1")
        async with a_client(network, clock=trio.current_time) as client, client.discover("api") as api:
            await settle()
            for name in (ONE, TWO):
                network.cut(name)
            began = trio.current_time()
            await settle()
            assert api.is_stale
            assert api.stale_since == began
            for _ in range(100):
                await trio.sleep(10)
                assert api.pick().address == "a:1"
            assert api.stale_since == began
            network.down.clear()
            await trio.sleep(20)
            assert (api.is_stale, api.stale_since) == (False, None)
            # A node that has no leader says so, and another one, or the same a moment later, goes on.
            session = next(session for session in node.sessions if session.watches)
            ids = list(session.watches)
            session.watches.clear()
            session.send_notifications([[2, ids, 0, "etcdserver: no leader"]])
            await settle()
            assert api.is_stale
            register(node, 8, "b:1")
            with trio.fail_after(5):
                await api.changed(api.version)
            assert not api.is_stale

    run(test)


def test_it_is_stale_while_reading_anew_fails() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        register(node, 7, "a:1")
        async with a_client(network) as client, client.discover("api") as api:
            await settle()
            session = next(session for session in node.sessions if session.watches)
            (watch_id,) = session.watches
            session.watches.clear()
            node.refusals = [FailedPrecondition("not now")] * 3
            register(node, 8, "b:1")
            session.send_notifications([[2, [watch_id], node.revision, "compacted"]])
            await settle()
            assert api.is_stale
            assert addresses(api) == ["a:1"]
            started = trio.current_time()
            await api.changed(api.version)
            assert trio.current_time() - started == pytest.approx(3 * live_range.RELIST_PAUSE_S)
            assert addresses(api) == ["a:1", "b:1"]
            assert not api.is_stale
            assert not node.refusals

    run(test)


def test_entering_raises_what_reading_raises_and_leaves_nothing() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        node = network.nodes[ONE]
        async with a_client(network) as client:
            with pytest.raises(ValueError, match="cannot name a service"):
                client.discover("")
            node.refusals = [FailedPrecondition("not now")]
            with pytest.raises(FailedPrecondition):
                await client.discover("api").__aenter__()
            network.cut(ONE)
            with pytest.raises(ConnectionFailed, match=r"within 0\.5 s"):
                await client.discover("api", timeout=0.5).__aenter__()
            network.down.clear()
            await trio.sleep(5)
            assert watching(network) == 0

    run(test)


def test_what_the_body_raises_leaves_it_as_it_is() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        async with a_client(network) as client:
            with pytest.raises(ZeroDivisionError):
                async with client.discover("api"):
                    raise ZeroDivisionError
            with trio.move_on_after(3) as scope:
                async with client.discover("api") as api:
                    await trio.sleep_forever()
            assert scope.cancelled_caught
            await settle()
            assert watching(network) == 0
            assert api.is_stale, "nobody tells it of changes any more"
            with pytest.raises(ClientClosed):
                await api.changed()

    run(test)


def test_those_who_wait_are_told_when_the_view_is_left() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)

        async def wait(api: Discovery) -> None:
            with pytest.raises(ClientClosed):
                await api.changed()

        async with a_client(network) as client, trio.open_nursery() as waiters, client.discover("api") as api:
            waiters.start_soon(wait, api)
            waiters.start_soon(wait, api)
            await settle()

    run(test)


def test_a_view_of_a_closed_client_is_stale() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, ONE)
        register(network.nodes[ONE], 7, "a:1")
        async with a_client(network) as client, client.discover("api") as api:
            client._driver.close()
            await settle()
            assert api.is_stale
            assert api.pick().address == "a:1"

    run(test)

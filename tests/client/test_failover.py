"""The Trio client when nodes die, refuse, stop, or are of another cluster."""

from __future__ import annotations

from random import Random

import pytest
import trio

from coord.client.client import connect
from coord.client.endpoints import STAGGER_S, Endpoint
from coord.errors import ConnectionFailed, OutcomeUnknown, no_leader, server_stopped
from coord.transport.link import Link

from .fake_node import FakeNode
from .trio_fakes import Network, a_client, a_network, run, settle

NAMES = ("n1:1", "n2:2", "n3:3")


def carrier(network: Network) -> str:
    """The endpoint that served the last frame."""
    return max(network.nodes, key=lambda name: len(network.nodes[name].frames))


async def use(network: Network, client: object) -> str:
    """Make a call and return which endpoint served it."""
    for node in network.nodes.values():
        node.frames.clear()
    await client.get("k")  # type: ignore[attr-defined]
    return carrier(network)


def test_a_standby_takes_over_without_dialling() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, *NAMES)
        async with a_client(network) as client:
            first = await use(network, client)
            await settle()
            assert len(network.dialled) == 2
            network.cut(first)
            started = trio.current_time()
            second = await use(network, client)
            assert second == network.dialled[1] != first
            assert trio.current_time() == started
            # And another one is made warm, not the dead one.
            await trio.sleep(30)
            assert network.dialled[-1] not in (first, second)

    run(test)


def test_without_numbers_reads_in_flight_move_and_writes_do_not() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, *NAMES)
        async with a_client(network, exactly_once=False) as client:
            first = await use(network, client)
            network.nodes[first].is_silent = True
            ended: list[str] = []

            async def read() -> None:
                assert await client.get("k") is None
                ended.append("read")

            async def write() -> None:
                with pytest.raises(OutcomeUnknown, match=f"connection to {first} lost"):
                    await client.put("k", b"v")
                ended.append("write")

            async with trio.open_nursery() as callers:
                callers.start_soon(read)
                callers.start_soon(write)
                await settle()
                network.cut(first)
            assert sorted(ended) == ["read", "write"]
            assert not any(("writes", 1) in network.nodes[name].frames for name in NAMES if name != first)

    run(test)


def test_a_write_that_was_not_sent_waits_for_a_connection() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1")
        async with a_client(network) as client:
            network.cut("n1:1")
            await settle()

            async def come_back() -> None:
                await trio.sleep(2)
                network.down.clear()

            nursery.start_soon(come_back)
            assert await client.put("k", b"v") == 2

    run(test)


def test_without_any_node_calls_end_at_their_timeout_and_say_why() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, *NAMES)
        async with a_client(network, timeout=4.0) as client:
            await settle()
            for name in NAMES:
                network.cut(name)
            await settle()
            started = trio.current_time()
            with pytest.raises(ConnectionFailed, match=r"n1:1: .*n2:2: .*n3:3: .*") as caught:
                await client.put("k", b"v")
            assert trio.current_time() - started == pytest.approx(4.0)
            assert "refused" in str(caught.value)
            # The tries become rare; they do not stop.
            await trio.sleep(60)
            assert 30 < len(network.dialled) < 200
            network.down.clear()
            assert await client.put("k", b"v") == 2

    run(test)


@pytest.mark.parametrize("how", ["swallowing", "stopped"])
def test_silent_endpoints_hold_up_nobody_for_long(how: str) -> None:
    """The next endpoint is dialled beside one that is silent."""

    async def test(nursery: trio.Nursery) -> None:
        for living in NAMES:
            network = a_network(nursery, *NAMES)
            setattr(network, how, set(NAMES) - {living})
            started = trio.current_time()
            async with a_client(network) as client:
                await client.put("k", b"v")
                assert trio.current_time() - started <= 2 * STAGGER_S
                assert await use(network, client) == living

    run(test)


def test_a_slow_endpoint_is_waited_for_while_the_others_refuse() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, *NAMES)
        network.down = {"n1:1", "n3:3"}

        async def dial(endpoint: Endpoint, timeout: float) -> Link:
            if str(endpoint) == "n2:2":
                await trio.sleep(1.5)
            return await network.dial(endpoint, timeout)

        async with connect(list(NAMES), random=Random(4), dial=dial, timeout=2.0) as client:
            assert await client.put("k", b"v") == 2

    run(test)


def test_after_a_failover_a_silent_endpoint_holds_up_nobody() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, *NAMES)
        async with a_client(network) as client:
            first = await use(network, client)
            await settle()
            second = next(name for name in network.dialled if name != first)
            (third,) = set(NAMES) - {first, second}
            network.stopped.add(third)
            network.down.add(first)
            started = trio.current_time()
            # Both connections are lost: one node died, the other restarted.
            network.cut(first)
            network.cut(second, is_down=False)
            await settle()
            await client.put("k", b"v")
            assert trio.current_time() - started <= 2 * STAGGER_S

    run(test)


def test_a_node_that_refuses_is_left_and_what_it_owes_is_still_taken() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, *NAMES)
        async with a_client(network) as client:
            first = await use(network, client)
            await settle()
            node = network.nodes[first]
            node.is_silent = True
            owed: list[int] = []

            async def write() -> None:
                owed.append(await client.put("k", b"v"))

            nursery.start_soon(write)
            await settle()
            session = node.sessions[0]
            node.is_silent = False
            node.refusals = [no_leader() for _ in range(5)]
            await client.get("k")
            assert await use(network, client) != first
            session.release()
            await settle()
            assert owed == [2]

    run(test)


def test_a_goodbye_moves_calls_before_the_connection_ends() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1", "n2:2")
        async with a_client(network) as client:
            first = await use(network, client)
            await settle()
            from coord.codec import encode

            network.nodes[first].refusals = [server_stopped() for _ in range(9)]
            network.nodes[first].sessions[0].send(encode([3, "stopping"]))
            await settle()
            assert await use(network, client) != first

    run(test)


def test_the_leader_is_followed_once_it_is_known() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1", "n2:2")
        async with a_client(network) as client:
            first = await use(network, client)
            other = next(name for name in network.nodes if name != first)
            await settle()
            for node in network.nodes.values():
                node.leader_id = network.nodes[other].member_id
            await client.get("k")
            assert await use(network, client) == other

    run(test)


@pytest.mark.parametrize("leader", NAMES)
def test_the_leader_is_found_among_three_and_followed_when_it_changes(leader: str) -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, *NAMES)

        def lead(name: str) -> None:
            for node in network.nodes.values():
                node.leader_id = network.nodes[name].member_id

        lead(leader)
        async with a_client(network) as client:
            await client.get("k")
            await trio.sleep(1)
            assert await use(network, client) == leader
            other = next(name for name in NAMES if name != leader)
            lead(other)
            await client.get("k")
            await trio.sleep(1)
            assert await use(network, client) == other
            dialled = len(network.dialled)
            await trio.sleep(100)
            assert len(network.dialled) == dialled, "it rests once it is there"
            assert len([1 for node in network.nodes.values() for _ in node.sessions]) == 2
            network.cut(other)
            assert await use(network, client) != other

    run(test)


def test_what_the_standby_still_carries_is_not_cut_off_for_the_leader() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, *NAMES)
        async with a_client(network) as client:
            first = await use(network, client)
            await settle()
            second = network.dialled[1]
            third = next(name for name in NAMES if name not in (first, second))
            node = network.nodes[first]
            async with client.watch("k") as watch:
                # The second leads for a moment and takes over; the watch stays where it is. Then the third leads.
                for leader in (second, third):
                    for one in network.nodes.values():
                        one.leader_id = network.nodes[leader].member_id
                    await client.get("k")
                    await trio.sleep(1)
                node.put(b"k", b"v")
                with trio.fail_after(1):
                    assert (await watch.__anext__()).revision == 2

    run(test)


def test_an_endpoint_of_another_cluster_is_not_used() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1")
        async with connect("n1:1", random=Random(1), dial=network.dial, timeout=3.0) as client:
            await client.put("k", b"v")
            network.cut("n1:1", is_down=False)
            network.nodes["n1:1"] = FakeNode(cluster_id=0xBAD)
            with pytest.raises(ConnectionFailed, match="cluster ID mismatch: it belongs to cluster bad"):
                await client.get("k")
            assert network.nodes["n1:1"].frames == []

    run(test)


@pytest.mark.parametrize("rubbish", [b"", b"\xff", b"\x01", b"\x82\x01", b"\x86\x01\x01\x01\x01\x01\x81\x01"])
def test_a_node_that_speaks_rubbish_is_left(rubbish: bytes) -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1", "n2:2")
        async with a_client(network) as client:
            first = await use(network, client)
            await settle()
            network.nodes[first].sessions[0].send(rubbish)
            await settle()
            network.down.add(first)
            assert await use(network, client) != first

    run(test)


def test_a_message_that_the_node_could_not_read_ends_the_connection() -> None:
    async def test(nursery: trio.Nursery) -> None:
        network = a_network(nursery, "n1:1")
        node = network.nodes["n1:1"]
        async with a_client(network) as client:
            await client.put("k", b"before")
            node.is_silent = True

            async def complain() -> None:
                await settle()
                node.sessions[0].send_replies([[0, 0, None, ["InvalidArgument", "coord: cut off", []]]])

            nursery.start_soon(complain)
            with pytest.raises(OutcomeUnknown, match="cut off"):
                await client.put("k", b"v")

    run(test)

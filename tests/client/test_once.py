"""Exactly once: writes that are sent again through any node, and what the client says when it cannot know (S17–S21)."""

from __future__ import annotations

import os
import socket
import threading
from random import Random

import pytest
import trio

import coord
from coord.client import forks
from coord.client.endpoints import parse_endpoint
from coord.client.numbering import Numbering
from coord.codec import decode
from coord.errors import (
    ApiError,
    ClientClosed,
    DeadlineExceeded,
    InvalidArgument,
    OutcomeUnknown,
    ResourceExhausted,
    Unavailable,
    no_leader,
    too_many_requests,
)
from coord.limits import CLIENT_WINDOW
from coord.protocol.bodies import registers
from coord.protocol.ops import Op

from .fake_node import FakeNode
from .threaded_fakes import listening
from .trio_fakes import Network, a_client, run, settle


def a_cluster(nursery: trio.Nursery, *names: str) -> tuple[FakeNode, Network]:
    """One state behind several endpoints, as a cluster has."""
    state = FakeNode()
    return state, Network(nursery, dict.fromkeys(names, state))


# -- numbers


def test_low_follows_the_lowest_open_number() -> None:
    numbering = Numbering(client_id=9)
    first, second, third = numbering.issue(), numbering.issue(), numbering.issue()
    assert (first, second, third) == (1, 2, 3)
    numbering.close(second)
    assert numbering.low == 1
    numbering.close(first)
    assert numbering.low == 3
    numbering.close(third)
    assert numbering.low == 4
    assert numbering.issue() == 4


def test_a_window_of_numbers_is_open_at_most() -> None:
    numbering = Numbering(client_id=9)
    assert numbering.room == CLIENT_WINDOW
    for _ in range(CLIENT_WINDOW):
        numbering.issue()
    assert numbering.room == 0
    numbering.close(2)
    assert numbering.room == 0, "the window begins at low, not at how many are open"
    numbering.close(1)
    assert numbering.room == 2
    assert Numbering().room == 0, "nothing is numbered before the client is registered"


# -- the Trio client


def test_a_write_whose_answer_is_lost_with_its_connection_is_applied_once_and_answered() -> None:
    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1", "n2:2")
        async with a_client(network) as client:
            await client.put("k", b"before")
            state.is_silent = True

            async def die() -> None:
                await settle()
                state.is_silent = False
                network.cut(str(client._core.active.endpoint))  # type: ignore[union-attr]

            nursery.start_soon(die)
            assert await client.put("k", b"v") == 3
            assert state.revision == 3
            assert len(state.applied) == 2

    run(test)


def test_a_write_that_a_silent_node_has_applied_is_answered_by_another() -> None:
    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1", "n2:2")
        async with a_client(network) as client:
            await client.put("k", b"before")
            await settle()
            silent = str(client._core.active.endpoint)  # type: ignore[union-attr]
            for name, wire in network.wires:
                if name == silent:
                    wire.server.is_held = True  # requests pass, answers do not
            started = trio.current_time()
            assert await client.put("k", b"v", timeout=4.0) == 3
            assert trio.current_time() - started == pytest.approx(1.0, abs=0.01)
            assert (state.revision, len(state.applied)) == (3, 2)
            assert str(client._core.active.endpoint) != silent  # type: ignore[union-attr]

    run(test)


def test_a_third_endpoint_is_tried_when_both_connections_are_silent() -> None:
    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1", "n2:2", "n3:3")
        async with a_client(network) as client:
            await client.put("k", b"before")
            await settle()
            for name in network.dialled:
                network.stop(name)
            assert len(set(network.dialled)) == 2
            assert await client.put("k", b"v", timeout=8.0) == 3
            assert len(state.applied) == 2

    run(test)


def test_an_outcome_that_its_node_does_not_know_is_asked_for_again() -> None:
    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1")
        async with a_client(network) as client:
            await client.put("k", b"before")
            state.refusals = [OutcomeUnknown("the link to the leader broke")]
            assert await client.put("k", b"v") == 3

    run(test)


def test_a_refusal_says_nothing_of_an_earlier_sending() -> None:
    """S19: the leader applied the write and its answer was lost; the next node refuses it before the log."""

    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1")
        async with a_client(network, timeout=2.0) as client:
            await client.put("k", b"before")
            for refusal in (InvalidArgument("etcdserver: request is too large"), too_many_requests()):
                state.refusals = [refusal]
                with pytest.raises(type(refusal)):
                    await client.put("k", b"sent once, and refused")
                state.refusals = [OutcomeUnknown("lost"), *[refusal] * 99]
                with pytest.raises(OutcomeUnknown, match="may still be applied; lost"):
                    await client.put("k", b"v")
                # With time for one more try it is answered.
                state.refusals = [OutcomeUnknown("lost"), refusal]
                before = state.revision
                assert await client.put("k", b"w") == before + 1

    run(test)


def test_a_recorded_error_is_the_answer_however_often_it_was_sent() -> None:
    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1")
        async with a_client(network) as client:
            await client.put("k", b"before")
            state.refusals = [OutcomeUnknown("lost")]
            with pytest.raises(ApiError, match="requested lease not found"):
                await client.put("k", b"v", lease=404)

    run(test)


def test_a_forgotten_client_registers_anew_and_what_was_sent_once_goes_on() -> None:
    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1")
        async with a_client(network) as client:
            await client.put("k", b"before")
            (first,) = state.records
            del state.records[first]
            state.records[0] = {}  # takes the place, so that the next id is another
            assert await client.put("k", b"v") == 3
            assert [number for _, number in state.applied] == [1, 1]
            assert state.applied[1][0] != first

    run(test)


def test_what_a_forgotten_client_had_sent_twice_is_of_unknown_outcome() -> None:
    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1")
        async with a_client(network) as client:
            await client.put("k", b"before")
            state.records.clear()
            state.records[0] = {}
            state.refusals = [OutcomeUnknown("lost")]
            with pytest.raises(OutcomeUnknown, match="no longer has this client's record"):
                await client.put("k", b"v")
            assert await client.put("k", b"w") == 3

    run(test)


def test_a_cancelled_write_counts_as_closed_and_the_next_one_settles_it() -> None:
    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1")
        async with a_client(network) as client:
            await client.put("k", b"before")
            (client_id,) = state.records
            network.wires[0][1].hold()
            with trio.move_on_after(1):
                await client.put("k", b"given up")
            network.wires[0][1].release()
            await client.put("k", b"v")
            assert state.keys[b"k"][5] == b"v"
            assert state.lows[client_id] == 3

    run(test)


def test_each_sending_of_a_write_that_is_alone_is_counted() -> None:
    async def test(nursery: trio.Nursery) -> None:
        _, network = a_cluster(nursery, "n1:1", "n2:2")
        async with a_client(network) as client:
            await client.put("k", b"before")
            await settle()
            first = str(client._core.active.endpoint)  # type: ignore[union-attr]
            for name, wire in network.wires:
                if name == first:
                    wire.hold()

            async def cut() -> None:
                await settle()
                network.cut(first)

            nursery.start_soon(cut)
            call = await client._driver.call(True, int(Op.PUT), [b"k", b"v"])
            # S20: who concludes something from an answer asks whether the write was sent once.
            assert call.sends == 2
            assert (await client._driver.call(True, int(Op.PUT), [b"k", b"v"])).sends == 1

    run(test)


def test_a_write_that_cannot_be_sent_is_closed() -> None:
    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1")
        async with a_client(network) as client:
            await client.put("k", b"before")
            (client_id,) = state.records
            with pytest.raises(InvalidArgument, match="too large"):
                await client.put("k", bytes(5_000_000))
            await client.put("k", b"v")
            assert state.lows[client_id] == 3

    run(test)


def test_a_timed_out_write_is_never_applied_once_a_later_one_was() -> None:
    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1", "n2:2")
        async with a_client(network) as client:
            await client.put("k", b"before")
            await settle()
            first = str(client._core.active.endpoint)  # type: ignore[union-attr]
            stuck = [wire for name, wire in network.wires if name == first]
            for wire in stuck:
                wire.client.is_held = True  # the request is under way for long
            with pytest.raises(OutcomeUnknown):
                await client.put("k", b"late", timeout=0.2)
            assert await client.put("k", b"v") == 3
            for wire in stuck:
                wire.client.is_held = False
                wire.client.carry()
            await settle()
            assert state.revision == 3
            assert state.keys[b"k"][5] == b"v"

    run(test)


def test_more_writes_than_the_window_wait_for_room() -> None:
    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1")
        async with a_client(network) as client:
            async with trio.open_nursery() as callers:
                for number in range(3 * CLIENT_WINDOW):
                    callers.start_soon(client.put, f"k{number}", b"v")
            assert len(state.keys) == len(state.applied) == 3 * CLIENT_WINDOW

    run(test)


def test_a_write_before_the_registration_says_why_it_had_to_wait() -> None:
    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1")

        async with a_client(network, timeout=2.0) as client:
            session = state.sessions[0]
            session.write = lambda request, *_: [request, 0, None, no_leader("n2 is missing").to_wire()]  # type: ignore[method-assign]
            with pytest.raises(Unavailable, match="n2 is missing"):
                await client.put("k", b"v")
            session.write = lambda request, *_: [request, 0, None, too_many_requests().to_wire()]  # type: ignore[method-assign]
            with pytest.raises(ResourceExhausted):
                await client.put("k", b"v")
            del session.write
            assert await client.put("k", b"v") == 2

    run(test)


def test_a_first_write_with_little_time_leaves_more_to_the_registration() -> None:
    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1")

        async with a_client(network) as client:
            session = state.sessions[0]
            receive, given = session.receive, []

            def commit_in_a_tenth_of_a_second(data: bytes) -> None:
                _, _, _, ids, writes = decode(data)
                if registers(decode(writes)):
                    [request, timeout_ms] = ids[0]
                    given.append(timeout_ms)
                    if timeout_ms < 100:
                        session.send_replies([[request, 0, None, OutcomeUnknown("too slow").to_wire()]])
                        return
                receive(data)

            session.receive = commit_in_a_tenth_of_a_second  # type: ignore[method-assign]
            # It was never sent, and so is not in doubt.
            with pytest.raises(DeadlineExceeded):
                await client.put("k", b"v", timeout=0.02)
            assert await client.put("k", b"v") == 2
            assert given == [10, 20, 40, 80, 160]

    run(test)


def test_without_numbers_the_cluster_keeps_no_record() -> None:
    async def test(nursery: trio.Nursery) -> None:
        state, network = a_cluster(nursery, "n1:1")
        async with a_client(network, exactly_once=False) as client:
            assert await client.put("k", b"v") == 2
            assert not state.records
            state.refusals = [OutcomeUnknown("lost")]
            with pytest.raises(OutcomeUnknown):
                await client.put("k", b"v")

    run(test)


def test_a_forked_process_is_told_to_connect_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(nursery: trio.Nursery) -> None:
        _, network = a_cluster(nursery, "n1:1")
        async with a_client(network) as client:
            await client.put("k", b"v")
            with monkeypatch.context() as patched:
                patched.setattr(forks, "_count", 1)
                with pytest.raises(ClientClosed, match="forked"):
                    await client.put("k", b"v")
            await client.put("k", b"v")

    run(test)


# -- the blocking client


def test_the_blocking_client_sends_a_write_again_and_it_is_applied_once() -> None:
    state = FakeNode()
    with listening(state, state) as listeners:
        endpoints = [listener.endpoint for listener in listeners]
        with coord.connect_sync(endpoints, timeout=5.0, random=Random(1)) as client:
            client.put("k", b"before")
            state.refusals = [OutcomeUnknown("the link to the leader broke"), no_leader()]
            assert client.put("k", b"v") == 3
            state.is_silent = True

            def speak() -> None:
                state.is_silent = False

            timer = threading.Timer(0.3, speak)
            timer.start()
            assert client.put("k", b"w") == 4
            timer.join()
            assert len(state.applied) == 3
            refusal = InvalidArgument("etcdserver: request is too large")
            state.refusals = [OutcomeUnknown("lost"), *[refusal] * 99]
            with pytest.raises(OutcomeUnknown, match="may still be applied; lost"):
                client.put("k", b"v", timeout=1.0)
            state.refusals = [refusal]
            with pytest.raises(InvalidArgument):
                client.put("k", b"v")


def test_the_blocking_client_asks_those_again_that_were_slow_when_the_last_one_is_stopped() -> None:
    state = FakeNode()
    with socket.create_server(("127.0.0.1", 0)) as stopped, listening(state, state) as listeners:
        endpoints = [listener.endpoint for listener in listeners]
        with coord.connect_sync(endpoints, timeout=8.0, random=Random(1)) as client:
            client.put("k", b"before")
            client._calls.rotation.endpoints.append(parse_endpoint(f"127.0.0.1:{stopped.getsockname()[1]}"))
            state.is_silent = True

            def speak() -> None:
                state.is_silent = False

            timer = threading.Timer(3.2, speak)  # behind the patience with the one and the other
            timer.start()
            assert client.put("k", b"v") == 3
            timer.join()


def test_the_blocking_client_registers_anew_when_it_is_forgotten() -> None:
    state = FakeNode()
    with listening(state) as (listener,), coord.connect_sync(listener.endpoint) as client:
        client.put("k", b"before")
        state.records.clear()
        state.records[0] = {}
        assert client.put("k", b"v") == 3
        state.records.clear()
        state.records[0] = {}
        state.refusals = [OutcomeUnknown("lost")]
        with pytest.raises(OutcomeUnknown, match="no longer has this client's record"):
            client.put("k", b"w")
        assert client.put("k", b"w") == 4


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the child only makes calls, and ends
def test_after_fork_each_process_has_a_client_id_and_a_connection_of_its_own() -> None:
    state = FakeNode()
    with listening(state) as (listener,), coord.connect_sync(listener.endpoint, timeout=5.0) as client:
        client.put("k", b"before")
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                client.put("child", b"v")
                os.write(writing, b"%d" % client._calls._numbering.client_id)
            finally:
                os._exit(0)
        os.close(writing)
        assert os.waitpid(child, 0)[1] == 0
        theirs = int(os.read(reading, 100))
        os.close(reading)
        client.put("parent", b"v")
        ours = client._calls._numbering.client_id
        assert theirs != ours
        assert {(ours, 1), (ours, 2), (theirs, 1)} == set(state.applied)
        assert set(state.keys) == {b"k", b"child", b"parent"}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_fork_a_watch_goes_on_in_both_processes() -> None:
    with (
        listening(FakeNode()) as (listener,),
        coord.connect_sync(listener.endpoint, timeout=5.0) as client,
        client.watch("k", since=2) as watch,
    ):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(writing, watch.next(timeout=5.0).events[0].kv.value)
            finally:
                os._exit(0)
        os.close(writing)
        listener.put(b"k", b"v")
        assert os.waitpid(child, 0)[1] == 0
        assert os.read(reading, 100) == watch.next(timeout=5.0).events[0].kv.value == b"v"
        os.close(reading)


def test_a_write_without_a_number_waits_for_its_node_until_its_deadline() -> None:
    state = FakeNode()
    with listening(state, state) as listeners:
        endpoints = [listener.endpoint for listener in listeners]
        with coord.connect_sync(endpoints, timeout=3.0, exactly_once=False, random=Random(1)) as client:
            client.put("k", b"before")
            state.is_silent = True

            def speak() -> None:
                state.is_silent = False
                for session in tuple(state.sessions):
                    session.release()

            timer = threading.Timer(1.2, speak)
            timer.start()
            assert client.put("k", b"v") == 3
            timer.join()
            assert state.revision == 3

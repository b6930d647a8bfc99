"""The blocking client, over real sockets."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from random import Random

import pytest

import coord
from coord.client.blocking import BlockingClient
from coord.errors import (
    ApiError,
    ClientClosed,
    Compacted,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    no_leader,
)

from .fake_node import FakeNode
from .threaded_fakes import Listener, listening


def a_client(*listeners: Listener, timeout: float = 5.0, exactly_once: bool = True) -> BlockingClient:
    endpoints = [listener.endpoint for listener in listeners]
    return coord.connect_sync(endpoints, timeout=timeout, exactly_once=exactly_once, random=Random(1))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_each_verb_returns_what_the_node_answered() -> None:
    with listening(FakeNode()) as (listener,), a_client(listener) as client:
        assert client.endpoints == [listener.endpoint]
        assert client.put("a", b"1") == 2
        response = client.put_response("a", b"2", prev_kv=True)
        assert response.prev_kv is not None
        assert response.prev_kv.value == b"1"
        kv = client.get("a")
        assert kv is not None
        assert (kv.value, kv.version) == (b"2", 2)
        assert client.get("absent", serializable=True) is None
        for number in range(5):
            client.put(f"k{number}", b"v")
        assert [kv.key for kv in client.range("k", prefix=True, page=2)] == [b"k0", b"k1", b"k2", b"k3", b"k4"]
        assert client.range_response("k", prefix=True, limit=2).more
        made = client.txn(when=[coord.version("a") == 2], then=[coord.op.get("a")], orelse=[coord.op.delete("a")])
        assert made.succeeded
        client.update("n", lambda value: b"1")
        client.update("n", lambda value: None)
        assert client.get("n") is None
        assert client.delete("k0") == 1
        assert client.delete_response("k", prefix=True, prev_kv=True).prev_kvs[0].key == b"k1"
        assert client.revision == listener.node.revision


def test_leases_and_maintenance() -> None:
    with listening(FakeNode()) as (listener,), a_client(listener) as client:
        lease = client.lease_grant(10).id
        assert client.lease_keep_alive_once(lease).ttl_s == 10
        assert client.lease_time_to_live(lease, keys=True).keys == []
        assert client.leases() == [lease]
        client.lease_revoke(lease)
        with pytest.raises(NotFound):
            client.lease_keep_alive_once(lease)
        assert client.status().version == "0.1.0"
        assert client.status(listener.endpoint).db_size == 10
        assert client.member_list().members[0].name == "n1"
        assert client.hash_kv(listener.endpoint).hash == 0xABCD
        assert client.health(listener.endpoint).is_healthy
        listener.node.alarms = [[7, 1]]
        assert "NOSPACE" in client.health(listener.endpoint).error
        assert len(client.alarms().alarms) == 1
        client.alarm_disarm()
        assert client.alarms().alarms == []
        client.compact(1)


def test_a_refusal_is_retried_and_an_answer_is_not() -> None:
    with listening(FakeNode()) as (listener,), a_client(listener, exactly_once=False) as client:
        listener.node.refusals = [no_leader(), no_leader()]
        assert client.put("k", b"v") == 2
        listener.node.refusals = [OutcomeUnknown("may be")]
        with pytest.raises(OutcomeUnknown):
            client.put("k", b"v")
        listener.node.refusals = [no_leader() for _ in range(100)]
        with pytest.raises(Unavailable, match="no leader"):
            client.get("k", timeout=0.2)
        listener.node.refusals.clear()
        with pytest.raises(InvalidArgument, match="too large"):
            client.put("k", bytes(3_000_000))
        assert client.get("k") is not None


def test_a_timeout_tells_whether_a_write_may_have_happened() -> None:
    with listening(FakeNode()) as (listener,), a_client(listener, timeout=0.1) as client:
        client.put("k", b"before", timeout=5)
        listener.node.is_silent = True
        with pytest.raises(OutcomeUnknown):
            client.put("k", b"v")
        with pytest.raises(DeadlineExceeded):
            client.get("k")
        listener.node.is_silent = False
        # The late answer to the write is not taken for another call's; the client may have left the connection by now.
        for session in tuple(listener.node.sessions):
            session.release()
        kv = client.get("k", timeout=5)
        assert kv is not None
        assert kv.value == b"v"


def test_a_dead_idle_connection_is_noticed_before_a_write_is_given_to_it() -> None:
    node = FakeNode()
    with listening(node, node) as (first, second), a_client(first, second) as client:
        for _ in range(4):
            revision = client.put("k", b"v")
            for listener in (first, second):
                listener.hang_up()
            wait_until(lambda: node.sessions == [])
            assert client.put("k", b"v") == revision + 1


def test_calls_go_on_at_another_endpoint() -> None:
    node = FakeNode()
    with listening(node, node) as (first, second), a_client(first, second) as client:
        client.put("k", b"v")
        served = first if first.connections else second
        served.stop()
        assert client.get("k") is not None
        with pytest.raises(ConnectionFailed, match="refused"):
            client.status(served.endpoint, timeout=0.2)
        assert not client.health(served.endpoint, timeout=0.2).is_healthy
        served.start()


def test_without_numbers_a_write_in_flight_on_a_lost_connection_has_an_unknown_outcome() -> None:
    with listening(FakeNode()) as (listener,), a_client(listener, exactly_once=False) as client:
        client.get("k")
        listener.node.is_silent = True
        killer = threading.Timer(0.1, listener.hang_up)
        killer.start()
        with pytest.raises(OutcomeUnknown, match="lost"):
            client.put("k", b"v")
        killer.join()
        listener.node.is_silent = False
        assert client.get("k") is not None


def test_nobody_there_names_each_endpoint_and_why() -> None:
    with listening(FakeNode()) as (listener,):
        gone = listener.endpoint
        other = Listener(FakeNode(), subprotocol="other.v1")
        other.start()
        try:
            client = coord.connect_sync([other.endpoint, "127.0.0.1:1"], timeout=0.3)
            with pytest.raises(ConnectionFailed) as caught:
                client.get("k")
            assert f"{other.endpoint}: declined with HTTP status 400" in str(caught.value)
            assert "127.0.0.1:1: Connection refused" in str(caught.value)
        finally:
            other.stop()
        with pytest.raises(ConnectionFailed, match="TLS"):
            coord.connect_sync(f"https://{gone}", timeout=0.2).get("k")


def test_an_endpoint_of_another_cluster_is_not_used() -> None:
    with listening(FakeNode()) as (listener,), a_client(listener, timeout=0.3) as client:
        client.put("k", b"v")
        listener.node.cluster_id = 0xBAD
        listener.hang_up()
        with pytest.raises(ConnectionFailed, match="cluster ID mismatch"):
            client.get("k")


def test_a_closed_client_says_so() -> None:
    with listening(FakeNode()) as (listener,):
        with a_client(listener) as client:
            client.get("k")
        with pytest.raises(ClientClosed):
            client.get("k")
        wait_until(lambda: listener.node.sessions == [])


def test_threads_may_share_a_client() -> None:
    with listening(FakeNode()) as (listener,), a_client(listener) as client:

        def add() -> None:
            for _ in range(20):
                client.update("n", lambda value: b"%d" % (int(value or b"0") + 1))

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kv = client.get("n")
        assert kv is not None
        assert kv.value == b"80"


def test_a_watch_sees_each_revision_and_goes_on_after_a_break() -> None:
    node = FakeNode(fragments=True)
    with listening(node, node) as (first, second), a_client(first, second) as client:
        client.put("k", b"0")
        with client.watch("k", prefix=True, prev_kv=True) as watch:
            with pytest.raises(TimeoutError):
                watch.next(timeout=0.02)
            client.put("k", b"1")
            batch = watch.next(timeout=5)
            assert batch.revision == 3
            assert batch.events[0].prev_kv is not None
            for listener in (first, second):
                listener.hang_up()
            first.put(b"k2", b"")
            first.put(b"x", b"")
            with first.lock:
                node.delete(b"k", b"l")
            assert watch.next(timeout=5).revision == 4
            gone = watch.next(timeout=5)
            assert [event.kv.key for event in gone.events] == [b"k", b"k2"]
            assert watch.next_revision == 7
            assert watch.request_progress() == 6
            assert watch.next(timeout=5).events == ()
            client.put("k", b"2")
            for batch in watch:
                assert batch.revision == 7
                break
        with pytest.raises(ClientClosed):
            watch.next()


def test_a_watch_raises_compacted() -> None:
    with listening(FakeNode()) as (listener,), a_client(listener) as client:
        client.put("k", b"0")
        listener.node.compact_revision = 2
        with client.watch("k", since=1) as watch:
            for _ in range(2):
                with pytest.raises(Compacted) as caught:
                    watch.next(timeout=5)
                assert caught.value.compact_revision == 2
        with client.watch("k") as watch:
            session = [session for session in listener.node.sessions if session.watches][-1]
            session.send_notifications([[2, list(session.watches), 9, ""]])
            with pytest.raises(Compacted) as caught:
                watch.next(timeout=5)
            assert caught.value.compact_revision == 9
        with client.watch("k") as watch:
            session = [session for session in listener.node.sessions if session.watches][-1]
            session.send_notifications([[2, list(session.watches), 0, "permission denied"]])
            with pytest.raises(ApiError, match="permission denied"):
                watch.next(timeout=5)


PROGRAM = """
import sys, coord
with coord.connect_sync(sys.argv[1]) as client:
    assert client.get("k").value == b"v"
    with client.session() as session, client.observe("e") as owners, client.discover("api") as api:
        with session.lead("e", b"me") as leadership:
            leadership.check()
        client.queue("jobs"), client.barrier("b"), session.register, session.double_barrier
loaded = {name.partition(".")[0] for name in sys.modules} | {name for name in sys.modules if name.startswith("coord.")}
print(sorted(loaded & {"trio", "asyncio", "lmdb", "structlog", "click", "h11", "trio_websocket", "coord.node",
    "coord.server", "coord.store", "coord.mvcc", "coord.raft", "coord.wal", "coord.client.client"}))
"""


def test_a_script_loads_nothing_of_trio_or_of_the_server() -> None:
    with listening(FakeNode()) as (listener,):
        listener.put(b"k", b"v")
        command = [sys.executable, "-c", PROGRAM, listener.endpoint]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")

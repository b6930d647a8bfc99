"""Registrations by threads: what is wanted stands, whatever happens to leases, and checks decide what is wanted."""

# ruff: noqa: SIM117  # blocks stand inside each other as programs write them

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from coord.client.recipes.blocking_checking import ask_health
from coord.client.recipes.checks import parse_check
from coord.errors import ClientClosed, SessionLost

from .blocking_rig import HandClock, a_client, served, wait_until

ADDRESS = "10.0.0.5:80"


def test_an_instance_stands_while_the_block_runs() -> None:
    with served() as (node, listener), a_client(listener) as client, client.session() as session:
        with session.register("api", ADDRESS, metadata={"zone": "a"}) as registration:
            assert node.keys_below(b"api/") == [b"api/instance/%x" % session.lease]
            kv = client.get(b"api/instance/%x" % session.lease)
            assert kv is not None
            assert json.loads(kv.value) == {"address": ADDRESS, "metadata": {"zone": "a"}}
            assert registration.is_registered
            assert registration.instance.metadata == {"zone": "a"}
            registration.update({"zone": "b"}, timeout=5)
            kv = client.get(b"api/instance/%x" % session.lease)
            assert kv is not None
            assert json.loads(kv.value)["metadata"] == {"zone": "b"}
            with pytest.raises(ValueError, match="has or awaits"):
                session.register("api", ADDRESS).__enter__()
        assert node.keys_below(b"api/") == []
        assert "it is being registered" in repr(registration)
        with pytest.raises(ClientClosed):
            registration.wait_registered()
        with session.register("api", ADDRESS):
            assert len(node.keys_below(b"api/")) == 1


def test_it_is_registered_again_after_its_session_is_lost_and_its_block_goes_on() -> None:
    """S28."""
    clock = HandClock()
    with served() as (node, listener), a_client(listener, clock=clock) as client:
        with client.session(ttl=9) as session:
            first = session.lease
            with session.register("api", ADDRESS) as registration:
                with listener.lock:
                    node.expire(first)
                assert node.keys_below(b"api/") == []
                clock.advance(client, 3)
                wait_until(lambda: session.is_lost)
                registration.wait_registered(5)
                wait_until(lambda: len(node.keys_below(b"api/")) == 1)
                assert registration.instance.lease not in (0, first)
            # At the end it is gone, and the lease of its own too.
            assert node.keys_below(b"api/") == node.leases_left == []
        with pytest.raises(SessionLost):
            session.register("api", ADDRESS).__enter__()


def test_what_was_deleted_by_mistake_stands_again() -> None:
    with served() as (node, listener), a_client(listener) as client, client.session(ttl=1) as session:
        with session.register("api", ADDRESS):
            client.delete("api/", prefix=True)
            wait_until(lambda: len(node.keys_below(b"api/")) == 1)


def test_entering_and_leaving_do_not_fail_for_an_outage() -> None:
    with served() as (node, listener), a_client(listener, timeout=0.3) as client, client.session() as session:
        listener.stop()
        try:
            with session.register("api", ADDRESS) as registration:
                assert not registration.is_registered
                assert registration.why_not
                with pytest.raises(TimeoutError, match=r"registration of api: not within 0\.05 s"):
                    registration.wait_registered(0.05)
                listener.start()
                registration.wait_registered(5)
                assert len(node.keys_below(b"api/")) == 1
                listener.stop()
        finally:
            listener.start()
        # What could not be removed is a debt of the session.
        wait_until(lambda: node.keys_below(b"api/") == [])


def test_a_check_withdraws_it_and_puts_it_back() -> None:
    health = {"is": False}

    def check() -> bool:
        return health["is"]

    with served() as (node, listener), a_client(listener) as client, client.session() as session:
        with session.register("api", ADDRESS, check=check, check_interval=0.02) as registration:
            time.sleep(0.1)
            assert node.keys_below(b"api/") == []
            assert not registration.is_healthy
            assert registration.why_not == "check: False"
            health["is"] = True
            registration.wait_registered(5)
            assert len(node.keys_below(b"api/")) == 1
            health["is"] = False
            wait_until(lambda: node.keys_below(b"api/") == [])
        assert node.keys_below(b"api/") == []


def test_a_forked_process_withdraws_nothing() -> None:
    """S21."""
    with served() as (node, listener), a_client(listener) as client, client.session() as session:
        with session.register("api", ADDRESS) as registration:
            child = os.fork()
            if not child:
                registration.__exit__(None, None, None)
                session.close()
                client.close()
                os._exit(0)
            os.waitpid(child, 0)
            assert len(node.keys_below(b"api/")) == 1


@contextmanager
def answering(answer: bytes | None) -> Iterator[int]:
    """Answer one connection after the other with `answer`, None for never; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                taken.append(connection)
                if answer is not None:
                    connection.recv(4096)
                    connection.sendall(answer)
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in taken:
            connection.close()


@pytest.mark.parametrize(
    ("answer", "why_not"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 302 Found\n", ""),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
        (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP"),
        (b"", "the answer is not HTTP"),
        (None, "no answer within 0.1 s"),
    ],
)
def test_an_http_check(answer: bytes | None, why_not: str) -> None:
    with answering(answer) as port:
        check = parse_check(f"http://127.0.0.1:{port}/health")
        found = ask_health(check, 0.1 if answer is None else 5.0)
        assert found == (f"{check}: {why_not}" if why_not else "")


def test_a_tcp_check() -> None:
    with answering(b"") as port:
        assert ask_health(parse_check(f"tcp://127.0.0.1:{port}"), 5.0) == ""
    assert ask_health(parse_check(f"tcp://127.0.0.1:{port}"), 5.0).endswith("Connection refused")


def test_a_function_as_a_check() -> None:
    def broken() -> None:
        raise RuntimeError("no disk")

    def slow() -> None:
        time.sleep(0.02)

    assert ask_health(lambda: None, 5.0) == ""
    assert ask_health(broken, 5.0) == "broken: RuntimeError: no disk"
    assert ask_health(slow, 0.01) == "slow: no answer within 0.01 s"

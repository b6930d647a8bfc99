"""A view of a service, kept by a thread."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections import Counter

import pytest

import coord
from coord.client.blocking import BlockingClient
from coord.errors import ClientClosed, ConnectionFailed, NoInstance

from .blocking_rig import a_client, ended, in_thread, served, wait_until

LEASES = itertools.count(0xABC)


def register(client: BlockingClient, address: str, **metadata: str) -> int:
    lease = client.lease_grant(60, lease=next(LEASES)).id
    document = json.dumps({"address": address, "metadata": metadata})
    client.put(f"api/instance/{lease:x}", document.encode(), lease=lease)
    return lease


def test_a_view_follows_who_comes_and_goes() -> None:
    with served() as (_, listener), a_client(listener) as client, a_client(listener, seed=2) as other:
        lease = register(client, "10.0.0.1:80", zone="a")
        with other.discover("api") as api:
            assert [str(instance) for instance in api] == ["10.0.0.1:80"]
            assert api.pick().metadata == {"zone": "a"}
            known = api.version
            with pytest.raises(TimeoutError, match=r"of api have not changed within 0\.05 s"):
                api.changed(timeout=0.05)
            register(client, "10.0.0.2:80")
            assert len(api.changed(known, timeout=5)) == 2
            assert len(api.changed(known)) == 2  # at once: it has changed since
            client.lease_revoke(lease)
            wait_until(lambda: [str(instance) for instance in api] == ["10.0.0.2:80"])
            assert len({str(api.pick("random")) for _ in range(10)}) == 1
            with pytest.raises(NoInstance, match="suits"):
                api.pick(where=lambda instance: False)
            assert not api.is_stale


def test_it_serves_the_last_list_while_the_cluster_is_away_and_says_so() -> None:
    with served() as (node, listener), a_client(listener) as client:
        register(client, "10.0.0.1:80")
        with client.discover("api") as api:
            listener.stop()
            try:
                wait_until(lambda: api.is_stale)
                assert api.stale_since is not None
                assert str(api.pick()) == "10.0.0.1:80"
            finally:
                listener.start()
            wait_until(lambda: not api.is_stale)
            assert api.stale_since is None
            assert node.sessions


def test_a_view_that_was_left_has_the_last_list() -> None:
    with served() as (_, listener), a_client(listener) as client:
        register(client, "10.0.0.1:80")
        with client.discover("api") as api:
            known = api.version
            waiting, raised = in_thread(lambda: api.changed(known))
        ended(waiting)
        assert [type(error) for error in raised] == [ClientClosed]
        assert api.is_stale
        assert str(api.pick()) == "10.0.0.1:80"


def test_threads_that_use_instances_are_counted_right() -> None:
    with served() as (_, listener), a_client(listener) as client:
        for number in range(4):
            register(client, f"10.0.0.{number}:80")
        with client.discover("api") as api:
            begun = threading.Barrier(8)
            used: list[str] = []

            def work() -> None:
                begun.wait(5)
                with api.use() as instance:
                    used.append(str(instance))
                    begun.wait(5)
                for _ in range(200):
                    with api.use():
                        pass

            threads = [in_thread(work) for _ in range(8)]
            for thread, raised in threads:
                ended(thread)
                assert raised == []
            # Two each: nobody was picked a third time while another one had less.
            assert set(Counter(used).values()) == {2}
            assert not api._picker._in_use


def test_the_view_of_a_forked_process_goes_on_by_itself() -> None:
    with served() as (_, listener), a_client(listener) as client, a_client(listener, seed=2) as other:
        register(client, "10.0.0.1:80")
        with other.discover("api") as api:
            read, write = os.pipe()
            child = os.fork()
            if not child:
                known = api.version
                os.write(write, b"ready")
                try:
                    told = len(api.changed(known, timeout=5))
                except TimeoutError:
                    told = 0
                os.write(write, b"%d" % told)
                os._exit(0)
            assert os.read(read, 5) == b"ready"
            register(client, "10.0.0.2:80")
            assert os.read(read, 1) == b"2"
            os.waitpid(child, 0)
            os.close(read)
            os.close(write)
            wait_until(lambda: len(api) == 2)


def test_entering_tells_what_is_wrong() -> None:
    with coord.connect_sync("127.0.0.1:1", timeout=0.2) as client:
        with pytest.raises(ConnectionFailed), client.discover("api"):
            raise AssertionError
        with pytest.raises(ValueError, match="cannot name a service"):
            client.discover("")

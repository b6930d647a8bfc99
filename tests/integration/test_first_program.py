"""What people write first: a lock around some work, and what they miss in etcd's client for Python.

Their complaints: one server only; a prefix that cannot be chosen; no unique suffix in the key, so that who waits is not
to be seen; no keep-alive to speak of; no types. The last one is answered by `tests/docs/test_types.py`.
"""

from __future__ import annotations

import time
from random import Random

import coord

from .processes import ProcessCluster

TTL_S = 3


def test_any_of_several_endpoints_will_do(shared: ProcessCluster) -> None:
    shared.put("some_key", b"some_value")
    shared[shared.leader()].kill()
    for seed in range(6):
        with coord.connect_sync(shared.endpoints, random=Random(seed)) as client:
            pair = client.get("some_key")
            assert pair is not None
            assert pair.value == b"some_value"


def test_the_key_is_below_the_name_and_tells_its_session(shared: ProcessCluster) -> None:
    with (
        coord.connect_sync(shared.endpoints) as client,
        client.session(ttl=TTL_S) as session,
        session.lock("resource/1", value=b"me") as lock,
    ):
        assert lock.key == b"resource/1/%x" % session.lease
        found = client.range_response("", prefix=True, keys_only=True).kvs
        assert [pair.key for pair in found if pair.lease == session.lease] == [lock.key]
        held = client.get(lock.key)
        assert held is not None
        assert (held.value, held.create_revision) == (b"me", lock.fence)


def test_it_is_kept_alive_while_the_work_takes_long_and_the_leader_dies(shared: ProcessCluster) -> None:
    leader = shared.leader()
    with (
        coord.connect_sync(shared.endpoints) as client,
        client.session(ttl=TTL_S) as session,
        session.lock("resource/1") as lock,
    ):
        shared[leader].kill()
        # Nothing is asked of the client meanwhile.
        time.sleep(2 * TTL_S)
        client.put("done", b"yes", fence=lock)

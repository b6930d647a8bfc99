"""Short stories about sessions and what they own, in the form of those in `cluster_scenes`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

import coord
from coord.client import clock, op
from coord.client.client import Client
from coord.client.recipes.ownership import Lock
from coord.client.recipes.session import Session
from coord.errors import CoordError, LockTimeout
from coord.testing.beliefs import Belief, Observer
from coord.testing.cluster import Cluster
from coord.testing.cluster_scenes import Scene

TTL_S: Final = 5
LOCK: Final = "lock"
HOLDER: Final = "holder"


async def an_acknowledgement_is_late(cluster: Cluster) -> None:
    """S20, S24: what was acknowledged late counts from its sending; the next owner finds no belief in the former."""
    observer = Observer(lambda what, **fields: None)
    held = trio.Event()
    sessions: list[Session] = []

    async def hold() -> None:
        async with cluster.client(timeout=4.0) as client, client.session(TTL_S) as session, session.lock(LOCK) as lock:
            sessions.append(session)
            observer.running[HOLDER] = HOLDER
            observer.enter(Belief(lock, LOCK, "lock", HOLDER))
            held.set()
            await trio.sleep_forever()

    cluster.launch(HOLDER, _suppressing, hold)
    await held.wait()
    for name in cluster.names:
        cluster.slow(name, HOLDER, 1.5)
    await cluster.advance(2 * TTL_S)
    (session,) = sessions
    assert not session.is_lost, "answers that are late by less than a TTL cost no session"
    await _until_renewed(session)
    for name in cluster.names:
        cluster.cut(HOLDER, name)
        cluster.cut(name, HOLDER)
    async with cluster.client() as client, client.session(TTL_S) as other, other.lock(LOCK, wait=4 * TTL_S) as lock:
        observer.running["next"] = "next"
        observer.enter(Belief(lock, LOCK, "lock", "next"))
    assert not observer.wrong, observer.wrong[0]


async def the_holders_machine_sleeps(cluster: Cluster) -> None:
    """S24: it wakes up with a monotonic clock that knows nothing of the time that has passed."""
    observer = Observer(lambda what, **fields: None)
    machine = _Machine()

    async def hold() -> None:
        async with (
            cluster.client(clock=clock.boot_time) as client,
            client.session(TTL_S) as session,
            session.lock(LOCK) as lock,
        ):
            observer.running[HOLDER] = HOLDER
            observer.enter(Belief(lock, LOCK, "lock", HOLDER))
            await trio.sleep_forever()

    real, clock.time = clock.time, machine  # type: ignore[assignment, attr-defined]
    try:
        cluster.launch(HOLDER, _suppressing, hold)
        await cluster.advance(1.0)
        cluster.pause(HOLDER)
        machine.slept_s = 4.0 * TTL_S
        async with cluster.client() as client, client.session(TTL_S) as other, other.lock(LOCK, wait=4 * TTL_S) as lock:
            observer.running["next"] = "next"
            observer.enter(Belief(lock, LOCK, "lock", "next"))
    finally:
        clock.time = real  # type: ignore[attr-defined]
    assert not observer.wrong, observer.wrong[0]


class _Machine:
    """The clocks of a machine: one counts what it has slept, the other does not."""

    slept_s = 0.0

    def clock_gettime(self, which: int) -> float:
        """See `time`."""
        return trio.current_time() if which == clock.BOOT_TIME else self.monotonic()

    def monotonic(self) -> float:
        """See `time`."""
        return trio.current_time() - self.slept_s


async def a_retried_write_is_answered_from_the_record(cluster: Cluster) -> None:
    """S20: it made a key once, which has been deleted since; who has the lock now is another."""
    owners: list[str] = []

    async def lock() -> None:
        async with cluster.client(timeout=20.0) as client, client.session(60) as session:
            await trio.sleep(1.0)
            async with session.lock(LOCK):
                owners.append(HOLDER)

    program = cluster.launch(HOLDER, _suppressing, lock)
    await cluster.advance(0.9)
    for name in cluster.names:
        cluster.cut(name, HOLDER)
    await cluster.advance(0.3)
    async with cluster.client() as client, client.session(60) as session:
        assert await client.delete(LOCK + "/", prefix=True) == 1, "its write has not arrived"
        async with session.lock(LOCK):
            for name in cluster.names:
                cluster.reset(name, HOLDER)
            cluster.heal()
            await cluster.advance(5.0)
            assert not owners, "it owns the lock by a key that is gone"
    await program.ended.wait()


async def the_node_that_it_talks_to_stands_still(cluster: Cluster) -> None:
    """S30: a session has no other call by which its client would learn of it."""
    async with cluster.client() as client, client.session(TTL_S) as session:
        await cluster.advance(2.0)
        for _ in cluster.names:
            active = client._core.active
            assert active is not None
            silent = active.endpoint.host
            cluster.pause(silent)
            await cluster.advance(2 * TTL_S)
            session.check()
            cluster.resume(silent)
            await cluster.advance(TTL_S)


async def a_wait_in_vain_leaves_nothing(cluster: Cluster) -> None:
    """S26: the key is gone when the call returns, and the next one need not wait for it."""
    async with (
        cluster.client() as one,
        cluster.client("other") as other,
        one.session(60) as holding,
        other.session(60) as waiting,
        holding.lock(LOCK),
    ):
        for wait in (0.0, 0.001, 0.01, 0.5):
            try:
                async with waiting.lock(LOCK, wait=wait):
                    raise AssertionError("two own the lock")
            except LockTimeout:
                _assert_no_contender(cluster, waiting)
        for delay_s in (0.001, 0.003, 0.006, 0.01, 0.02, 0.1):
            with trio.move_on_after(delay_s):
                async with waiting.lock(LOCK):
                    raise AssertionError("two own the lock")
            _assert_no_contender(cluster, waiting)


async def a_late_put_is_fenced(cluster: Cluster) -> None:
    """S27: sent by who owned, it arrives when the next one has written."""
    await _write_late(cluster, lambda client, lock: client.put("effect", b"late", fence=lock))


async def a_late_transaction_is_fenced(cluster: Cluster) -> None:
    """S27: neither branch runs."""
    put = op.put("effect", b"late")
    await _write_late(
        cluster,
        lambda client, lock: client.txn(when=[coord.version("effect") == 0], then=[put], orelse=[put], fence=lock),
    )


async def _write_late(cluster: Cluster, write_under: Callable[[Client, Lock], Awaitable[object]]) -> None:
    async def write() -> None:
        async with cluster.client(timeout=60) as client, client.session(TTL_S) as session, session.lock(LOCK) as lock:
            await trio.sleep(1.0)
            await write_under(client, lock)

    cluster.launch(HOLDER, _suppressing, write)
    await cluster.advance(0.8)
    for name in cluster.names:
        cluster.slow(HOLDER, name, 0.5)
    await cluster.advance(0.4)
    cluster.pause(HOLDER)
    async with cluster.client() as client, client.session(TTL_S) as session:
        async with session.lock(LOCK) as lock:
            await client.put("effect", b"next", fence=lock)
        cluster.resume(HOLDER)
        await cluster.advance(5.0)
        pair = await client.get("effect")
    assert pair is not None
    assert pair.value == b"next", f"the effect is that of the {pair.value.decode()} one"


async def an_instance_outlives_its_session(cluster: Cluster) -> None:
    """S28: the body goes on, and the instance comes back."""
    ended: list[str] = []

    async def serve() -> None:
        try:
            async with cluster.client() as client, client.session(TTL_S) as session, session.register("api", "here"):
                await trio.sleep_forever()
        finally:
            ended.append("too early")

    cluster.launch(HOLDER, serve)
    async with cluster.client() as client:
        await cluster.advance(1.0)
        assert await _addresses(client) == ["here"]
        cluster.pause(HOLDER)
        await cluster.advance(3 * TTL_S)
        assert await _addresses(client) == []
        cluster.resume(HOLDER)
        await cluster.advance(TTL_S)
        assert await _addresses(client) == ["here"], "it has not come back"
    assert not ended


async def a_program_is_cancelled_from_outside(cluster: Cluster) -> None:
    """S26: a scope around the client ends the body first: the session is closed, and the item that is taken is had."""
    taken: list[bytes] = []

    async def take(client: Client) -> None:
        taken.append(await client.queue("jobs").get())

    async with cluster.client() as other:
        await other.queue("jobs").put(b"job")
        with trio.CancelScope() as outer:
            async with cluster.client(HOLDER) as client, client.session(TTL_S) as session, session.lock(LOCK):
                for name in cluster.names:
                    cluster.slow(name, HOLDER, 0.2)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(take, client)
                    # The item is found, and is being taken.
                    await trio.sleep(0.3)
                    outer.cancel()
        assert outer.cancelled_caught
        assert (await other.lease_time_to_live(session.lease)).ttl_s == -1, "not left to expire"
        assert taken == [b"job"]
        assert not [pair.key async for pair in other.range("", prefix=True)], "a contender, or the item"


SCENES: Final[dict[str, Scene]] = {
    scene.__name__: scene
    for scene in (
        an_acknowledgement_is_late,
        the_holders_machine_sleeps,
        a_retried_write_is_answered_from_the_record,
        the_node_that_it_talks_to_stands_still,
        a_wait_in_vain_leaves_nothing,
        a_late_put_is_fenced,
        a_late_transaction_is_fenced,
        an_instance_outlives_its_session,
        a_program_is_cancelled_from_outside,
    )
}


async def _suppressing(main: Callable[[], Awaitable[None]]) -> None:
    try:
        await main()
    except CoordError:
        return


async def _until_renewed(session: Session) -> None:
    before = session.tenure.deadline
    while session.tenure.deadline == before:  # noqa: ASYNC110  # virtual time
        await trio.sleep(0.01)


def _assert_no_contender(cluster: Cluster, session: Session) -> None:
    leader = cluster.leader_now()
    assert leader is not None
    assert not cluster.node(leader).machine.lease_keys(session.lease), "a key is left of a wait that is over"


async def _addresses(client: Client) -> list[str]:
    async with client.discover("api") as api:
        return [instance.address for instance in api]

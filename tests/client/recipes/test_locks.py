"""Sessions and locks of the Trio client in virtual time, on a node whose state is real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from tests.client.trio_fakes import Network, run, settle

from coord.client.client import Client, connect
from coord.client.recipes.ownership import Lock
from coord.client.recipes.session import Session
from coord.errors import DeadlineExceeded, FenceLost, LockLost, LockTimeout, OutcomeUnknown, SessionLost

from .machine_node import MachineNode

ONE, TWO = "n1:1", "n2:2"


@asynccontextmanager
async def clients(nursery: trio.Nursery, count: int = 1) -> AsyncIterator[tuple[MachineNode, Network, list[Client]]]:
    """So many clients of one node."""
    node = MachineNode()
    network = Network(nursery, {ONE: node})
    async with trio.open_nursery() as opening:
        opened: list[Client] = []

        async def one(number: int, task_status: trio.TaskStatus[None]) -> None:
            async with connect([ONE], random=Random(number), dial=network.dial, clock=trio.current_time) as client:
                opened.append(client)
                task_status.started()
                await trio.sleep_forever()

        for number in range(count):
            await opening.start(one, number)
        yield node, network, opened
        opening.cancel_scope.cancel()


Story = Callable[[MachineNode, Network, list[Client]], Awaitable[None]]


def told(story: Story, count: int = 1) -> None:
    """Run a story in virtual time."""

    async def test(nursery: trio.Nursery) -> None:
        async with clients(nursery, count) as (node, network, opened):
            await story(node, network, opened)

    run(test)


def test_a_session_is_a_lease_that_lives_as_long_as_its_block() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session(ttl=9) as session:
            assert node.leases_left == [session.lease]
            assert session.ttl_s == 9
            assert session.remaining_s == pytest.approx(9 - 0.9)
            await opened[0].put("k", b"v", lease=session.lease)
            await trio.sleep(60)
            session.check()
            assert session.remaining_s >= 9 - 0.9 - 3.1
        assert node.leases_left == []
        assert node.keys_below(b"k") == []
        assert session.is_lost
        await session.wait_lost()
        with pytest.raises(SessionLost, match="closed"):
            session.check()

    told(story)


def test_a_lock_is_held_by_one_and_handed_on() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        fences = []

        async def work(client: Client) -> None:
            async with client.session() as session, session.lock("jobs/nightly") as lock:
                fences.append(lock.fence)
                await client.put("last", b"%d" % lock.fence, fence=lock)
                await trio.sleep(5)
                assert len(node.keys_below(b"jobs/nightly/")) == 3 - fences.index(lock.fence)
                assert len(fences) == fences.index(lock.fence) + 1

        async with trio.open_nursery() as nursery:
            for client in opened:
                nursery.start_soon(work, client)
                await settle()
        assert fences == sorted(fences)
        assert len(fences) == 3
        assert node.keys_below(b"jobs/") == []

    told(story, 3)


def test_the_body_is_cancelled_when_the_key_is_deleted() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session() as session:

            async def hold() -> None:
                async with session.lock("a") as lock:
                    locks.append(lock)
                    await opened[1].delete(lock.key)
                    await trio.sleep(1)
                    raise AssertionError("the body goes on")

            locks: list[Lock] = []
            with pytest.raises(LockLost, match="deleted"):
                await hold()
            session.check()
            with pytest.raises(LockLost):
                await opened[0].put("k", b"v", fence=locks[0])
            # The session goes on, and may have it again.
            async with session.lock("a", wait=0) as again:
                assert again.fence > locks[0].fence

    told(story, 2)


def test_the_cluster_refuses_what_the_holder_does_not_know_yet() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session() as session:

            async def hold() -> None:
                async with session.lock("a") as lock:
                    node.expire(session.lease)
                    with pytest.raises(FenceLost):
                        await opened[0].put("k", b"v", fence=lock)
                    await trio.sleep_forever()

            with pytest.raises(LockLost):
                await hold()
        assert node.keys_below(b"k") == []

    told(story)


def test_a_refusal_of_its_fence_that_the_block_lets_out_is_the_loss_of_the_lock() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async def put_with(lock: Lock) -> None:
            # Nothing lies between the end of the lease and the write, so that only the cluster can know.
            node.expire(int(lock.key.rpartition(b"/")[2], 16))
            await opened[0].put("k", b"v", fence=lock)

        async def hold(session: Session) -> None:
            async with session.lock("a") as lock:
                await put_with(lock)

        async def hold_another(session: Session, other: Session) -> None:
            async with other.lock("a") as lock, session.lock("b"):
                await put_with(lock)

        async with opened[0].session() as session:
            with pytest.raises(LockLost, match="the cluster refused") as caught:
                await hold(session)
            assert isinstance(caught.value.__cause__, FenceLost)
        async with opened[0].session() as session, opened[0].session() as other:
            with pytest.raises(LockLost, match="lock 'a' is lost"):
                await hold_another(session, other)

    told(story)


def test_what_the_loss_does_to_a_call_of_the_block_is_not_what_its_user_sees() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async def hold(session: Session) -> None:
            async with session.lock("a"):
                network.stop(ONE)
                # As after a pause: the call has failed before the cancellation comes.
                with trio.CancelScope(shield=True):
                    await opened[0].get("k", timeout=20)

        async def fail(session: Session) -> None:
            async with session.lock("a"):
                network.stop(ONE)
                with trio.CancelScope(shield=True):
                    await trio.sleep(20)
                raise ZeroDivisionError

        for block, cause in ((hold, DeadlineExceeded), (fail, None)):
            network.resume(ONE)
            async with opened[0].session() as session:
                with pytest.raises(LockLost if cause else ZeroDivisionError) as caught:
                    await block(session)
                assert type(caught.value.__cause__) is (cause or type(None))

    told(story)


def test_who_is_cut_off_is_told_before_the_lease_ends() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session(ttl=9) as session:

            async def hold() -> None:
                async with session.lock("a"):
                    await trio.sleep(4)
                    assert node.renewals
                    network.stop(ONE)
                    stopped = trio.current_time()
                    try:
                        await trio.sleep_forever()
                    finally:
                        # The last renewal was sent a second before: 9 s from then the lease may end.
                        assert stopped + 8 - 0.9 - 0.01 <= trio.current_time() <= stopped + 8 - 0.8

            with pytest.raises(LockLost, match="no renewal"):
                await hold()
            with pytest.raises(SessionLost):
                session.check()

    told(story)


def test_a_machine_that_slept_finds_its_locks_lost() -> None:
    """S24: what Trio waits by stood still meanwhile, and the clock that counts did not."""

    async def test(nursery: trio.Nursery) -> None:
        slept_s = 0.0
        network = Network(nursery, {ONE: MachineNode()})
        clock = lambda: trio.current_time() + slept_s  # noqa: E731
        async with connect([ONE], dial=network.dial, clock=clock) as client, client.session(ttl=60) as session:

            async def hold() -> None:
                nonlocal slept_s
                async with session.lock("a") as lock:
                    await trio.sleep(5)
                    slept_s = 100.0
                    # The very next call knows it, without any task having looked.
                    with pytest.raises(LockLost):
                        await client.put("k", b"v", fence=lock)
                    with pytest.raises(SessionLost):
                        session.check()
                    began = trio.current_time()
                    try:
                        await trio.sleep_forever()
                    finally:
                        assert trio.current_time() - began <= 1.01

            with pytest.raises(LockLost, match="no renewal"):
                await hold()
        assert network.nodes[ONE].frames.count(("writes", 1)) == 3  # the grant, the lock and the revocation

    run(test)


def test_what_the_block_raises_comes_out_as_it_is() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async def fail() -> None:
            async with opened[0].session() as session, session.lock("a"), session.semaphore("b", 2):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert node.leases_left == []

    told(story)


def test_a_loss_that_several_tasks_of_the_block_meet_is_one_loss() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async def write(lock: Lock, key: str) -> None:
            await opened[0].put(key, b"v", fence=lock)

        async def hold(session: Session, also: type[Exception] | None) -> None:
            async with session.lock("a") as lock, trio.open_nursery() as nursery:
                node.expire(session.lease)
                nursery.start_soon(write, lock, "k")
                nursery.start_soon(write, lock, "l")
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                if also is not None:
                    raise also

        async with opened[0].session() as session:
            with pytest.raises(LockLost) as lost:
                await hold(session, None)
            assert isinstance(lost.value.__cause__, ExceptionGroup)
        async with opened[0].session() as session:
            with pytest.raises(ExceptionGroup) as caught:
                await hold(session, ZeroDivisionError)
            assert caught.group_contains(ZeroDivisionError)

    told(story)


def test_a_client_that_is_closed_around_a_session_takes_its_locks_along() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        ended: list[str] = []

        async def hold(client: Client) -> None:
            try:
                async with client.session() as session, session.lock("a"):
                    await trio.sleep_forever()
            except LockLost as error:
                ended.append(str(error))

        async with trio.open_nursery() as nursery:
            async with connect([ONE], dial=network.dial, clock=trio.current_time) as client:
                nursery.start_soon(hold, client)
                await trio.sleep(1)
            await settle()
            assert ended == ["lock 'a' is lost: the client was closed"]

    told(story)


def test_closing_takes_a_second_at_most_and_ends_what_other_tasks_own() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        ended: list[str] = []

        async def hold(session: Session) -> None:
            try:
                async with session.lock("a"):
                    await trio.sleep_forever()
            except LockLost as error:
                ended.append(str(error))

        async def wait(session: Session) -> None:
            try:
                async with session.lock("held"):
                    raise AssertionError
            except SessionLost as error:
                ended.append(str(error))

        async with opened[1].session() as theirs, theirs.lock("held"), trio.open_nursery() as nursery:
            session = opened[0].session()
            async with session:
                nursery.start_soon(hold, session)
                nursery.start_soon(wait, session)
                await trio.sleep(1)
                network.stop(ONE)
                began = trio.current_time()
                await session.close()
                assert trio.current_time() - began == pytest.approx(1)
                await settle()
                assert sorted(ended) == [
                    "lock 'a' is lost: it was closed",
                    f"session {session.lease:x} is lost: it was closed",
                ]
            # The end of the block finds nothing left to do.
            assert trio.current_time() - began == pytest.approx(1)
            network.resume(ONE)
        # A nursery ends silently by the cancellation of a task that nobody cancelled.
        assert len(ended) == 2

    told(story, 2)


def test_a_wait_ends_and_leaves_no_key() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        holder, other = opened
        async with holder.session() as first, other.session() as second, first.lock("a", value=b"me") as lock:
            for wait in (0, 0.5, 30):
                began = trio.current_time()
                with pytest.raises(LockTimeout, match=f"within {wait} s: {lock.key.decode()} has it, b'me'"):
                    async with second.lock("a", wait=wait):
                        raise AssertionError
                assert trio.current_time() - began == pytest.approx(wait)
                assert node.keys_below(b"a/") == [lock.key]
            with trio.move_on_after(3) as scope:
                async with second.lock("a"):
                    raise AssertionError
            assert scope.cancelled_caught
            assert node.keys_below(b"a/") == [lock.key]

    told(story, 2)


def test_a_wait_ends_in_time_though_nobody_answers() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session(ttl=60) as session:
            network.stop(ONE)
            began = trio.current_time()
            with pytest.raises(LockTimeout, match=r"lock 'a' was not acquired within 2 s$"):
                async with session.lock("a", wait=2):
                    raise AssertionError
            # A second more for the key that may be there.
            assert trio.current_time() - began == pytest.approx(3)
            # To try once is to ask once, with the client's timeout.
            with pytest.raises(OutcomeUnknown):
                async with session.lock("b", wait=0):
                    raise AssertionError
            assert trio.current_time() - began == pytest.approx(3 + 5 + 1)
            network.resume(ONE)
            async with session.lock("a", wait=5), session.lock("b", wait=5):
                assert len(node.keys_below(b"a/")) == len(node.keys_below(b"b/")) == 1

    told(story)


def test_one_task_of_a_session_holds_or_waits_at_a_time() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session() as session, session.lock("a"), session.lock("b"):
            with pytest.raises(ValueError, match="a task of this session has or awaits lock 'a'"):
                async with session.lock("a", wait=0):
                    raise AssertionError

    told(story)


def test_renewals_that_are_due_together_share_a_request() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with trio.open_nursery() as nursery:

            async def keep(delay: float) -> None:
                await trio.sleep(delay)
                async with opened[0].session(ttl=9):
                    await trio.sleep(30)

            for number in range(20):
                nursery.start_soon(keep, number * 0.02)
        assert len(node.renewals) <= 12
        assert max(map(len, node.renewals)) == 20

    told(story)


def test_a_block_that_ends_while_nothing_can_be_asked_any_more_leaves_its_scope() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        with trio.CancelScope() as outer:
            async with opened[0].session(ttl=9) as session:
                lock = session.lock("a")
                await lock.__aenter__()
                opened[0]._driver.close()
                session.tenure.lose("it was closed")
                with pytest.raises(LockLost, match="closed"):
                    await lock.__aexit__(None, None, None)
                await trio.lowlevel.checkpoint()
            outer.cancel()
            await trio.sleep(1)
        assert outer.cancelled_caught

    told(story)


def test_what_else_goes_wrong_in_the_block_of_a_lost_lock_is_told_without_its_cancellation() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async def fail() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("cleaning up failed")

        async def hold(session: Session) -> None:
            async with session.lock("a"), trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                nursery.start_soon(trio.sleep_forever)
                await settle()
                await opened[0].delete(f"a/{session.lease:x}")

        async with opened[0].session(ttl=9) as session:
            with pytest.raises(ExceptionGroup) as caught:
                await hold(session)
            assert [str(error) for error in caught.value.exceptions] == ["cleaning up failed"]

    told(story)

"""Cancelling a session or a lock at any of its awaits leaves no key, lease, watch or task behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from tests.client.test_cancelling import cancelled_at
from tests.client.trio_fakes import Network, settle

from coord.client.client import Client
from coord.client.recipes.session import Session
from coord.errors import LockTimeout

from .machine_node import MachineNode
from .test_locks import ONE, told


async def open_a_session(client: Client) -> None:
    async with client.session(ttl=9) as session:
        await client.put("k", b"v", lease=session.lease)
        await trio.sleep(10)


Use = Callable[[Session, Client], Awaitable[object]]


async def lock(session: Session, client: Client) -> None:
    async with session.lock("a") as lock:
        await client.put("k", b"v", fence=lock)


async def wait_for_a_lock(session: Session, client: Client) -> None:
    async with session.lock("held", wait=20):
        await trio.sleep(1)


async def wait_in_vain(session: Session, client: Client) -> None:
    with pytest.raises(LockTimeout):
        async with session.lock("held", wait=1):
            raise AssertionError


async def try_once(session: Session, client: Client) -> None:
    with pytest.raises(LockTimeout):
        async with session.lock("held", wait=0):
            raise AssertionError


async def read(session: Session, client: Client) -> None:
    async with session.read_lock("rw"), session.semaphore("s", 2):
        await trio.sleep(1)


async def write(session: Session, client: Client) -> None:
    async with session.write_lock("rw"):
        await trio.sleep(1)


USES: list[Use] = [lock, wait_for_a_lock, wait_in_vain, try_once, read, write]


def assert_clean(node: MachineNode, client: Client, leases: int, tasks: int, watches: int) -> None:
    core = client._core
    assert len(node.leases_left) == leases
    assert not any(connection.pending for connection in core.connections)
    assert sum(len(connection.subscriptions) for connection in core.connections) == watches
    assert len(node.sessions[0].watches) == watches
    assert core.outbox == []
    assert len(client._nursery.child_tasks) == tasks


def test_cancelling_a_session_at_every_await() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        client = opened[0]
        tasks = len(client._nursery.child_tasks)
        for step in range(1, 100):
            has_ended = await cancelled_at(step, lambda: open_a_session(client))
            await settle()
            assert_clean(node, client, 0, tasks, 0)
            assert node.keys_below(b"k") == []
            if has_ended:
                assert step > 3
                return
        raise AssertionError("never ended")

    told(story)


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_cancelling_a_lock_at_every_await(use: Use) -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        mine, others = opened
        async with mine.session(ttl=9) as session, others.session(ttl=9) as theirs, trio.open_nursery() as nursery:

            async def hold(task_status: trio.TaskStatus[None]) -> None:
                async with theirs.lock("held"):
                    task_status.started()
                    await trio.sleep(10)

            async with session.lock("first"):
                pass  # the task that starts watching over locks stays
            tasks = len(mine._nursery.child_tasks)
            for step in range(1, 100):
                await nursery.start(hold)
                (held,) = node.keys_below(b"held/")
                has_ended = await cancelled_at(step, lambda: use(session, mine))
                await settle()
                assert set(node.keys_below(b"held/")) <= {held}
                assert node.keys_below(b"a/") == node.keys_below(b"rw/") == node.keys_below(b"s/") == []
                assert_clean(node, mine, 2, tasks, 0)
                assert session._claims == {}
                assert session.dependents == {}
                await trio.sleep(11)
                if has_ended:
                    assert step >= 3
                    return
        raise AssertionError("never ended")

    told(story, 2)


def test_cancelling_while_the_node_is_silent_takes_a_second_and_leaves_a_debt() -> None:
    """S26: the key that may be there keeps the session from queueing again, until it is known to be gone."""

    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session(ttl=60) as session:
            network.stop(ONE)
            began = trio.current_time()
            with trio.move_on_after(2) as scope:
                async with session.lock("a"):
                    raise AssertionError
            assert scope.cancelled_caught
            assert trio.current_time() == pytest.approx(began + 3)
            began = trio.current_time()
            with pytest.raises(LockTimeout, match="not removed yet"):
                async with session.lock("a", wait=4):
                    raise AssertionError
            assert trio.current_time() == pytest.approx(began + 4)
            network.resume(ONE)
            async with session.lock("a", wait=30) as lock:
                assert node.keys_below(b"a/") == [lock.key]
            assert node.keys_below(b"a/") == []
            assert session._claims == {}

    told(story)

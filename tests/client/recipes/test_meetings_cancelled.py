"""Cancelling elections, registrations, views, barriers and queues at any of their awaits leaves nothing behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from tests.client.test_cancelling import cancelled_at
from tests.client.trio_fakes import Network, settle

from coord.client.client import Client
from coord.client.recipes.session import Session

from .machine_node import MachineNode
from .test_locks import told
from .test_locks_cancelled import assert_clean

Use = Callable[[MachineNode, Session, Client], Awaitable[object]]


async def lead(node: MachineNode, session: Session, client: Client) -> None:
    async with session.lead("a", b"v") as leadership:
        await leadership.proclaim(b"w")


async def resign(node: MachineNode, session: Session, client: Client) -> None:
    async with session.lead("a") as leadership:
        await leadership.resign()


async def observe(node: MachineNode, session: Session, client: Client) -> None:
    async with client.observe("a") as owners:
        assert await anext(owners) is None
        async with session.lead("a"):
            assert await anext(owners) is not None
        assert await anext(owners) is None


async def register(node: MachineNode, session: Session, client: Client) -> None:
    async with session.register("a", "a:1") as registration:
        await registration.update({"b": 1})
        await trio.sleep(1)


async def register_with_a_check(node: MachineNode, session: Session, client: Client) -> None:
    async def is_well() -> None:
        await trio.sleep(0.1)

    async with session.register("a", "a:1", check=is_well, check_interval=0.5) as registration:
        await registration.wait_registered()
        await trio.sleep(1)


async def discover(node: MachineNode, session: Session, client: Client) -> None:
    async with client.discover("a") as api, session.register("a", "a:1"):
        await api.changed(0)


async def barrier(node: MachineNode, session: Session, client: Client) -> None:
    one = client.barrier("a/b")
    await one.hold(lease=session.lease)
    await one.release()
    await one.wait()


async def double_barrier(node: MachineNode, session: Session, client: Client) -> None:
    for _ in range(2):
        async with session.double_barrier("a", 1):
            await trio.sleep(1)


async def wait_at_a_double_barrier(node: MachineNode, session: Session, client: Client) -> None:
    with trio.move_on_after(1):
        async with session.double_barrier("a", 2):
            raise AssertionError


USES: list[Use] = [
    lead,
    resign,
    observe,
    register,
    register_with_a_check,
    discover,
    barrier,
    double_barrier,
    wait_at_a_double_barrier,
]


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_cancelling_at_every_await(use: Use) -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        client = opened[0]
        async with client.session(ttl=9) as session:
            async with session.lock("first"):
                pass  # the task that starts watching over what is owned stays
            tasks = len(client._nursery.child_tasks)
            for step in range(1, 100):
                has_ended = await cancelled_at(step, lambda: use(node, session, client))
                await settle()
                if use is not barrier or has_ended:
                    assert node.rig.keys() == []
                assert_clean(node, client, 1, tasks, 0)
                assert session._claims == {}
                assert session.dependents == {}
                if has_ended:
                    assert step >= 3
                    return
        raise AssertionError("never ended")

    told(story)


def test_cancelling_a_registration_that_goes_on_after_its_session_leaves_no_lease() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        client = opened[0]

        async def go_on() -> None:
            async with client.session(ttl=9) as session, session.register("a", "a:1") as registration:
                node.expire(session.lease)
                await session.wait_lost()
                await registration.wait_registered()
                await trio.sleep(1)

        tasks = len(client._nursery.child_tasks)
        for step in range(1, 100):
            has_ended = await cancelled_at(step, go_on)
            await settle()
            await trio.sleep(4)
            assert node.rig.keys() == []
            assert_clean(node, client, 0, tasks, 0)
            if has_ended:
                assert step > 5
                return
        raise AssertionError("never ended")

    told(story)


@pytest.mark.parametrize("step", range(20))
def test_cancelling_a_registration_while_it_gets_a_new_lease_leaves_none(step: int) -> None:
    # `cancelled_at` counts the awaits of the body, and what goes on here is done by another task.
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        client = opened[0]
        async with trio.open_nursery() as nursery:

            async def go_on() -> None:
                async with client.session(ttl=9) as session, session.register("a", "a:1"):
                    lost.append(session)
                    await trio.sleep_forever()

            lost: list[Session] = []
            nursery.start_soon(go_on)
            await settle()
            node.expire(lost[0].lease)
            await lost[0].wait_lost()
            for _ in range(step):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await settle()
        assert node.rig.keys() == []
        assert node.leases_left == []

    told(story)


def test_cancelling_a_queue_at_every_await() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        client = opened[0]
        jobs = client.queue("jobs")
        tasks = len(client._nursery.child_tasks)
        for step in range(1, 100):
            got: list[bytes] = []

            async def get(got: list[bytes] = got) -> None:
                got.append(await jobs.get())
                got.append(await jobs.get())

            for item in (b"1", b"2"):
                await jobs.put(item)
            has_ended = await cancelled_at(step, get)
            await settle()
            left = [pair.value async for pair in client.range("jobs/", prefix=True)]
            assert sorted(got + left) == [b"1", b"2"], "taken and returned, or still there"
            await client.delete("jobs/", prefix=True)
            assert_clean(node, client, 0, tasks, 0)
            if has_ended:
                assert step > 3
                return
        raise AssertionError("never ended")

    told(story)

"""Watching over what is owned: whatever lasts is watched, and what does not leaves nothing behind."""

from __future__ import annotations

import pytest
import trio
from tests.client.trio_fakes import Network, run, settle

from coord.client.client import Client
from coord.client.recipes.lookout import Lookout
from coord.client.recipes.session import Session
from coord.errors import LockLost

from .machine_node import MachineNode
from .test_locks import told


class Owned:
    """What was got, and perhaps is lost again."""

    def __init__(self, *, is_lost: bool = False) -> None:
        self.is_lost = is_lost
        self.is_watched = False

    async def watch_over(self) -> None:
        self.is_watched = True


def test_all_that_lasts_is_watched_by_whichever_turn_it_came() -> None:
    async def test(nursery: trio.Nursery) -> None:
        lookout = Lookout(nursery)
        for _ in range(3):
            lasting, over = [Owned(), Owned()], Owned(is_lost=True)
            for owned in (lasting[0], over, lasting[1]):
                lookout.add(owned)
            await settle()
            assert [owned.is_watched for owned in lasting] == [True, True]
            assert not over.is_watched

    run(test)


def test_what_is_got_while_the_client_ends_wakes_nobody() -> None:
    async def test(nursery: trio.Nursery) -> None:
        async with trio.open_nursery() as ending:
            lookout, owned = Lookout(ending), Owned()
            lookout.add(owned)
            await settle()
            ending.cancel_scope.cancel()
        late = Owned()
        lookout.add(late)
        await settle()
        assert owned.is_watched
        assert not late.is_watched

    run(test)


def test_each_of_several_locks_in_turn_is_watched_over() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async def lose_a_lock(session: Session) -> None:
            async with session.lock("a") as lock:
                await opened[1].delete(lock.key)
                await trio.sleep(1)

        async with opened[0].session(ttl=9) as session:
            for _ in range(2):
                with pytest.raises(LockLost, match="deleted"):
                    await lose_a_lock(session)

    told(story, count=2)


def test_what_is_over_before_its_watching_begins_is_not_watched() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session(ttl=9) as session, session.lock("a") as lock:
            pass
        with trio.fail_after(1):
            await lock.watch_over()

    told(story)


def test_a_block_of_a_few_turns_leaves_no_watch() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        client = opened[0]
        async with client.session(ttl=9) as session:
            async with session.lock("a"):
                pass
            tasks = client._nursery.child_tasks
            # Trio steps the tasks of a turn in a random order: the block's end may come between any two of the steps.
            for number in range(60):
                async with session.lock("a"):
                    for _ in range(number % 4):
                        await trio.lowlevel.checkpoint()
                await settle()
                assert client._nursery.child_tasks == tasks
                assert not node.sessions[0].watches

    told(story)

"""Where the turns of a node run: in the step of the task that read what they are for, and once for all that it read."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import pytest
import trio
from attrs import define, field
from trio.testing import wait_all_tasks_blocked

from coord.node.loop import Loop
from coord.transport.hub import current_hub


@define(eq=False)
class Actor:
    """Notes in whose task its turns run, and what lay in its inbox."""

    nursery: trio.Nursery
    loop: Loop = field(factory=lambda: Loop(trio.current_time, lambda turn, took_s: None))
    inbox: list[int] = field(factory=list)
    turns: list[tuple[str, list[int]]] = field(factory=list)
    error: Exception | None = None
    leaves_over: int = 0
    sockets: ExitStack = field(factory=ExitStack)
    _others: list[socket.socket] = field(factory=list)

    def turn(self) -> bool:
        if self.error is not None:
            raise self.error
        self.turns.append((trio.lowlevel.current_task().name.rpartition(".")[2], self.inbox))
        self.inbox = []
        self.leaves_over -= 1
        return self.leaves_over >= 0

    def take(self, number: int) -> None:
        self.inbox.append(number)
        self.loop.wake()

    async def connect(self, count: int, on_read: Callable[[], object] = lambda: None) -> None:
        """Have the hub read so many sockets, each of which fills the inbox."""
        hub = current_hub()
        assert hub is not None
        for number in range(count):
            mine, other = socket.socketpair()
            mine.setblocking(False)
            self.sockets.enter_context(mine)
            self._others.append(self.sockets.enter_context(other))

            def read(mine: socket.socket = mine, number: int = number) -> None:
                mine.recv(100)
                self.take(number)
                on_read()

            self.nursery.start_soon(hub.attend, mine.fileno(), read)
        await wait_all_tasks_blocked()

    async def arrive(self) -> None:
        """Let all sockets become readable at once."""
        self.turns.clear()
        for other in self._others:
            other.send(b"x")
        await wait_all_tasks_blocked()


def run(test: Callable[[Actor], Awaitable[None]]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            actor = Actor(nursery)
            with actor.sockets:
                nursery.start_soon(actor.loop.run, (actor.turn,))
                await wait_all_tasks_blocked()
                await test(actor)
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await wait_all_tasks_blocked()

    trio.run(main)


def test_what_was_read_together_shares_a_pass_in_the_readers_step() -> None:
    async def test(actor: Actor) -> None:
        await actor.connect(3)

        await actor.arrive()

        [(task, inbox)] = actor.turns
        assert task == "hub"
        assert sorted(inbox) == [0, 1, 2]

    run(test)


def test_what_nobody_read_is_the_loops_own() -> None:
    async def test(actor: Actor) -> None:
        await actor.connect(1)

        actor.take(7)
        await wait_all_tasks_blocked()

        assert actor.turns == [("run", [7])]

    run(test)


def test_what_a_turn_leaves_over_is_the_loops_own() -> None:
    async def test(actor: Actor) -> None:
        await actor.connect(1)
        actor.leaves_over = 1

        await actor.arrive()

        assert actor.turns == [("hub", [0]), ("run", [])]

    run(test)


def test_a_failed_turn_ends_the_loop_and_nobody_else() -> None:
    async def test(actor: Actor) -> None:
        await actor.connect(1)
        actor.error = OSError("the disk is gone")
        await actor.arrive()

    with pytest.raises(ExceptionGroup) as caught:
        run(test)
    [error] = caught.value.exceptions
    assert str(error) == "the disk is gone"


def test_a_loop_that_was_ended_meanwhile_runs_no_turns() -> None:
    async def test(actor: Actor) -> None:
        await actor.connect(1, actor.nursery.cancel_scope.cancel)
        with trio.CancelScope(shield=True):
            await actor.arrive()

        assert actor.turns == []

    run(test)


def test_a_loop_tells_that_it_is_about_to_run() -> None:
    async def test(actor: Actor) -> None:
        seen: list[bool] = []
        await actor.connect(1, lambda: seen.append(actor.loop.is_awake))
        assert not actor.loop.is_awake
        await actor.arrive()
        actor.take(1)
        assert actor.loop.is_awake, "nobody reads: it runs in a step of its own"
        await wait_all_tasks_blocked()
        assert not actor.loop.is_awake
        assert seen == [False], "it runs in the reader's step"

    run(test)

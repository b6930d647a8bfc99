"""Links served by the hub: one task reads all sockets, and what happens to one link happens to it alone."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import groupby

import pytest
import trio
from attrs import define, field
from trio.testing import wait_all_tasks_blocked

from coord.node.worker import ThreadWorker
from coord.transport import hub as hub_module
from coord.transport import pace, socket_link
from coord.transport.hub import Hub, current_hub
from coord.transport.link import LinkClosed, LinkEnd
from coord.transport.socket_link import SocketLink

from .helpers import BINARY, aborting, cancelled_at, frame, link_pair, run, server_and_raw, socket_pair


@pytest.fixture(params=["hub", "no epoll"], autouse=True)
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every promise of `Link.deliver` holds where there is no `epoll` too."""
    if request.param == "no epoll":
        monkeypatch.setattr(socket_link, "current_hub", lambda: None)
    return str(request.param)


@pytest.fixture
def only_with_hub(either_way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is the hub's alone: both rounds run with it."""
    monkeypatch.setattr(socket_link, "current_hub", current_hub)


@define(eq=False)
class Steps(trio.abc.Instrument):
    """Counts the steps of tasks by name."""

    counts: Counter[str] = field(factory=Counter)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.counts[task.name.rpartition(".")[2]] += 1


@define(eq=False)
class Served:
    """A link that is served in a task of its own, and how that went."""

    link: SocketLink
    on_messages: Callable[[list[bytes]], None] = lambda _: None
    pause_bytes: int = 1 << 30
    got: list[bytes] = field(factory=list)
    end: LinkClosed | None = None
    error: Exception | None = None

    async def serve(self) -> None:
        try:
            self.end = await self.link.deliver(self.take, self.pause_bytes)
        except ValueError as error:
            self.error = error

    def take(self, messages: list[bytes]) -> None:
        self.got += messages
        self.on_messages(messages)


def fail(_: object) -> None:
    raise ValueError("a mistake in handling a message")


# ---- what is delivered


def test_every_message_is_delivered_and_then_how_the_link_ended() -> None:
    async def main() -> None:
        link, raw = server_and_raw(received=frame(BINARY, b"early"))
        served = Served(link)
        async with aborting(link), trio.open_nursery() as nursery:
            nursery.start_soon(served.serve)
            await wait_all_tasks_blocked()
            assert served.got == [b"early"]
            for number in range(3):
                raw.send(frame(BINARY, b"a%d" % number) + frame(BINARY, b"b%d" % number))
                await wait_all_tasks_blocked()
            raw.send(frame(BINARY, b"last"))
            raw.close()
        assert served.got == [b"early", b"a0", b"b0", b"a1", b"b1", b"a2", b"b2", b"last"]
        assert served.end is not None
        assert served.end.end is LinkEnd.BROKEN

    run(main)


@pytest.mark.usefixtures("only_with_hub")
def test_a_pass_reads_all_ready_sockets_and_their_tasks_have_no_step() -> None:
    async def main() -> None:
        pairs = [link_pair() for _ in range(20)]
        served = [Served(server) for server, _ in pairs]
        async with aborting(*(link for pair in pairs for link in pair)), trio.open_nursery() as nursery:
            for one in served:
                nursery.start_soon(one.serve)
            await wait_all_tasks_blocked()
            steps = Steps()
            trio.lowlevel.add_instrument(steps)
            for _, client in pairs:
                client.send(b"message")
            await wait_all_tasks_blocked()
            trio.lowlevel.remove_instrument(steps)
            assert [one.got for one in served] == [[b"message"]] * 20
            assert steps.counts["hub"] == 1
            assert not steps.counts["serve"]
            nursery.cancel_scope.cancel()

    run(main)


@pytest.mark.usefixtures("only_with_hub")
def test_others_have_their_turn_between_many_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "SOCKETS_PER_PASS", 8)

    async def main() -> None:
        count = 48
        pairs = [link_pair() for _ in range(count)]
        told: list[str] = []
        served = [Served(server, lambda _: told.append("socket")) for server, _ in pairs]

        async def other() -> None:
            while told.count("socket") < count:
                told.append("other")
                await trio.lowlevel.checkpoint()

        async with aborting(*(link for pair in pairs for link in pair)), trio.open_nursery() as nursery:
            for one in served:
                nursery.start_soon(one.serve)
            await wait_all_tasks_blocked()
            for _, client in pairs:
                client.send(b"message")
            nursery.start_soon(other)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        runs = "".join(one[0] for one in told).split("o")
        # Trio runs the tasks of one pass in any order.
        assert max(map(len, runs)) in (8, 16)
        assert all(one.got == [b"message"] for one in served)

    run(main)


# ---- a side that does not read is not read


@pytest.mark.usefixtures("only_with_hub")
def test_tasks_that_were_woken_have_their_turn_before_the_rest_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no socket waits for ever behind others that always have something."""
    monkeypatch.setattr(hub_module, "TASKS_AT_ONCE", 4)

    async def main() -> None:
        story: list[str] = []
        parked: list[trio.lowlevel.Task] = []

        async def wait_to_be_woken() -> None:
            while True:
                parked.append(trio.lowlevel.current_task())
                await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)
                story.append("task")

        def on_messages(number: int) -> Callable[[list[bytes]], None]:
            def take(_: list[bytes]) -> None:
                story.append(f"read {number}")
                for _ in range(2):
                    trio.lowlevel.reschedule(parked.pop())
                if number < 2 and len(story) < 60:
                    pairs[number][1].send(b"more")

            return take

        pairs = [link_pair() for _ in range(6)]
        served = [Served(server, on_messages(number)) for number, (server, _) in enumerate(pairs)]
        async with aborting(*(link for pair in pairs for link in pair)), trio.open_nursery() as nursery:
            for one in served:
                nursery.start_soon(one.serve)
            for _ in range(20):
                nursery.start_soon(wait_to_be_woken)
            await wait_all_tasks_blocked()
            for _, client in pairs:
                client.send(b"x")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        reads = [what for what in story if what.startswith("read")]
        assert len(reads) > 20
        assert set(reads[:6]) == {f"read {number}" for number in range(6)}
        # In one pass it may be the last to have its turn, and the first in the next one.
        in_a_row = [len(list(some)) for is_task, some in groupby(story, "task".__eq__) if not is_task]
        assert max(in_a_row) <= 4

    run(main)


def test_nothing_is_read_while_too_much_waits_to_be_sent() -> None:
    async def main() -> None:
        link, raw = server_and_raw()
        served = Served(link, pause_bytes=100_000)
        async with aborting(link), trio.open_nursery() as nursery:
            nursery.start_soon(served.serve)
            await wait_all_tasks_blocked()
            raw.send(frame(BINARY, b"first"))
            await wait_all_tasks_blocked()
            link.send(bytes(2_000_000))
            for number in range(3):
                raw.send(frame(BINARY, b"%d" % number))
                await wait_all_tasks_blocked()
            assert served.got == [b"first"]
            while link.buffered_bytes > 50_000:
                await trio.lowlevel.wait_readable(raw)
                raw.recv(100_000)
            await wait_all_tasks_blocked()
            assert b"".join(served.got) == b"first012"
            raw.close()
            nursery.cancel_scope.cancel()

    run(main)


def test_link_that_ends_while_it_is_not_read_is_told() -> None:
    async def main() -> None:
        link, raw = server_and_raw()
        served = Served(link, pause_bytes=100_000)
        async with aborting(link), trio.open_nursery() as nursery:
            link.send(bytes(2_000_000))
            nursery.start_soon(served.serve)
            raw.send(frame(BINARY, b"unread"))
            await wait_all_tasks_blocked()
            raw.close()
        assert served.end is not None
        assert served.end.end is LinkEnd.BROKEN

    run(main)


# ---- alone with its mistakes


def test_an_error_ends_its_own_link_alone() -> None:
    async def main() -> None:
        pairs = [link_pair() for _ in range(3)]
        served = [Served(pairs[0][0]), Served(pairs[1][0], fail), Served(pairs[2][0])]
        async with aborting(*(link for pair in pairs for link in pair)), trio.open_nursery() as nursery:
            for one in served:
                nursery.start_soon(one.serve)
            await wait_all_tasks_blocked()
            for round_number in range(2):
                for _, client in pairs:
                    client.send(b"%d" % round_number)
                await wait_all_tasks_blocked()
            assert [one.got for one in served] == [[b"0", b"1"], [b"0"], [b"0", b"1"]]
            assert [str(one.error) for one in served] == ["None", "a mistake in handling a message", "None"]
            nursery.cancel_scope.cancel()

    run(main)


def test_an_error_is_told_though_the_link_was_closed_or_cancelled_before_it() -> None:
    async def main() -> None:
        for is_cancelled in (False, True):
            server, client = link_pair()
            scope = trio.CancelScope()

            def end_and_fail(
                _: object,
                server: SocketLink = server,
                scope: trio.CancelScope = scope,
                is_cancelled: bool = is_cancelled,
            ) -> None:
                scope.cancel() if is_cancelled else server.abort()
                fail(_)

            served = Served(server, end_and_fail)
            async with aborting(server, client):
                client.send(b"message")
                with scope:
                    await served.serve()
            assert str(served.error) == "a mistake in handling a message"

    run(main)


def test_one_that_is_closed_by_another_in_the_same_pass_is_handled_no_more() -> None:
    async def main() -> None:
        pairs = [link_pair() for _ in range(2)]
        served: list[Served] = []

        def close_the_other(messages: list[bytes]) -> None:
            for one in served:
                if one.got != messages:
                    one.link.close()

        served += [Served(server, close_the_other) for server, _ in pairs]
        async with aborting(*(link for pair in pairs for link in pair)), trio.open_nursery() as nursery:
            for one in served:
                nursery.start_soon(one.serve)
            await wait_all_tasks_blocked()
            for number, (_, client) in enumerate(pairs):
                client.send(b"%d" % number)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert sorted(len(one.got) for one in served) == [0, 1]
        assert [one.end is not None for one in served] == [not one.got for one in served]

    run(main)


# ---- descriptors


@pytest.mark.usefixtures("only_with_hub")
@pytest.mark.parametrize("how", ["abort", "close", "cancel"])
def test_the_hub_forgets_a_socket_that_another_process_still_holds(how: str) -> None:
    async def main() -> None:
        link, raw = server_and_raw()
        served = Served(link)
        async with aborting(link), trio.open_nursery() as nursery:
            nursery.start_soon(served.serve)
            await wait_all_tasks_blocked()
            # As a forked process does.
            held = os.dup(link._fd)
            if how == "abort":
                link.abort()
            elif how == "close":
                link.close()
            nursery.cancel_scope.cancel()
            await trio.lowlevel.cancel_shielded_checkpoint()
        link.abort()
        raw.send(frame(BINARY, b"message"))
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(steps)
        assert not steps.counts["hub"]
        os.close(held)
        raw.close()

    run(main)


def test_a_descriptor_that_is_used_again_is_its_new_owners() -> None:
    async def main() -> None:
        older, other = link_pair()
        served = Served(older)
        async with aborting(older, other), trio.open_nursery() as nursery:
            nursery.start_soon(served.serve)
            await wait_all_tasks_blocked()
            number = older._fd
            older.abort()
            left, right = socket_pair()
            if left.fileno() != number:
                os.dup2(left.fileno(), number)
                left.close()
                left = socket.socket(fileno=number)
                left.setblocking(False)
            newer = SocketLink(left, is_client=False, subprotocol="test")
            newer_served = Served(newer)
            nursery.start_soon(newer_served.serve)
            await wait_all_tasks_blocked()
            # All that the older one may still be told.
            older.close()
            older.abort()
            older.on_tick(100)
            right.send(frame(BINARY, b"message"))
            await wait_all_tasks_blocked()
            assert newer_served.got == [b"message"]
            assert not served.got
            newer.abort()
            right.close()

    run(main)


# ---- cancellation


def test_delivery_cancelled_at_any_step_loses_nothing() -> None:
    async def main() -> None:
        for step in range(1, 6):
            server, client = link_pair()
            served = Served(server)
            async with aborting(server, client):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancelled_at, step, served.serve)
                    await wait_all_tasks_blocked()
                    for message in (b"one", b"two", b"three"):
                        client.send(message)
                        await wait_all_tasks_blocked()
                    nursery.cancel_scope.cancel()
                again = Served(server)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(again.serve)
                    client.send(b"four")
                    await wait_all_tasks_blocked()
                    nursery.cancel_scope.cancel()
                assert served.got + again.got == [b"one", b"two", b"three", b"four"]

    run(main)


@pytest.mark.usefixtures("only_with_hub")
def test_two_tasks_cannot_attend_to_one_socket() -> None:
    async def main() -> None:
        hub = current_hub()
        assert isinstance(hub, Hub)
        assert current_hub() is hub
        left, right = socket_pair()
        got: list[bytes] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.attend, left.fileno(), lambda: got.append(left.recv(10)))
            await wait_all_tasks_blocked()
            with pytest.raises(FileExistsError):
                await hub.attend(left.fileno(), lambda: None)
            right.send(b"first's")
            await wait_all_tasks_blocked()
            assert got == [b"first's"]
            hub.dismiss(left.fileno())
            hub.dismiss(left.fileno())
        left.close()
        right.close()

    run(main)


# ---- what waits for all of them


@pytest.mark.usefixtures("only_with_hub")
def test_what_is_to_come_after_reading_comes_once_all_is_read() -> None:
    told: list[str] = []

    async def main() -> None:
        pairs = [link_pair() for _ in range(3)]

        def on_messages(messages: list[bytes]) -> None:
            assert current_hub().after_reading(lambda: told.append("after"))
            told.append("read")

        assert not current_hub().after_reading(lambda: told.append("never"))
        async with aborting(*(link for pair in pairs for link in pair)), trio.open_nursery() as nursery:
            for server, _ in pairs:
                nursery.start_soon(Served(server, on_messages).serve)
            await wait_all_tasks_blocked()
            for _, client in pairs:
                client.send(b"message")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    run(main)
    assert told == ["read"] * 3 + ["after"] * 3


# ---- waiting without Trio


@define(eq=False)
class Waits(trio.abc.Instrument):
    """Counts how often Trio waited for anything."""

    count: int = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1

    async def count_during(self, echo: Echo, rounds: int) -> None:
        """Play with `echo`, and count meanwhile."""
        trio.lowlevel.add_instrument(self)
        await trio.to_thread.run_sync(echo.play, rounds)
        trio.lowlevel.remove_instrument(self)


class Echo:
    """A socket of the hub's that sends each byte back, and a thread that plays with it."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.settimeout(10)
        self.served = 0
        self.on_served: Callable[[int], None] = lambda _: None

    def serve(self) -> None:
        self.near.send(self.near.recv(1))
        self.served += 1
        self.on_served(self.served)

    def play(self, rounds: int) -> None:
        """Send and await, from a thread of the test's."""
        for _ in range(rounds):
            self.far.send(b"x")
            self.far.recv(1)

    async def attended(self) -> None:
        hub = current_hub()
        assert hub is not None
        try:
            await hub.attend(self.near.fileno(), self.serve)
        finally:
            self.near.close()
            self.far.close()


def lingering(
    monkeypatch: pytest.MonkeyPatch,
    body: Callable[[Echo], Awaitable[None]],
    stint_s: float = 60.0,
    linger_s: float = 30.0,
    *,
    is_held_back: bool = False,
) -> float:
    """Run `body` beside an echo in a hub that waits long; return how long it took, which no wait of the hub's did."""
    monkeypatch.setattr(hub_module, "LINGER_S", linger_s)
    monkeypatch.setattr(hub_module, "STINT_S", stint_s)

    async def main() -> None:
        hub = current_hub()
        assert hub is not None
        hub.let_linger(unless=lambda: is_held_back)
        echo = Echo()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo.attended)
            await body(echo)
            nursery.cancel_scope.cancel()

    began = time.monotonic()
    trio.run(main)
    return time.monotonic() - began


@pytest.mark.usefixtures("only_with_hub")
def test_hub_takes_what_follows_closely_without_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = Waits()

    async def body(echo: Echo) -> None:
        await waits.count_during(echo, 500)

    # The thread's end does not kick the hub: it is seen at the end of a linger, which is short here.
    lingering(monkeypatch, body, linger_s=0.2)
    assert waits.count < 250


@define(eq=False)
class Looks:
    """The hub's poll and a clock: the next message is there at the n-th look, or only once somebody sleeps for it."""

    there_at_look: int
    look_s: float
    looks: int = 0
    sleeps: list[float] = field(factory=list)
    now_s: float = 0.0

    def poll(self, wait_s: float, _: int) -> list[tuple[int, int]]:
        if wait_s:
            self.sleeps.append(wait_s)
            self.now_s += wait_s
            return [(7, 1)]
        self.looks += 1
        self.now_s += self.look_s
        return [(7, 1)] if self.looks == self.there_at_look else []


@pytest.mark.usefixtures("only_with_hub")
@pytest.mark.parametrize(
    ("there_at_look", "look_s", "wait_s", "count", "sleeps"),
    [
        (5, 0.00001, 0.002, 5, 0),
        (1000, 0.00001, 0.002, 80, 1),
        (1000, 0.00001, 0.0001, 10, 1),
        (1000, 0.0015, 0.002, 1, 1),
        (2, 0.0001, 0.002, 2, 0),
        (1000, 0.0001, 0.002, 2, 1),
    ],
    ids=[
        "found",
        "not found",
        "a deadline is near",
        "displaced by another process",
        "found once another process had a turn",
        "not found while another process has turns",
    ],
)
def test_hub_looks_before_it_sleeps(
    monkeypatch: pytest.MonkeyPatch, there_at_look: int, look_s: float, wait_s: float, count: int, sleeps: int
) -> None:
    looks = Looks(there_at_look, look_s)
    hub = Hub()
    hub._poll.close()
    for _ in range(100):
        hub.pace.found([(7, 1)])
        hub.pace.waited(0.0001)
    monkeypatch.setattr(hub, "_poll", looks)
    monkeypatch.setattr(hub_module, "monotonic", lambda: looks.now_s)
    assert hub._wait(wait_s, 0.0) == [(7, 1)]
    assert looks.looks == pytest.approx(count, abs=1)
    assert len(looks.sleeps) == sleeps
    assert hub.pace.is_close == (count > 1)
    hub.pace.found([(8, 1)])
    looks.looks = 0
    hub._wait(wait_s, looks.now_s)
    assert not looks.looks


@pytest.mark.usefixtures("only_with_hub")
def test_hub_does_not_look_while_a_thread_wants_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(1, look_s=0.00001)
    hub = Hub()
    hub._poll.close()
    monkeypatch.setattr(hub, "_poll", looks)
    monkeypatch.setattr(hub_module, "monotonic", lambda: looks.now_s)
    hub.pace.is_close = True
    hub.jobs_elsewhere = 1
    hub._wait(0.002, 0.0)
    assert (looks.looks, looks.sleeps) == (0, [0.002])
    hub.jobs_elsewhere = 0
    hub._wait(0.002, looks.now_s)
    assert (looks.looks, looks.sleeps) == (1, [0.002])


@pytest.mark.usefixtures("only_with_hub")
def test_hub_learns_how_long_messages_take_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    hub._poll.close()
    looks = Looks(1000, look_s=0.0002)
    monkeypatch.setattr(hub, "_poll", looks)
    monkeypatch.setattr(hub_module, "monotonic", lambda: looks.now_s)

    def wait(count: int, wait_s: float) -> None:
        for _ in range(count):
            looks.there_at_look = looks.looks + 1
            hub.pace.found([(7, 1)])
            hub._wait(wait_s, looks.now_s)

    wait(100, 0.0001)
    assert hub.pace.is_close
    # Found by a look, but later each time.
    looks.look_s = 0.0009
    wait(20, 0.001)
    assert not hub.pace.is_close
    looks.look_s = 0.0001
    wait(20, 0.0001)
    assert hub.pace.is_close


@pytest.mark.usefixtures("only_with_hub")
def test_lingering_hub_looks_for_what_follows_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "BUSY_POLL_S", 10.0)
    is_close: list[bool] = []

    async def body(echo: Echo) -> None:
        hub = current_hub()
        assert hub is not None
        echo.on_served = lambda _: is_close.append(hub.pace.is_close)
        await trio.to_thread.run_sync(echo.play, 50)

    lingering(monkeypatch, body, linger_s=0.2)
    assert not is_close[0]
    assert is_close[-1]


@pytest.mark.usefixtures("only_with_hub")
def test_what_is_sent_in_a_lone_exchange_lets_its_receiver_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    yields: list[None] = []
    monkeypatch.setattr(os, "sched_yield", lambda: yields.append(None))

    async def main() -> None:
        server, client = link_pair()
        hub = current_hub()
        assert hub is not None
        async with aborting(server, client):
            client.send(b"message")
            assert not yields
            hub.pace.is_close = True
            client.send(b"message")
            assert len(yields) == 1
            # What the socket does not take wakes nobody yet.
            client.send(bytes(10_000_000))
            assert len(yields) == 1

    run(main)


@pytest.mark.usefixtures("only_with_hub")
def test_hub_goes_back_to_trio_while_a_task_is_about_to_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was chosen to run behind the hub in the same pass of Trio's is in none of its statistics."""
    waits = Waits()

    async def body(echo: Echo) -> None:
        await waits.count_during(echo, 500)

    lingering(monkeypatch, body, is_held_back=True)
    assert waits.count >= 500


@pytest.mark.usefixtures("only_with_hub")
def test_hub_that_was_not_told_to_linger_goes_back_to_trio() -> None:
    waits = Waits()

    async def main() -> None:
        echo = Echo()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo.attended)
            await wait_all_tasks_blocked()
            await waits.count_during(echo, 100)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert waits.count >= 100


@pytest.mark.usefixtures("only_with_hub")
def test_lingering_hub_sees_what_a_thread_tells_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(echo: Echo) -> None:
        done = trio.Event()
        worker = ThreadWorker("test")

        def play() -> None:
            echo.play(10)
            # The hub is back in its wait by then, or finds what it is told before it waits.
            time.sleep(0.02)

        worker.submit(play, lambda _: done.set())
        await done.wait()
        assert worker.close()

    assert lingering(monkeypatch, body) < 10


@pytest.mark.usefixtures("only_with_hub")
def test_lingering_hub_lets_tasks_run_that_it_woke(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(echo: Echo) -> None:
        woken = trio.Event()
        echo.on_served = lambda served: woken.set() if served == 10 else None
        player = threading.Thread(target=echo.play, args=(10,))
        player.start()
        await woken.wait()
        player.join()

    assert lingering(monkeypatch, body) < 10


@pytest.mark.usefixtures("only_with_hub")
def test_lingering_hub_keeps_to_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(echo: Echo) -> None:
        player = threading.Thread(target=echo.play, args=(10,))
        player.start()
        await trio.sleep(0.2)
        player.join()

    assert lingering(monkeypatch, body) < 10


@pytest.mark.usefixtures("only_with_hub")
def test_lingering_hub_asks_trio_now_and_then_what_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(echo: Echo) -> None:
        mine, other = socket.socketpair()
        is_over, ended = threading.Event(), trio.Event()
        token, hub = trio.lowlevel.current_trio_token(), current_hub()
        assert hub is not None

        def play() -> None:
            echo.play(10)
            other.send(b"x")
            while not is_over.is_set():
                echo.play(1)
            token.run_sync_soon(ended.set)
            hub.kick()

        player = threading.Thread(target=play)
        player.start()
        with mine, other:
            await trio.lowlevel.wait_readable(mine)
            is_over.set()
            await ended.wait()

    assert lingering(monkeypatch, body, stint_s=0.05) < 10

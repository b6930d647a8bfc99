"""What a link concludes from time: pings, half messages, stalled writes, and what it must not conclude."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from coord.limits import MESSAGE_COMPLETE_TIMEOUT_S, PING_GIVE_UP_S, PING_IDLE_S, WRITE_STALL_TIMEOUT_S
from coord.transport.link import LinkClosed, LinkEnd

from .helpers import BINARY, CLOSE, PING, PONG, close_payload, frame, pass_time, receive_all, run, server_and_raw


def test_idle_link_is_pinged_and_a_dead_one_given_up() -> None:
    clock = MockClock()

    async def main() -> None:
        link, raw = server_and_raw()
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(LinkClosed) as ended:
                    await link.recv_many()
                assert ended.value.end is LinkEnd.SILENT

            nursery.start_soon(read)
            await pass_time(clock, PING_IDLE_S)
            with pytest.raises(BlockingIOError):
                raw.recv(100)
            await pass_time(clock, 1)
            assert raw.recv(100) == bytes((0x80 | PING, 0))
            await pass_time(clock, PING_GIVE_UP_S - PING_IDLE_S - 1)
            assert link.closed is None
            await pass_time(clock, 1)
            assert link.closed is not None
        raw.close()

    run(main, clock)


def test_pong_keeps_a_link_alive() -> None:
    clock = MockClock()

    async def main() -> None:
        link, raw = server_and_raw()
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(LinkClosed):
                    await link.recv_many()

            nursery.start_soon(read)
            for _ in range(5):
                await pass_time(clock, PING_IDLE_S + 1)
                assert raw.recv(100) == bytes((0x80 | PING, 0))
                raw.send(frame(PONG, b""))
            assert link.closed is None
            link.abort()
        raw.close()

    run(main, clock)


def test_stall_of_this_process_gives_nobody_up() -> None:
    clock = MockClock()

    async def main() -> None:
        link, raw = server_and_raw()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.recv)
            await wait_all_tasks_blocked()
            clock.jump(1000)
            await wait_all_tasks_blocked()
            assert link.closed is None
            raw.send(frame(BINARY, b"still here"))
        link.abort()
        raw.close()

    run(main, clock)


def test_owner_that_does_not_read_concludes_nothing_from_silence() -> None:
    clock = MockClock()

    async def main() -> None:
        link, raw = server_and_raw()
        await pass_time(clock, 3 * PING_GIVE_UP_S)
        assert link.closed is None
        link.abort()
        raw.close()

    run(main, clock)


@pytest.mark.parametrize(
    "start", [frame(BINARY, b"x" * 100)[:50], frame(BINARY, b"x", fin=False)], ids=["half frame", "fragment"]
)
def test_message_must_be_completed_in_time(start: bytes) -> None:
    clock = MockClock()

    async def main() -> None:
        link, raw = server_and_raw()
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(LinkClosed) as ended:
                    await link.recv_many()
                assert (ended.value.code, ended.value.end) == (1008, LinkEnd.MISUSED)

            nursery.start_soon(read)
            raw.send(start)
            for _ in range(int(MESSAGE_COMPLETE_TIMEOUT_S)):
                await pass_time(clock, 1)
                assert link.closed is None
                # Bytes that trickle in, and pings, do not buy more time.
                raw.send(b"x" if len(start) == 50 else frame(PING, b""))
            await pass_time(clock, 1)
            assert link.closed is not None
        link.abort()
        raw.close()

    run(main, clock)


def test_message_that_follows_a_whole_one_must_be_completed_in_time_too() -> None:
    clock = MockClock()

    async def main() -> None:
        link, raw = server_and_raw()
        async with trio.open_nursery() as nursery:
            ends: list[LinkClosed] = []

            async def read() -> None:
                try:
                    while True:
                        await link.recv_many()
                except LinkClosed as end:
                    ends.append(end)

            nursery.start_soon(read)
            raw.send(frame(BINARY, b"whole") + frame(BINARY, b"half")[:-2])
            await wait_all_tasks_blocked()
            for _ in range(3):
                # The other side is there, and even completes messages: each has its own time.
                await pass_time(clock, MESSAGE_COMPLETE_TIMEOUT_S - 1)
                raw.send(frame(BINARY, b"half")[-2:] + frame(BINARY, b"half")[:-2])
                await wait_all_tasks_blocked()
            assert not ends
            await pass_time(clock, MESSAGE_COMPLETE_TIMEOUT_S + 1)
            await wait_all_tasks_blocked()
            assert "was not completed" in ends[0].reason
        link.abort()
        raw.close()

    run(main, clock)


def test_side_that_takes_nothing_is_given_up() -> None:
    clock = MockClock()

    async def main() -> None:
        link, raw = server_and_raw()
        link.send(b"x" * 2_000_000)
        await pass_time(clock, WRITE_STALL_TIMEOUT_S)
        assert link.closed is None
        raw.recv(1_000_000)  # takes some: more time
        await pass_time(clock, WRITE_STALL_TIMEOUT_S)
        assert link.closed is None
        await pass_time(clock, 1)
        assert link.closed is not None
        assert link.closed.end is LinkEnd.SILENT
        assert link.buffered_bytes == 0
        raw.close()

    run(main, clock)


def test_closed_link_that_nobody_frees_is_freed() -> None:
    clock = MockClock()

    async def main() -> None:
        link, raw = server_and_raw()
        link.close()
        await pass_time(clock, 5)
        assert await receive_all(raw) == bytes((0x80 | CLOSE, 2)) + close_payload(1000)
        raw.close()

    run(main, clock)

"""Links in memory behave as links over sockets do, and can be held up, delayed and broken."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from coord.transport.link import LinkClosed, LinkEnd, Patience
from coord.transport.memory import WINDOW_BYTES, MemoryLink, MemoryWire

from .helpers import cancelled_at, run


def test_messages_arrive_in_order_and_in_batches() -> None:
    async def main() -> None:
        wire = MemoryWire(client="c", server="s", subprotocol="coord.v1")
        assert (wire.client.peer, wire.server.peer, wire.client.subprotocol) == ("s", "c", "coord.v1")
        for number in range(5):
            wire.client.send(b"%d" % number)
        assert await wire.server.recv() == b"0"
        assert await wire.server.recv_many() == [b"1", b"2", b"3", b"4"]
        wire.server.send(b"back")
        assert await wire.client.recv_many() == [b"back"]

    run(main)


def test_close_is_told_behind_what_was_sent() -> None:
    async def main() -> None:
        wire = MemoryWire()
        wire.client.send(b"last")
        await wire.client.aclose(1012, "restart")
        assert await wire.server.recv_many() == [b"last"]
        with pytest.raises(LinkClosed) as ended:
            await wire.server.recv_many()
        assert (ended.value.code, ended.value.reason, ended.value.end) == (1012, "restart", LinkEnd.PEER)
        with pytest.raises(LinkClosed) as ended:
            await wire.client.recv_many()
        assert ended.value.end is LinkEnd.LOCAL
        wire.client.send(b"nobody hears")

    run(main)


@pytest.mark.parametrize("how", ["abort", "reset"])
def test_break_wakes_both_sides(how: str) -> None:
    async def main() -> None:
        wire = MemoryWire()
        ends: list[LinkEnd] = []

        async def read(link: object) -> None:
            with pytest.raises(LinkClosed) as ended:
                await link.recv_many()  # type: ignore[attr-defined]
            ends.append(ended.value.end)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, wire.server)
            nursery.start_soon(read, wire.client)
            await wait_all_tasks_blocked()
            if how == "abort":
                wire.client.abort()
            else:
                wire.reset()
        assert LinkEnd.BROKEN in ends
        assert len(ends) == 2

    run(main)


def test_reader_that_does_not_read_leaves_the_rest_with_the_sender() -> None:
    async def main() -> None:
        wire = MemoryWire()
        for _ in range(4):
            wire.client.send(b"x" * WINDOW_BYTES)
        assert wire.client.buffered_bytes == 3 * WINDOW_BYTES
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.client.wait_drained, WINDOW_BYTES)
            while wire.client.buffered_bytes > WINDOW_BYTES:
                await wire.server.recv_many()
        await wire.server.recv_many()
        await wire.client.wait_drained()

    run(main)


def test_held_wire_loses_nothing() -> None:
    async def main() -> None:
        wire = MemoryWire()
        wire.hold()
        wire.client.send(b"a")
        wire.client.send(b"b")
        assert wire.client.buffered_bytes == 2
        with trio.move_on_after(0):
            await wire.server.recv_many()
        wire.release()
        assert await wire.server.recv_many() == [b"a", b"b"]

    run(main)


def test_delay() -> None:
    async def main() -> None:
        wire = MemoryWire(delay_s=0.25)
        wire.client.send(b"a")
        await trio.sleep(0.1)
        wire.client.send(b"b")
        wire.client.close(1000, "end")
        assert await wire.server.recv_many() == [b"a"]
        assert trio.current_time() == pytest.approx(0.25)
        assert await wire.server.recv_many() == [b"b"]
        assert trio.current_time() == pytest.approx(0.35)
        with pytest.raises(LinkClosed):
            await wire.server.recv_many()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_receiving_cancelled_at_any_step_loses_nothing() -> None:
    async def main() -> None:
        for step in range(1, 5):
            wire = MemoryWire()
            got: list[bytes] = []

            async def read(wire: MemoryWire = wire, got: list[bytes] = got) -> None:
                got.extend(await wire.server.recv_many())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancelled_at, step, read)
                await wait_all_tasks_blocked()
                wire.client.send(b"one")
            wire.client.send(b"two")
            while len(got) < 2:
                got.extend(await wire.server.recv_many())
            assert got == [b"one", b"two"]

    run(main)


def test_end_that_hears_nothing_pings_and_gives_up() -> None:
    async def main() -> None:
        wire = MemoryWire(patience=Patience(1.0, 3.0))
        async with trio.open_nursery() as nursery:
            ends: dict[str, tuple[LinkEnd, float]] = {}

            async def read(link: MemoryLink) -> None:
                with pytest.raises(LinkClosed) as ended:
                    await link.recv_many()
                ends[link.name] = (ended.value.end, trio.current_time())

            nursery.start_soon(read, wire.client)
            nursery.start_soon(read, wire.server)
            await trio.sleep(20)
            assert not ends, "both answer pings"
            wire.server.is_held = True
            await trio.sleep(3)
            assert not ends
            await trio.sleep(3)
        # The client hears nothing and gives up; the server, which did hear the pings, sees the end.
        assert ends["client"][0] is LinkEnd.SILENT
        assert ends["server"] == (LinkEnd.BROKEN, ends["client"][1])

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_end_that_nobody_reads_answers_no_pings() -> None:
    async def main() -> None:
        wire = MemoryWire(patience=Patience(1.0, 3.0))
        with pytest.raises(LinkClosed) as ended:
            await wire.client.recv_many()
        assert ended.value.end is LinkEnd.SILENT
        assert trio.current_time() < 6
        wire.client.send(b"nobody takes it")
        assert not wire.client.buffered_bytes

    trio.run(main, clock=MockClock(autojump_threshold=0))

"""A real node that is killed, stopped and paused under load."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import trio

import coord
from coord.errors import ConnectionFailed, OutcomeUnknown, Unavailable

from .cluster import STOP_TIMEOUT_S, Load, NodeProcess


def load_until(load: Load, count: int, end: Callable[[], object]) -> None:
    """Let all connections of the load have `count` more writes acknowledged, then call `end`, which ends the node."""

    async def main() -> None:
        load.expect(count)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.run)
                await load.all_open.wait()
                await load.has_enough.wait()
                await trio.to_thread.run_sync(end)

    trio.run(main)


def test_kill_under_load_loses_nothing_acknowledged(node: NodeProcess) -> None:
    chance = random.Random(7)
    load = Load(node.endpoint)
    for life in range(5):
        node.start("--snapshot-count=500")
        load.check()
        load_until(load, chance.randint(50, 1_000), node.kill)
        assert all(isinstance(error, OutcomeUnknown | ConnectionFailed) for error in load.errors), load.errors
        assert [line["boot"] for line in node.events("node.identity.loaded")] == [life + 1]
    node.start()
    load.check()
    assert node.terminate() == 0


def test_sigterm_under_load_ends_in_time_and_in_order(node: NodeProcess) -> None:
    load = Load(node.endpoint)
    node.start()
    statuses: list[int] = []
    ends: list[float] = []

    def end() -> None:
        started = time.monotonic()
        statuses.append(node.terminate())
        ends.append(time.monotonic() - started)

    load_until(load, 200, end)

    assert statuses == [0]
    assert ends[0] < STOP_TIMEOUT_S
    assert len(load.errors) == load.connections * load.writers
    assert all(isinstance(error, Unavailable | ConnectionFailed) for error in load.errors), load.errors
    shutdown = [line["event"] for line in node.log() if line["event"].startswith("node.shutdown")]
    assert shutdown == ["node.shutdown.started", "node.shutdown.finished"]

    node.start()
    load.check()
    (loaded,) = node.events("store.state.loaded")
    (recovered,) = node.events("wal.log.recovered")
    assert loaded["applied"] == recovered["last_index"], "an orderly end leaves nothing to replay"


def test_a_second_signal_cuts_the_end_short_and_loses_nothing(node: NodeProcess) -> None:
    load = Load(node.endpoint)
    node.start()

    def end() -> None:
        node.send(signal.SIGINT)
        node.send(signal.SIGTERM)
        assert node.terminate() == 0

    load_until(load, 100, end)
    node.start()
    load.check()


def test_a_pause_shortens_no_lease_and_service_goes_on(node: NodeProcess) -> None:
    """S22: while the process stood still its clients could not renew."""
    node.start()
    with coord.connect_sync(node.endpoint, timeout=8) as client:
        lease = client.lease_grant(3)
        assert lease.ttl_s == 3
        client.put("mine", b"1", lease=lease.id)

        node.send(signal.SIGSTOP)
        time.sleep(4)
        node.send(signal.SIGCONT)

        assert client.get("mine") is not None
        assert client.lease_keep_alive_once(lease.id).ttl_s == 3
        assert client.lease_time_to_live(lease.id).ttl_s > 0
        client.put("more", b"1")
        deadline = time.monotonic() + 20
        while client.get("mine") is not None:
            assert time.monotonic() < deadline, "without a renewal it ends"
            time.sleep(0.1)
    assert node.events("lease.clock.delayed")
    assert node.events("loop.wake.delayed")[0]["ms"] > 3000
    assert node.terminate() == 0

"""A short run with all its events; and the arithmetic of what it says."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from tests.bench.programs import run


@pytest.fixture
def steady(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("steady")


def test_a_short_run_tells_everything(tmp_path: Path) -> None:
    """How long writes wait is for a quiet machine to say. No log is filled: no snapshot comes."""
    kept = tmp_path / "steady.json"
    sizes = ["--minutes=0.2", "--peak-seconds=0.5", "--rate=60", "--conns=3", "--clients=20", "--keys=200"]
    done = run("steady.py", *sizes, "--behind-mib=0.05", "--check", f"--json={kept}", statuses=(1,))
    assert done.stderr == ""
    told = json.loads(kept.read_text())
    figures = {figure["what"]: figure for figure in told["figures"]}
    assert figures["puts that were acknowledged"]["value"] == pytest.approx(60, rel=0.2)
    assert figures["writes that failed"]["value"] == 0
    assert figures["leader changes"]["value"] == 0
    assert figures["late followers caught up otherwise than by snapshot"]["holds"] is False
    since_sent, since_due = (figures[f"compaction: longest wait since a write was {when}"] for when in ("sent", "due"))
    assert 0 < since_sent["value"] <= since_due["value"]
    assert (since_sent["limit"], since_due["limit"]) == (250, None)
    assert figures["memory of the nodes at the end, mean"]["value"] > 30
    assert {len(nodes) for _, nodes in told["memory_mib"]} == {2, 3}
    assert done.stdout.count("FAIL") == sum(not figure["holds"] for figure in told["figures"])


def test_waits_are_counted_from_when_a_write_was_sent_and_from_when_it_was_due(steady: ModuleType) -> None:
    class Client:
        async def put(self, key: bytes, value: bytes) -> None:
            await trio.sleep(0.5)

    async def load_it() -> Any:
        load = steady.Load(argparse.Namespace(clients=1, value_bytes=1, keys=1), [Client()], is_paced=True)
        now = trio.current_time()
        load.due.extend([now, now + 0.1, now + 0.2])
        async with load.stretch() as stretch, trio.open_nursery() as nursery:
            nursery.start_soon(load.run)
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
        return stretch

    stretch = trio.run(load_it, clock=trio.testing.MockClock(autojump_threshold=0))
    assert [stretch.count, stretch.a_second] == [3, 1.5]
    assert [stretch.since_sent.percentile_ms(part) for part in (0.3, 1.0)] == [500.0, 500.0]
    assert [stretch.since_due.percentile_ms(part) for part in (0.3, 0.6, 1.0)] == [500.0, 900.0, 1300.0]


def test_a_sync_belongs_to_the_stretch_in_which_it_ended(steady: ModuleType, tmp_path: Path) -> None:
    def a_log(name: str, *syncs: tuple[float, float]) -> Any:
        lines = [
            json.dumps({"ts": f"{datetime.fromtimestamp(at, UTC):%FT%T.%f}Z", "event": "other", "ms": 9e9})
            for at, _ in syncs
        ]
        lines += [
            json.dumps({"ts": f"{datetime.fromtimestamp(at, UTC):%FT%T.%f}Z", "event": "wal.sync.slow", "ms": ms})
            for at, ms in syncs
        ]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return SimpleNamespace(log=tmp_path / name)

    async def found() -> tuple[float, list[tuple[float, float]]]:
        now = time.time()
        nodes = [a_log("a", (now - 8, 120.0), (now - 5, 150.0)), a_log("b", (now - 2, 300.0))]
        return trio.current_time(), steady.slow_syncs(SimpleNamespace(nodes=nodes))

    now, syncs = trio.run(found)
    assert sorted(ms for _, ms in syncs) == [120.0, 150.0, 300.0]
    for began, ended, wanted in ((-9.0, -3.0, 150.0), (-9.0, -1.0, 300.0), (-4.0, -3.0, 0.0)):
        stretch = steady.Stretch(now + began, now + ended)
        stretch.since_sent.add(0.1)
        told = {promise.what: promise.value for promise in steady.of_event("it", stretch, stretch, syncs)}
        assert told["it: longest sync of a log, 0 if none took 100 ms"] == wanted


def test_percentiles_are_of_all_waits(steady: ModuleType) -> None:
    waits = steady.Waits()
    waits.buckets.update({10: 989, 100: 10, 2_000: 1})
    percentiles = [waits.percentile_ms(part) for part in (0.5, 0.989, 0.99, 0.999, 1.0)]
    assert percentiles == [1.0, 1.0, 10.0, 10.0, 200.0]
    assert waits.longest_ms == 200.0


@pytest.mark.parametrize(("last", "holds"), [(109.0, True), (120.0, False), (50.0, True)])
def test_memory_may_grow_by_a_tenth(steady: ModuleType, last: float, holds: bool) -> None:
    sums = [(float(second), 100.0 if second < 30 else last) for second in range(60)]
    assert [promise.holds for promise in steady.of_memory(sums)] == [True, True, holds]

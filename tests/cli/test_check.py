"""The load of `coord check perf`, in virtual time."""

from __future__ import annotations

from collections import Counter
from random import Random

import trio
import trio.testing

from coord.cli.check import verdict
from coord.cli.load import KEY_BYTES, VALUE_BYTES, Model, Report, push
from coord.errors import no_leader


class Store:
    """Takes `delay_s` for each put; fails those of which `fails` says so."""

    def __init__(self, delay_s: float, fails_every: int = 0) -> None:
        self.keys: list[bytes] = []
        self.delay_s = delay_s
        self.fails_every = fails_every

    async def put(self, key: bytes, value: bytes) -> object:
        assert len(value) == VALUE_BYTES
        self.keys.append(key)
        await trio.sleep(self.delay_s)
        if self.fails_every and len(self.keys) % self.fails_every == 0:
            raise no_leader()
        return None


def run(stores: list[Store], model: Model, duration_s: float = 2.0) -> tuple[Report, list[float]]:
    ticks: list[float] = []

    async def main() -> Report:
        return await push(stores, model, b"p/", duration_s, Random(0), ticks.append)

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)), ticks


def test_the_rate_is_kept() -> None:
    stores = [Store(0.01), Store(0.01)]
    report, ticks = run(stores, Model(100, 10))
    assert len(report.took_s) == 200
    assert 95 <= report.puts_per_second <= 100
    assert ticks == [0.0, 1.0]
    keys = [key for store in stores for key in store.keys]
    assert len(set(keys)) == 200
    assert all(key.startswith(b"p/") and len(key) == KEY_BYTES + 2 for key in keys)
    assert all(store.keys for store in stores)
    text, is_good = verdict(report, 100)
    assert is_good
    assert text.endswith("\nPASS\n")
    assert "PASS: Throughput is 10" in text
    assert "PASS: Slowest request took 0.010000s\n" in text


def test_a_slow_cluster_fails() -> None:
    report, _ = run([Store(1.0)], Model(100, 10), duration_s=5.0)
    assert report.puts_per_second < 20
    text, is_good = verdict(report, 100)
    assert not is_good
    assert text.startswith("FAIL: Throughput too low:")
    assert "Slowest request took too long: 1.000000s\n" in text
    assert text.endswith("\nFAIL\n")


def test_errors_fail() -> None:
    report, _ = run([Store(0.001, fails_every=10)], Model(100, 10))
    assert report.errors == Counter({"etcdserver: no leader": 20})
    text, is_good = verdict(report, 100)
    assert not is_good
    assert "FAIL: ERROR(etcdserver: no leader) -> 20\n" in text


def test_an_unsteady_cluster_fails() -> None:
    report = Report(took_s=[0.0, 0.4] * 100, lasted_s=1.0)
    text, is_good = verdict(report, 100)
    assert not is_good
    assert "Stddev too high: 0.200000s\n" in text

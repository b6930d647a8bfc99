"""The measurements go on working while what they measure changes: every load runs, and the table reads as it should."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from tests.bench.programs import BENCH, run

MODES = ["fill", "put", "get", "sget", "range", "txn", "mixed", "lock", "handoff", "watch", "failover"]


@pytest.fixture
def side_by_side(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("side_by_side")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        from cluster import running

        with running(1) as cluster:
            yield cluster.endpoints


@pytest.mark.parametrize("mode", MODES)
def test_every_load_runs_and_ends(endpoint: str, mode: str) -> None:
    sizes = ["--conns=2", "--clients=10", "--seconds=0.2", "--keys=200", "--total=100"]
    told = run("coordload.py", f"--endpoints={endpoint}", f"--mode={mode}", *sizes).stdout
    report = json.loads(told.splitlines()[-1])
    assert report["errors"] == 0
    assert report["operations"] > 0
    assert report["ops_per_s"] == pytest.approx(report["operations"] / report["seconds"])
    assert {"fill": 200, "watch": 1000}.get(mode, report["operations"]) == report["operations"]
    assert (report["gap_ms"] > 0) is (mode == "failover")
    assert ("ready" in told) is (mode == "failover")


def test_a_crowd_of_waiters_is_no_herd() -> None:
    """Whoever leaves a lock wakes one waiter, which asks the cluster once; and no session misses a renewal."""
    told = run("recipes.py", "waiters", "--waiters=40", "--json", "--check").stdout
    figures = {figure["what"].partition(": ")[2]: figure["value"] for figure in json.loads(told)}
    assert 0.9 < figures["watch events a hand-off"] < 1.5
    assert 0.9 < figures["transactions and ranges a hand-off"] < 1.5
    assert figures["hand-offs a second"] > 0


def test_a_crowd_of_watchers_is_given_every_event() -> None:
    sizes = ["--counts=30,60", "--conns=4", "--events=100", "--json"]
    figures = {figure["what"]: figure["value"] for figure in json.loads(run("watchers.py", *sizes).stdout)}
    for count in (30, 60):
        name = f"{count} watchers: "
        assert figures[name + "events a second"] == pytest.approx(count * figures[name + "puts a second"])
        late_ms = [figures[name + f"an event is late, {which}"] for which in ("p50", "p99", "at most")]
        assert 0 < late_ms[0] <= late_ms[1] <= late_ms[2]


def samples(module: ModuleType, *values: float) -> list[object]:
    return [module.Sample(value, 1000, 1.0, 2.0, 0, 0.5, 0.1, 100.0) for value in values]


def result(module: ModuleType, name: str, ours: list[float], theirs: list[float]) -> argparse.Namespace:
    row = next(row for row in module.ROWS if row.name == name)
    made: argparse.Namespace = module.Result(row, samples(module, *ours), samples(module, *theirs))
    return made


@pytest.mark.parametrize(("ours", "verdict"), [(90.0, "BELOW"), (130.0, "must"), (151.0, "goal")])
def test_more_a_second_is_better(side_by_side: ModuleType, ours: float, verdict: str) -> None:
    row = result(side_by_side, "put-100-100", [ours, 1.0, 1000.0], [100.0, 100.0, 100.0])
    assert row.summary()["ratio"]["median"] == ours / 100
    assert row.verdict == verdict


def test_the_ratio_is_of_pairs_and_not_of_medians(side_by_side: ModuleType) -> None:
    """What slowed the machine for one pair slowed both sides of it."""
    row = result(side_by_side, "put-100-100", [100.0, 20.0, 30.0], [10.0, 20.0, 30.0])
    assert row.summary()["ratio"] == {"median": 1.0, "least": 1.0, "most": 10.0}


@pytest.mark.parametrize(("worst", "verdict"), [(140.0, "goal"), (290.0, "must"), (310.0, "BELOW")])
def test_a_shorter_gap_is_better_and_its_p95_decides(side_by_side: ModuleType, worst: float, verdict: str) -> None:
    row = result(side_by_side, "failover", [100.0, 100.0, worst], [1000.0, 1000.0, 1000.0])
    assert row.summary()["ratio"]["median"] == 10.0
    assert row.verdict == verdict


def test_the_tables_have_a_line_for_each_row_and_side(
    side_by_side: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [result(side_by_side, name, [200.0], [100.0]) for name in ("get-10-1000", "failover")]
    side_by_side.print_all(rows)
    printed = capsys.readouterr().out
    assert [printed.count(name) for name in ("get-10-1000", "failover")] == [3, 5]
    assert "2.00 (2.00–2.00)" in printed
    assert "300 ms" in printed
    json.dumps([row.summary() for row in rows])


def test_what_is_missing_is_named_with_the_packages(
    side_by_side: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["side_by_side.py"])
    assert side_by_side.main() == 2
    assert "apt-get install etcd-server golang-go golang-etcd-server-dev" in capsys.readouterr().err

"""Nodes are lost in each way and nothing with them; and what is judged is what the limits say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.bench.programs import run


@pytest.fixture
def failover(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("failover")


def test_nodes_go_and_return_and_no_write_is_missing(tmp_path: Path) -> None:
    """How long the gaps are is for a quiet machine to say."""
    kept = tmp_path / "losses.json"
    sizes = ["--kills=1", "--pauses=1", "--rolling=1", "--conns=3", "--clients=6", "--settle-s=0.2", "--limit-ms=60000"]
    assert run("failover.py", *sizes, f"--json={kept}", statuses=(0, 1)).stderr == ""
    losses = json.loads(kept.read_text())
    assert {way: len(some) for way, some in losses.items()} == {"kills": 1, "pauses": 1, "rolling": 3}
    assert [loss["node"] for loss in losses["rolling"]] == ["n1", "n2", "n3"]
    for loss in [loss for some in losses.values() for loss in some]:
        assert loss["missing"] == 0
        assert loss["gap_ms"] > 0
        assert loss["back_ms"] > 0
    assert losses["pauses"][0]["gap_ms"] > 900, "it had to be missed for an election timeout"
    assert sum(loss["unknown"] + loss["refused"] for loss in losses["rolling"]) == 0


def loss(module: ModuleType, gap_ms: float, **figures: int) -> Any:
    return module.Loss("n1", gap_ms, 100.0, **{"missing": 0, "unknown": 0, "refused": 0, **figures})


def test_a_gap_is_judged_by_its_percentile_and_failures_where_none_may_be(failover: ModuleType) -> None:
    way = failover.Way("kills", failover.kill, 300.0)
    losses = [loss(failover, 100.0) for _ in range(20)]
    assert way.verdict(losses) == ""
    losses[0] = loss(failover, 900.0, unknown=3)
    assert way.verdict(losses) == ""
    losses[1] = loss(failover, 900.0)
    assert way.verdict(losses) == "900 ms is more than 300"
    assert way.verdict([loss(failover, 1.0, missing=1)]) == "acknowledged writes are missing"
    strict = failover.Way("rolling", failover.restart, 300.0, part=1.0, may_fail=False)
    assert strict.verdict([loss(failover, 100.0), loss(failover, 301.0)]) == "301 ms is more than 300"
    assert strict.verdict([loss(failover, 100.0, refused=1)]) == "writes have failed"
    assert "FAILED, writes have failed" in strict.summary([loss(failover, 100.0, unknown=1)])

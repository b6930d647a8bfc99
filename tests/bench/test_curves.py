"""The curves can be measured and drawn: a small point of each, and a plot of each figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from tests.bench.programs import run

SVG = "{http://www.w3.org/2000/svg}"


def test_curves_are_measured_and_drawn(tmp_path: Path) -> None:
    kept = tmp_path / "curves.json"
    run("curves.py", "keys", "log", "--quick", "--seconds=0.2", "--json", kept)
    curves = json.loads(kept.read_text())["curves"]
    assert [(point["x"], point["mode"]) for point in curves["keys"]] == [
        (keys, mode) for keys in (1_000, 10_000) for mode in ("put", "get")
    ]
    for point in curves["keys"]:
        assert point["errors"] == 0
        assert point["mb_per_s"] == pytest.approx(point["ops_per_s"] * 256 / 1e6)
        assert 0 < point["p50_ms"] <= point["p99_ms"] <= point["max_ms"]
        assert point["server_cpu_us"] > 0
    assert [point["x"] for point in curves["log"]] == [1_000, 10_000]
    assert all(point["recovery_s"] > 0 and point["entries"] > 0 for point in curves["log"])
    drawn = run("curves.py", "--plot", kept, "--out", tmp_path / "plots").stdout.split()
    assert [Path(path).name for path in drawn] == ["keys-ops-per-s.svg", "keys-p99-ms.svg", "log-recovery-s.svg"]
    for path in drawn:
        texts = {text.text for text in ElementTree.parse(path).iter(f"{SVG}text")}
        assert {"1\N{NO-BREAK SPACE}000", "10\N{NO-BREAK SPACE}000"} <= texts


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([150.0, 8_000.0], [100, 200, 500, 1_000, 2_000, 5_000, 10_000]),
        ([0.3], [0.2, 0.5]),
        ([1.6, 1.7], [1, 2]),
        ([7.0, 10.0], [5, 10]),
    ],
)
def test_labels_go_from_below_the_values_to_above_them(
    module: Callable[[str], ModuleType], values: list[float], labels: list[float]
) -> None:
    assert module("plots").ticks(values) == pytest.approx(labels)

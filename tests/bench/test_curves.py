"""The curves can be measured and drawn: a small point of each, and a plot of each figure."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from tests.bench.programs import run

SVG = "{http://www.w3.org/2000/svg}"


def test_curves_are_measured_and_drawn(tmp_path: Path) -> None:
    kept = tmp_path / "curves.json"
    sizes = ["--quick", "--seconds=0.2", f"--json={kept}", f"--draw={tmp_path / 'plots'}"]
    told = run("curves.py", "keys", "log", *sizes).stdout
    curves = {name: curve["points"] for name, curve in json.loads(kept.read_text()).items()}
    assert [(point["x"], point["mode"]) for point in curves["keys"]] == [
        (keys, mode) for keys in (1_000, 10_000) for mode in ("put", "get")
    ]
    for point in curves["keys"]:
        assert point["errors"] == 0
        assert point["mb_per_s"] == pytest.approx(point["ops_per_s"] * 256 / 1e6)
        assert 0 < point["p50_ms"] <= point["p99_ms"] <= point["max_ms"]
        assert point["server_cpu_us"] > 0
    assert [(point["x"], point["mode"]) for point in curves["log"]] == [
        (puts, mode) for puts in (1_000, 10_000) for mode in ("with all history", "compacted")
    ]
    assert all(point["recovery_s"] > 0 and point["entries"] > 0 for point in curves["log"])
    drawn = [Path(path) for path in told.splitlines() if path.endswith(".svg")]
    assert [path.name for path in drawn] == ["keys-ops-per-s.svg", "keys-p99-ms.svg", "log-recovery-s.svg"]
    for path in drawn:
        assert {"1\N{NO-BREAK SPACE}000", "10\N{NO-BREAK SPACE}000"} <= texts(path)


def texts(path: Path) -> set[str | None]:
    return {text.text for text in ElementTree.parse(path).iter(f"{SVG}text")}


def point(x: int, recovery_s: float) -> dict[str, object]:
    return {"x": x, "mode": "compacted", "recovery_s": recovery_s, "entries": x}


def test_a_curve_that_fails_costs_no_other(
    module: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Not those after it, and not what was measured of it before."""
    curves = module("curves")

    def fails(options: argparse.Namespace) -> Iterator[dict[str, object]]:
        yield point(1_000, 0.5)
        raise TimeoutError("nobody leads")

    monkeypatch.setattr(curves, "CURVES", {"keys": fails, "log": lambda options: iter([point(1_000, 0.7)])})
    kept = tmp_path / "curves.json"
    before = {"keys": {"points": [1]}, "members": {"points": [2]}, "log": {"points": [3]}}
    kept.write_text(json.dumps(before))
    monkeypatch.setattr(sys, "argv", ["curves.py", f"--json={kept}", f"--draw={tmp_path}"])
    assert curves.main() == 1
    assert "nobody leads" in capsys.readouterr().err
    after = json.loads(kept.read_text())
    assert after.pop("log")["points"] == [point(1_000, 0.7)]
    assert after == {"keys": before["keys"], "members": before["members"]}
    drawn = tmp_path / "log-recovery-s.svg"
    drawn.unlink()
    monkeypatch.setattr(sys, "argv", ["curves.py", "log", f"--plot={kept}", f"--draw={tmp_path}"])
    assert curves.main() == 0
    assert [*tmp_path.glob("*.svg")] == [drawn]
    assert {"0.5", "1", "1\N{NO-BREAK SPACE}000"} <= texts(drawn)


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

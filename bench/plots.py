"""Draw the points of `bench/curves.py` as SVG: for each curve one plot of what it gives and one of what it takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pygal
from attrs import frozen
from pygal.style import Style

GREY, FAINT = "#808080", "#80808040"
"""Read on a page of either colour, and so do the two lines."""
STYLE = Style(
    background="transparent",
    plot_background="transparent",
    foreground=GREY,
    foreground_strong=GREY,
    foreground_subtle=GREY,
    guide_stroke_color=FAINT,
    major_guide_stroke_color=FAINT,
    guide_stroke_dasharray="0",
    major_guide_stroke_dasharray="0",
    colors=("#3b82f6", "#f97316"),
    font_family="sans-serif",
    label_font_size=13,
    major_label_font_size=13,
    legend_font_size=14,
    title_font_size=16,
)
WIDTH, HEIGHT = 640, 380
AXES = {
    "clients": "callers on up to 10 connections, three nodes",
    "keys": "keys, three nodes, 1 000 callers",
    "members": "nodes, 1 000 callers",
    "values": "bytes of a value, three nodes",
    "log": "puts in the log of a node that starts again",
}


@frozen
class Figure:
    """A figure of each point."""

    name: str
    title: str
    curves: Sequence[str]


FIGURES = (
    Figure("ops_per_s", "operations a second", ("clients", "keys", "members", "values")),
    Figure("p99_ms", "p99, ms", ("clients", "keys", "members", "values")),
    Figure("mb_per_s", "MB a second", ("values",)),
    Figure("recovery_s", "seconds to the first read", ("log",)),
)


def draw(curve: str, points: Sequence[Mapping[str, Any]], directory: Path) -> Iterator[Path]:
    """Draw what was measured, and yield each file."""
    directory.mkdir(parents=True, exist_ok=True)
    for figure in FIGURES:
        if curve in figure.curves:
            path = directory / f"{curve}-{figure.name.replace('_', '-')}.svg"
            path.write_bytes(plot(curve, figure, points))
            yield path


def plot(curve: str, figure: Figure, points: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw one figure of a curve. What is measured lies at about equal ratios, and stands at equal distances."""
    places = sorted({point["x"] for point in points})
    labels = ticks([point[figure.name] for point in points])
    chart = pygal.Line(
        style=STYLE,
        width=WIDTH,
        height=HEIGHT,
        title=figure.title,
        x_title=AXES[curve],
        x_labels=[spaced(place) for place in places],
        logarithmic=True,
        show_legend=len({point["mode"] for point in points}) > 1,
        legend_at_bottom=True,
        stroke_style={"width": 2},
        y_labels=labels,
        # pygal leaves out a label at the very top.
        range=(labels[0], labels[-1] * 1.001),
        value_formatter=spaced,
        margin_right=36,
        js=(),
    )
    for mode in dict.fromkeys(point["mode"] for point in points):
        found = {point["x"]: point[figure.name] for point in points if point["mode"] == mode}
        chart.add(mode, [found.get(place) for place in places])
    drawn: bytes = chart.render()
    return drawn


def ticks(values: Sequence[float]) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten, from below the values to above them."""
    lowest, highest = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = [step * 10.0**power for power in range(lowest, highest + 1) for step in (1, 2, 5)]
    first = max(step for step in steps if step <= min(values))
    last = min(step for step in steps if step >= max(values))
    return [step for step in steps if first <= step <= last]


def spaced(number: float) -> str:
    """Write a number as people read it."""
    return f"{number:,.10g}".replace(",", "\N{NO-BREAK SPACE}")

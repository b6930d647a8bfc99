"""The table of command lines: coord against what etcdctl said, and what etcdctl said against etcdctl."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import golden, players, record
from .golden import Outcome
from .table import CHAPTERS, Row

ROWS_MIN = 120
FORMATS = ("simple", "fields", "json", "table")


def without_hints(outcome: Outcome) -> Outcome:
    """Drop the line that coord adds behind an error: what to do next."""
    lines = []
    is_hint = False
    for line in outcome.stderr:
        if not is_hint:
            lines.append(line)
        is_hint = line.startswith("Error:")
    return Outcome(outcome.exit, outcome.stdout, lines)


def expected(row: Row, told: list[tuple[str, Outcome]]) -> Outcome:
    if row.instead is None:
        line, outcome = told.pop(0)
        assert line == row.line, "the table changed: run python -m tests.cli.record"
        return outcome
    return Outcome(row.instead.exit, row.instead.stdout, [row.instead.error] if row.instead.error else [])


@pytest.mark.parametrize("chapter", [name for name in CHAPTERS if name != "unreachable"])
def test_coord_does_as_etcdctl(chapter: str, tmp_path: Path) -> None:
    told = golden.read(chapter)
    with players.node(tmp_path / "node") as server:
        judge(chapter, told, players.coord(server.endpoint))


def test_what_cannot_be_reached() -> None:
    judge("unreachable", golden.read("unreachable"), players.coord(f"127.0.0.1:{players.free_port()}"))


def judge(chapter: str, told: list[tuple[str, Outcome]], player: players.Player) -> None:
    wrong = []
    for number, row in enumerate(CHAPTERS[chapter]):
        wanted = expected(row, told)
        did = without_hints(player.play(row))
        if row.instead is not None:
            did = Outcome(did.exit, did.stdout, did.stderr[:1])
        if did != wanted:
            wrong.append(f"{chapter} {number}: {row.line}\n  wanted {wanted}\n  got    {did}")
    assert not told, "the table changed: run python -m tests.cli.record"
    assert not wrong, "\n".join(wrong)


def test_the_table_is_large_and_shows_every_format() -> None:
    lines = [row.line for rows in CHAPTERS.values() for row in rows]
    assert len(lines) >= ROWS_MIN
    for name in FORMATS[1:]:
        assert any(f"-w {name}" in line for line in lines)


def test_every_difference_says_why() -> None:
    for rows in CHAPTERS.values():
        for row in rows:
            assert bool(row.differs) == (row.instead is not None), row.line


@pytest.mark.conformance
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_etcdctl_still_says_so(chapter: str, tmp_path: Path) -> None:
    assert record.recorded(chapter, tmp_path) == golden.read(chapter)

"""The table itself: well-formed, and told by the page."""

from __future__ import annotations

from .document import PAGE, page
from .table import ROWS
from .vocabulary import Either


def test_rows_have_names_of_their_own() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)


def test_rows_of_a_section_stand_together() -> None:
    sections = [row.section for row in ROWS]
    changes = [now for before, now in zip([None, *sections], sections, strict=False) if now != before]
    assert len(set(changes)) == len(changes)


def test_rows_that_expect_two_things_say_why() -> None:
    for row in ROWS:
        is_split = any(isinstance(step.expected, Either) for step in row.steps)
        assert is_split == bool(row.differs or row.newer), row.name
        assert not (row.differs and row.newer), row.name


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"

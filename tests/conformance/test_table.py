"""The table itself: well-formed, and told by the page."""

from __future__ import annotations

import pytest

from coord.errors import Code

from .document import PAGE, page
from .machine import MachineDriver
from .runner import run
from .table import ROWS
from .vocabulary import Either, Refused, Row
from .words import EMPTY_KEY, either, found, get, kv, put, row, wrote


def test_rows_have_names_of_their_own() -> None:
    names = [one.name for one in ROWS]
    assert len(set(names)) == len(names)


def test_rows_of_a_section_stand_together() -> None:
    sections = [one.section for one in ROWS]
    changes = [now for before, now in zip([None, *sections], sections, strict=False) if now != before]
    assert len(set(changes)) == len(changes)


def test_rows_that_expect_two_things_say_why() -> None:
    for one in ROWS:
        is_split = any(isinstance(step.expected, Either) for step in one.steps)
        assert is_split == bool(one.differs or one.newer), one.name
        assert not (one.differs and one.newer), one.name


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


@pytest.mark.parametrize(
    "wrong",
    [
        row("revision", "", put("a") >> wrote(2)),
        row("value", "", put("a", "1"), get("a") >> found(kv("a", "2", 1, 1))),
        row("count", "", put("a", "1"), get("a") >> found(kv("a", "1", 1, 1), count=2)),
        row("text", "", put("") >> Refused(Code.INVALID_ARGUMENT, "etcdserver: key is missing")),
        row("code", "", put("") >> Refused(Code.NOT_FOUND, EMPTY_KEY.text)),
        row("served", "", put("a") >> EMPTY_KEY),
        row("refused", "", put("")),
        row("side", "", put("a") >> either(coord=EMPTY_KEY, etcd=wrote(1))),
    ],
    ids=lambda wrong: wrong.name,
)
def test_a_reply_that_is_not_as_expected_fails_the_row(wrong: Row) -> None:
    with pytest.raises(AssertionError, match="step"):
        run(wrong, MachineDriver(), is_etcd=False)

"""The naive model: it keeps the rules of the table, and the state machine answers as it does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from coord.errors import Code

from .lockstep import Lockstep
from .machine import MachineDriver
from .model import ModelDriver
from .runner import run
from .sequences import SEQUENCES
from .table import ROWS
from .vocabulary import Alarm, Either, Refused, Request, Row


def is_told_by_form(row: Row) -> bool:
    """Tell whether a row is about malformed requests, which the model takes to be sorted out before it."""
    expected = [step.expected.coord for step in row.steps if isinstance(step.expected, Either)]
    return any(isinstance(one, Refused) and one.code is Code.INVALID_ARGUMENT for one in expected)


def is_about_alarms(row: Row) -> bool:
    return any(isinstance(step.request, Alarm) for step in row.steps)


JUDGED_HERE = [row for row in ROWS if not (row.watches or row.edge or is_told_by_form(row) or is_about_alarms(row))]


@pytest.mark.parametrize("row", JUDGED_HERE, ids=lambda row: row.name)
def test_row(row: Row) -> None:
    run(row, ModelDriver(), is_etcd=False)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(requests=SEQUENCES)
def test_machine_answers_as_the_model(requests: list[Request]) -> None:
    Lockstep(MachineDriver(), ModelDriver()).run(requests)

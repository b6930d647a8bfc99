"""The table against the state machine alone: the fast half of conformance, each row on a machine of its own."""

from __future__ import annotations

import pytest

from .machine import MachineDriver
from .runner import run
from .table import ROWS
from .vocabulary import Row

JUDGED_HERE = [row for row in ROWS if not row.watches and not row.edge]


@pytest.mark.parametrize("row", JUDGED_HERE, ids=lambda row: row.name)
def test_row(row: Row) -> None:
    run(row, MachineDriver(), is_etcd=False)

"""The table against a real node over its protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .node import NodeDriver, NodeServer
from .runner import run
from .table import ROWS
from .vocabulary import Row


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeDriver]:
    with NodeServer(tmp_path_factory.mktemp("node")) as server:
        driver = NodeDriver(server.port)
        yield driver
        driver.close()


@pytest.mark.parametrize("row", [row for row in ROWS if not row.fresh], ids=lambda row: row.name)
def test_row(row: Row, shared: NodeDriver) -> None:
    run(row, shared, is_etcd=False)


@pytest.mark.parametrize("row", [row for row in ROWS if row.fresh], ids=lambda row: row.name)
def test_fresh_row(row: Row, tmp_path: Path) -> None:
    tries = 3
    for number in range(1, tries + 1):
        with NodeServer(tmp_path / f"try{number}") as server:
            driver = NodeDriver(server.port)
            try:
                run(row, driver, is_etcd=False)
                return
            except AssertionError:
                # S16: it looks once a second whether there is space, and clears an alarm, be it between two steps.
                if number == tries or not server.has_logged("alarm.state.cleared"):
                    raise
            finally:
                driver.close()

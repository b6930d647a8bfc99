"""The table against the real etcd: pins what coord is held to. `make conformance` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .etcd import EtcdDriver, EtcdServer
from .runner import run
from .table import ROWS
from .vocabulary import Row

pytestmark = pytest.mark.conformance


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdDriver]:
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        driver = EtcdDriver(server.port)
        yield driver
        driver.close()


@pytest.mark.parametrize("row", [row for row in ROWS if not row.fresh], ids=lambda row: row.name)
def test_row(row: Row, shared: EtcdDriver) -> None:
    run(row, shared, is_etcd=True)


@pytest.mark.parametrize("row", [row for row in ROWS if row.fresh], ids=lambda row: row.name)
def test_fresh_row(row: Row, tmp_path: Path) -> None:
    with EtcdServer(tmp_path) as server:
        driver = EtcdDriver(server.port)
        try:
            run(row, driver, is_etcd=True)
        finally:
            driver.close()

"""Stores on real LMDB and in memory, with the same ways to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coord.disk import RealDisk
from coord.store.store import Store, open_store
from coord.testing.store_media import MAP_BYTES, LmdbMedium, SimMedium
from coord.testing.store_model import Medium


@pytest.fixture
def make_medium(tmp_path: Path) -> Iterator[Callable[[str, int], Medium]]:
    """Make a new medium, "sim" or "lmdb", from a seed."""
    made: list[LmdbMedium] = []

    def make(kind: str, seed: int) -> Medium:
        if kind == "sim":
            return SimMedium(seed)
        directory = tmp_path / f"lmdb-{len(made)}"
        directory.mkdir()
        made.append(LmdbMedium(directory, seed))
        return made[-1]

    yield make
    for medium in made:
        medium.close()


@pytest.fixture(params=["sim", "lmdb"])
def medium(request: pytest.FixtureRequest, make_medium: Callable[[str, int], Medium]) -> Medium:
    """Each test runs on both."""
    return make_medium(request.param, 1)


@pytest.fixture
def store(medium: Medium) -> Store:
    """An empty store."""
    return medium.open()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A place for stores on LMDB alone."""
    return tmp_path / "store"


@pytest.fixture
def open_lmdb(directory: Path) -> Iterator[Callable[..., Store]]:
    """Open the LMDB store in `directory`; the one that was open before is closed."""
    opened: list[Store] = []

    def open_again(marker: tuple[int, int] | None = None, **options: int) -> Store:
        if opened:
            opened.pop().close()
        options.setdefault("reserve_bytes", 0)
        options.setdefault("map_bytes", MAP_BYTES)
        opened.append(open_store(RealDisk(), directory, marker, **options))
        return opened[-1]

    yield open_again
    for store in opened:
        store.close()

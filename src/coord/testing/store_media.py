"""What a store under test lies on: a simulation, or LMDB in a directory, with the same ways to fail."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from attrs import define, field

from coord.disk import RealDisk
from coord.limits import MIB
from coord.store.store import Store, open_store
from coord.testing.sim_backend import SimBackend
from coord.testing.sim_disk import SimDisk

MAP_BYTES = 512 * MIB
"""Of a test's store."""


@define
class SimMedium:
    """The simulated backend."""

    seed: int = 0
    backend: SimBackend = field(init=False)

    def __attrs_post_init__(self) -> None:
        disk = SimDisk(self.seed)
        disk.make_directory(Path("/data"))
        self.backend = SimBackend(disk, Path("/data/store"), self.seed)

    def open(self, marker: tuple[int, int] | None = None) -> Store:
        """See `Medium`."""
        return self.backend.open(marker)

    def synced(self) -> None:
        """See `Medium`."""

    def lose_power(self) -> None:
        """See `Medium`."""
        self.backend.crash()

    def kill(self) -> None:
        """See `Medium`."""
        self.backend.crash(undone=0)


@define
class LmdbMedium:
    """LMDB in a directory.

    Power loss brings back the files of the last sync, or leaves those of the last commit.
    """

    directory: Path
    seed: int = 0
    chance: random.Random = field(init=False)
    store: Store | None = None

    def __attrs_post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def open(self, marker: tuple[int, int] | None = None) -> Store:
        """See `Medium`."""
        self.close()
        self.store = open_store(RealDisk(), self.directory / "store", marker, map_bytes=MAP_BYTES, reserve_bytes=0)
        self.synced()
        return self.store

    def close(self) -> None:
        """Close the store that is open."""
        if self.store is not None:
            self.store.close()
            self.store = None

    def synced(self) -> None:
        """See `Medium`."""
        shutil.copy(self.directory / "store" / "data.mdb", self.directory / "synced.mdb")

    def lose_power(self) -> None:
        """See `Medium`."""
        self.close()
        if self.chance.random() < 0.6:
            shutil.copy(self.directory / "synced.mdb", self.directory / "store" / "data.mdb")

    def kill(self) -> None:
        """See `Medium`."""
        self.close()

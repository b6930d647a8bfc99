"""How much of the store's map stays in the process's memory.

LMDB reads through a map of its file. A page that was read once counts as this process's memory until the kernel is
short of it: a start reads them all, and a node would seem to take as much again as its store is large. Letting go of
them loses nothing. They stay in the kernel's cache, and the next read maps them again.
"""

from __future__ import annotations

import ctypes
import mmap
import resource
import sys
from pathlib import Path
from typing import Final

from attrs import field, frozen

from coord.limits import STORE_MAPPED_BYTES_MAX
from coord.store.lmdb_engine import DATA_FILE

_MAPS: Final = Path("/proc/self/maps")
_SIZES: Final = Path("/proc/self/statm")


@frozen
class StoreMap:
    """The map of the store in `directory`. Nothing happens where `/proc` does not tell of it (macOS)."""

    directory: Path
    _process: ctypes.CDLL = field(factory=lambda: ctypes.CDLL(None))

    def trim(self) -> bool:
        """Let go of the map's pages if files take more than is allowed; True if they were let go.

        To be called where the store is opened, switched and closed, since the map must not change meanwhile. Takes
        20 µs, and a millisecond for each 100 MiB that it lets go.
        """
        if not sys.platform.startswith("linux") or mapped_bytes() <= STORE_MAPPED_BYTES_MAX:
            return False
        found = self._find()
        if found is None:
            return False
        first, size = found
        return bool(self._process.madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), mmap.MADV_DONTNEED) == 0)

    def _find(self) -> tuple[int, int] | None:
        """Return where the map begins and how many bytes it has."""
        path = str(self.directory / DATA_FILE)
        for line in _MAPS.read_text().splitlines():
            bounds, permissions, _, _, _, *name = line.split(maxsplit=5)
            # Of a private map this would throw away what was written.
            if name == [path] and permissions == "r--s":
                first, end = (int(bound, 16) for bound in bounds.split("-"))
                return first, end - first
        return None


def mapped_bytes() -> int:
    """Return how much of this process's resident memory lies in files: the map, and some MiB of code."""
    return int(_SIZES.read_text().split()[2]) * resource.getpagesize()

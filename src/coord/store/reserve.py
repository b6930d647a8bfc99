"""A file that holds disk space for the day when there is none (S16).

A delete needs pages too, and so do the changes that were applied before the alarm was raised. When the disk
or the map is full, the reserve is given up; it is taken again when there is room for it twice.
"""

from __future__ import annotations

from pathlib import Path

from attrs import define

from coord.disk import Disk, remove_if_there, write_zeros
from coord.errors import DiskFullError
from coord.store.engine import Engine


@define
class Reserve:
    """`size_bytes` of zeros in a file, and as much of the map."""

    disk: Disk
    path: Path
    size_bytes: int

    def free_bytes(self) -> int:
        """Return what the disk can take beyond the reserve; not above 0 while the reserve is given up and
        no more than it would fill is free.
        """
        free = self.disk.free_bytes(self.path.parent)
        return free if self._is_held() else free - self.size_bytes

    def use(self, engine: Engine) -> None:
        """Give the reserve up."""
        engine.use_reserve()
        if self.disk.exists(self.path):
            self.disk.remove(self.path)
            self.disk.sync_directory(self.path.parent)

    def restore(self, engine: Engine) -> None:
        """Take the reserve if it is not held and there is room for it twice; blocks while it is written."""
        if self._is_held():
            return
        _, in_use, limit = engine.size()
        has_map = in_use + 2 * self.size_bytes <= limit
        if not has_map or self.disk.free_bytes(self.path.parent) < 2 * self.size_bytes:
            return
        if self._allocate():
            engine.restore_reserve()

    def _is_held(self) -> bool:
        return self.size_bytes == 0 or self.disk.exists(self.path)

    def _allocate(self) -> bool:
        part = self.path.with_suffix(".part")
        remove_if_there(self.disk, part)
        file = self.disk.create(part)
        try:
            write_zeros(file, 0, self.size_bytes)
        except DiskFullError:
            self.disk.remove(part)
            return False
        finally:
            file.close()
        self.disk.rename(part, self.path)
        self.disk.sync_directory(self.path.parent)
        return True

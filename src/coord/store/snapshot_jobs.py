"""Taking a snapshot of a store, and building a store from one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import define

from coord.disk import Disk, remove_if_there
from coord.errors import DamageError
from coord.store.engine import Engine
from coord.store.snapshot import PART_SUFFIX, SUFFIX, Rest, SnapshotHead, file_name, read_snapshot, write_snapshot


@define
class SnapshotJob:
    """Writes `snapshot-<index>-<term>`, first under a temporary name. It may run beside flushes."""

    _engine: Engine
    _disk: Disk
    _directory: Path
    _new_rest: Callable[[], Rest]
    _head: SnapshotHead | None = None

    @property
    def head(self) -> SnapshotHead:
        """What was written; `RuntimeError` before `run` has returned."""
        if self._head is None:
            raise RuntimeError("the snapshot is not written yet")
        return self._head

    @property
    def index(self) -> int:
        """See `SnapshotJobPort`."""
        return self.head.index

    @property
    def term(self) -> int:
        """See `SnapshotJobPort`."""
        return self.head.term

    @property
    def path(self) -> Path:
        """See `SnapshotJobPort`."""
        return self._directory / file_name(self.head.index, self.head.term)

    def run(self) -> None:
        """Copy out, write, verify, rename; the copy at once (S6), the rest chunk by chunk."""
        rest = self._new_rest()
        self._disk.make_directory(self._directory)
        part = self._directory / f"snapshot{PART_SUFFIX}"
        remove_if_there(self._disk, part)
        with self._engine.view() as view:
            # S6: index and term are the view's own. The applier is ahead of what the view holds.
            head = write_snapshot(self._disk, part, view, rest)
        publish(self._disk, part, head, rest)
        self._head = head


@define
class InstallJob:
    """Verifies a snapshot file and builds a store from it beside the living one."""

    _engine: Engine
    _disk: Disk
    _path: Path
    _index: int
    _term: int
    _new_rest: Callable[[], Rest]

    def run(self) -> None:
        """Build and sync; nothing of the living store is touched."""
        stage = self._engine.stage()
        try:
            head = read_snapshot(self._disk, self._path, stage, self._new_rest())
            if (head.index, head.term) != (self._index, self._term):
                raise DamageError(
                    f"{self._path} is a snapshot at index {head.index} of term {head.term}, not at index "
                    f"{self._index} of term {self._term}"
                )
            stage.finish(head.index, head.term)
        finally:
            stage.close()


def publish(disk: Disk, part: Path, head: SnapshotHead, rest: Rest) -> Path:
    """Verify a file against what was meant to be written and give it its name; a wrong one is removed."""
    try:
        found = read_snapshot(disk, part, rest=rest)
        if found != head:
            raise DamageError(f"{part} is not what was written; take the snapshot again")
    except DamageError:
        disk.remove(part)
        raise
    path = part.with_name(file_name(head.index, head.term))
    disk.rename(part, path)
    disk.sync_directory(path.parent)
    return path


def clean_snapshots(disk: Disk, directory: Path, keep: int = 1) -> None:
    """Remove unfinished snapshot files, and all finished ones but the newest `keep`."""
    names = disk.list(directory) if disk.exists(directory) else []
    finished = [name for name in names if name.endswith(SUFFIX)]
    unfinished = [name for name in names if name.endswith(PART_SUFFIX)]
    for name in (*unfinished, *finished[: max(0, len(finished) - keep)]):
        disk.remove(directory / name)

"""The files of the log: what the log's thread and the preparing thread do to them. All calls block."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from attrs import define, field

from coord.disk import Disk, File, write_zeros
from coord.errors import DiskError, DiskFullError
from coord.limits import WAL_BLOCK_BYTES
from coord.wal.segment import TEMPORARY_SUFFIX, segment_name, spare_name, spare_number

SPARES_MAX: Final = 2
"""Files kept ready for segments to come. One hides the cost of a roll; the other lets a release be recycled
while a prepared one is still waiting."""


@define
class SegmentFiles:
    """The segment in use, and the spare files that wait to become segments.

    `write` and `roll` belong to the log's thread, `prepare` and `retire` to the preparing thread. They share
    the queue of spares, whose operations are atomic, and `number`, which only the log's thread sets.
    """

    disk: Disk
    directory: Path
    segment_bytes: int
    number: int = 0
    """The segment in use; those below it are closed for good."""
    batch: int = 0
    """The last batch that is durable."""
    _file: File | None = None
    _spares: deque[Path] = field(factory=deque)
    _serials: Iterator[int] = field(factory=itertools.count)
    _has_failed: bool = False

    @property
    def spares(self) -> int:
        """How many spare files are ready."""
        return len(self._spares)

    def adopt(self, number: int, batch: int, file: File) -> None:
        """Go on in a segment that recovery has read."""
        self.number, self.batch, self._file = number, batch, file

    def keep_spares(self, names: Sequence[str]) -> None:
        """Keep the spare files of the process before this one, and remove what else is temporary; sync neither.

        What a spare file holds does not matter (S5). To remove one frees 64 MiB, which a file system may have to tell
        the disk, and to fill another one writes as much: all who share the disk wait for both.
        """
        for name in names:
            path, number = self.directory / name, spare_number(name)
            if number is not None and self.spares < SPARES_MAX and self._size(path) == self.segment_bytes:
                self._spares.append(path)
                self._serials = itertools.count(max(number + 1, next(self._serials)))
            elif name.endswith(TEMPORARY_SUFFIX):
                self.disk.remove(path)

    def _size(self, path: Path) -> int:
        file = self.disk.open(path)
        size = file.size()
        file.close()
        return size

    def write(self, batch: int, offset: int, buffers: Sequence[bytes]) -> None:
        """Write a batch; durable on return.

        A full disk leaves things so that the same call can be repeated: the whole batch is written again, at
        the same place, before any other.
        """
        self._check_usable()
        # S5: batch n+1 is written only after n is synced, so that only the last one can be torn.
        assert batch == self.batch + 1, f"batch {batch} cannot follow batch {self.batch}"
        assert self._file is not None
        try:
            self._file.write_synced(offset, buffers)
        except DiskError as error:
            self._has_failed = not isinstance(error, DiskFullError)
            raise
        self.batch = batch

    def roll(self, number: int, header: bytes) -> None:
        """Put the next segment to use; the last batch of the one before it is durable.

        Can be repeated after a full disk, as `write` can.
        """
        self._check_usable()
        assert number == self.number + 1, f"segment {number} cannot follow segment {self.number}"
        try:
            file = self._put_to_use(number, header)
        except DiskError as error:
            self._has_failed = not isinstance(error, DiskFullError)
            raise
        if self._file is not None:
            self._file.close()
        self._file, self.number = file, number

    def _put_to_use(self, number: int, header: bytes) -> File:
        # S5: a name of the log stands only for a file whose header is durable, so that an invalid header
        # under such a name is damage and no trace of a crash; and the name is durable before the first batch
        # is.
        spare = self._take_spare()
        file = self.disk.open(spare)
        target = self.directory / segment_name(number)
        try:
            file.write_synced(0, (header,))
            self.disk.rename(spare, target)
        except DiskFullError:
            file.close()
            self._spares.appendleft(spare)
            raise
        self.disk.sync_directory(self.directory)
        file.path = target
        return file

    def _take_spare(self) -> Path:
        try:
            return self._spares.popleft()
        except IndexError:
            return self._make_spare()

    def _make_spare(self) -> Path:
        """Make a file of zeros: written, not only reserved, so that later writes change no metadata."""
        path = self._new_temporary()
        file = self.disk.create(path)
        try:
            write_zeros(file, 0, self.segment_bytes)
        except DiskFullError:
            file.close()
            self.disk.remove(path)
            raise
        file.close()
        return path

    def _new_temporary(self) -> Path:
        return self.directory / spare_name(next(self._serials))

    def _check_usable(self) -> None:
        # Law 7: after a failed sync nobody knows what is on the disk, and a second sync may succeed without
        # the data.
        if self._has_failed:
            raise DiskError(f"the log in {self.directory} has failed before: restart the node")

    def prepare(self) -> None:
        """Make a spare file ready."""
        self._spares.append(self._make_spare())

    def retire(self, number: int, size: int) -> None:
        """Take a segment out of the log for good and recycle its file, or remove it if enough are spare."""
        path = self.directory / segment_name(number)
        spare: Path | None = None
        if size == self.segment_bytes and len(self._spares) < SPARES_MAX:
            spare = self._new_temporary()
            self.disk.rename(path, spare)
        else:
            self.disk.remove(path)
        # Each name goes durably before the next, or a crash could leave a hole in the row of segments; and
        # before the file is used again, or its new header could come to stand under its old name.
        self.disk.sync_directory(self.directory)
        if spare is not None:
            self._spares.append(spare)

    def close(self) -> None:
        """Close the segment in use."""
        if self._file is not None:
            self._file.close()
            self._file = None


def clear_tail(file: File, last: bytes, last_offset: int, dirty_end: int) -> None:
    """Make the end of the last segment's log certain: write `last` again and zeros up to `dirty_end`; sync.

    `last`, the last valid batch or the header, was read back, which does not prove that it is on the disk:
    its sync may have failed in the process before this one, after which the kernel shows bytes that it will
    never write. Writing the same bytes again costs nothing and makes them durable. A block of zeros after it
    likewise ends every doubt about the batch that may have stood there.
    """
    end = last_offset + len(last)
    stop = min(max(dirty_end, end + WAL_BLOCK_BYTES), file.size())
    file.write(last_offset, (last,))
    write_zeros(file, end, stop)

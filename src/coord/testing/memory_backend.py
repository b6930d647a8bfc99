"""A backend in memory, for tests: the least that keeps what the state machine keeps."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from coord.errors import DamageError
from coord.mvcc.backend import Position, Table


class MemoryBackend:
    """Everything is durable at once. `records` and `tables` are open to tests."""

    def __init__(self) -> None:
        self.records: dict[Position, bytes] = {}
        self.tables: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
        self._order: list[Position] = []

    def append(self, revision: int, sub: int, record: bytes) -> None:
        """Keep a record."""
        position = (revision, sub)
        assert not self._order or position > self._order[-1], "records are appended in order"
        self.records[position] = record
        self._order.append(position)

    def extend(self, revision: int, records: Sequence[bytes]) -> None:
        """Keep records of one revision each."""
        for place, record in enumerate(records):
            self.append(revision + place, 0, record)

    def read(self, revision: int, sub: int) -> bytes:
        """Return a record; `DamageError` if it is not there."""
        try:
            return self.records[(revision, sub)]
        except KeyError:
            raise DamageError(f"no record at {revision}/{sub}") from None

    def read_many(self, positions: Sequence[Position]) -> list[bytes]:
        """Return records; `DamageError` if one is not there."""
        return [self.read(*position) for position in positions]

    def scan(self, first: int, last: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield the records of the revisions `first … last` in order."""
        for place in range(bisect_left(self._order, (first, 0)), len(self._order)):
            revision, sub = self._order[place]
            if revision > last:
                return
            yield revision, sub, self.records[(revision, sub)]

    def put_row(self, table: Table, key: bytes, value: bytes | None) -> None:
        """Set or delete a row."""
        if value is None:
            self.tables[table].pop(key, None)
        else:
            self.tables[table][key] = value

    def rows(self, table: Table) -> Iterable[tuple[bytes, bytes]]:
        """Return the rows of a table in key order."""
        return sorted(self.tables[table].items())

    def remove(self, positions: Sequence[Position]) -> None:
        """Take records away."""
        for position in positions:
            del self.records[position]
        self._order = sorted(self.records)

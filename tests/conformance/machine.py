"""The state machine alone as a server of scenarios, over a backend in memory: no log, no disk, no network."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from coord.codec import decode, encode
from coord.errors import ApiError
from coord.mvcc.backend import Position, Table
from coord.mvcc.machine import StateMachine
from coord.mvcc.ranges import run as run_range
from coord.protocol.entries import WritesHeader, encode_writes
from coord.protocol.ops import Op, Settled
from coord.protocol.ranges import parse_range

from . import wire
from .vocabulary import (
    KeepAlive,
    Leases,
    Range,
    Refused,
    Request,
    TimeToLive,
    Txn,
)

LEASE_FLOOR_S = 2
MAX_TXN_OPS = 128


class MemoryBackend:
    """Records and rows in dictionaries."""

    def __init__(self) -> None:
        self._records: dict[Position, bytes] = {}
        self._order: list[Position] = []
        self._rows: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}

    def append(self, revision: int, sub: int, record: bytes) -> None:
        self._records[revision, sub] = record
        insort(self._order, (revision, sub))

    def read(self, revision: int, sub: int) -> bytes:
        return self._records[revision, sub]

    def scan(self, first: int, last: int) -> Iterator[tuple[int, int, bytes]]:
        start, stop = bisect_left(self._order, (first, 0)), bisect_right(self._order, (last + 1, -1))
        for position in self._order[start:stop]:
            yield *position, self._records[position]

    def put_row(self, table: Table, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._rows[table].pop(key, None)
        else:
            self._rows[table][key] = value

    def rows(self, table: Table) -> Iterable[tuple[bytes, bytes]]:
        return sorted(self._rows[table].items())

    def remove(self, positions: Sequence[Position]) -> None:
        for position in positions:
            del self._records[position]
        self._order = sorted(self._records)


class MachineDriver:
    """Applies each write as an entry of its own. Leases do not count time here: what is left is what was granted."""

    def __init__(self) -> None:
        self._backend = MemoryBackend()
        self._machine = StateMachine(self._backend)
        self._index = 0
        self._lease = 10**12

    def revision(self) -> int:
        """Return the store's revision."""
        return self._machine.revision

    def call(self, request: Request) -> Any:
        """Return the reply to a bound request, or `Refused`."""
        try:
            write = wire.write_of(request)
            revision, result = self._read(request) if write is None else self._write(*write)
        except ApiError as error:
            return Refused(error.code, error.text)
        return wire.reply_of(request, revision, result)

    def end_row(self) -> None:
        """Nothing is opened on the side."""

    def restart(self) -> None:
        """Load a new machine from the backend, as a node does that starts."""
        self._machine.flush_rows()
        self._machine = StateMachine(self._backend)
        for _ in self._machine.load():
            pass

    def _write(self, op: Op, arguments: list[Any]) -> tuple[int, Any]:
        settled: dict[int, tuple[Any, ...]] = {}
        if op is Op.LEASE_GRANT:
            ttl, lease = arguments
            self._lease += 1
            settled[0] = (int(Settled.LEASE), lease or self._lease, max(ttl, LEASE_FLOOR_S))
        header = WritesHeader(1, self._index, 0, 0, "", MAX_TXN_OPS, settled)
        self._index += 1
        applied = self._machine.apply(
            self._index, 1, encode_writes(header, encode([[0, int(op), None, arguments]]))
        )
        if applied.compacted:
            for dead in self._machine.compaction_steps():
                self._backend.remove(dead)
        revision, is_done, payload = applied.answers[0]
        if not is_done:
            raise ApiError.from_wire(decode(b"\x82" + payload)[1])
        return revision, decode(payload)

    def _read(self, request: Request) -> tuple[int, Any]:
        machine = self._machine
        match request:
            case Range():
                records, more, count = run_range(machine.range(parse_range(wire.arguments_of(request))))
                result: Any = [[decode(record) for record in records], more, count]
            case Txn():
                answer, _ = machine.read_txn(wire.arguments_of(request), MAX_TXN_OPS)
                result = decode(answer())
            case TimeToLive(lease, keys):
                granted = machine.lease_ttl(lease)
                result = [lease, granted or -1, granted, machine.lease_keys(lease) if keys else []]
            case KeepAlive(lease):
                result = [[lease, machine.lease_ttl(lease)]]
            case Leases():
                result = [lease for lease, _ in machine.leases()]
            case _:
                raise TypeError(f"no read: {request!r}")
        return machine.revision, result

"""The state machine alone as a server of scenarios, over a backend in memory: no log, disk or network."""

from __future__ import annotations

from typing import Any

from coord.codec import decode, encode
from coord.errors import ApiError
from coord.mvcc.applied import RawEvent
from coord.mvcc.machine import StateMachine
from coord.mvcc.ranges import run as run_range
from coord.protocol.entries import Frame, WritesHeader, encode_writes
from coord.protocol.ops import Op, Settled
from coord.protocol.ranges import parse_range
from coord.testing.memory_backend import MemoryBackend

from . import wire
from .vocabulary import Alarm, Happened, KeepAlive, Leases, Range, Refused, Request, TimeToLive, Txn

LEASE_FLOOR_S = 2
MAX_TXN_OPS = 128


class MachineDriver:
    """Applies each write as an entry of its own. Leases do not count time here: what is left is what was granted.

    `told` has the events of all entries, as watches that were there would have been told.
    """

    def __init__(self) -> None:
        self._backend = MemoryBackend()
        self._machine = StateMachine(self._backend)
        self._index = 0
        self._lease = 10**12
        self.told: list[Happened] = []

    def revision(self) -> int:
        """Return the store's revision."""
        return self._machine.revision

    @property
    def compact_revision(self) -> int:
        """The lowest revision that can be read."""
        return self._machine.compact_revision

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

    def history(self, first: int) -> list[Happened]:
        """Return the events since a revision that is not compacted, as a watch that starts there is told."""
        machine = self._machine
        return [self._happened(event) for _, events in machine.history(first, machine.revision) for event in events]

    def restart(self) -> None:
        """Load a new machine from the backend, as a node does that starts."""
        self._machine.flush_rows()
        self._machine = StateMachine(self._backend)
        for _ in self._machine.load():
            pass

    def _happened(self, event: RawEvent) -> Happened:
        _, kind, record, previous = event
        before = None if previous is None else decode(self._backend.read(*previous))
        return wire.event([kind, decode(record), before])

    def _write(self, op: Op, arguments: list[Any]) -> tuple[int, Any]:
        settled: dict[int, tuple[Any, ...]] = {}
        if op is Op.LEASE_GRANT:
            ttl, lease = arguments
            self._lease += 1
            settled[0] = (int(Settled.LEASE), lease or self._lease, max(ttl, LEASE_FLOOR_S))
        frame = Frame(0, 0, "", settled, encode([[0, int(op), None, arguments]]))
        entry = encode_writes(WritesHeader(1, self._index, MAX_TXN_OPS), [frame])
        self._index += 1
        applied = self._machine.apply(self._index, 1, entry)
        for _, events in applied.events:
            self.told += map(self._happened, events)
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
            case Alarm():
                result = sorted(machine.alarms)
            case _:
                raise TypeError(f"no read: {request!r}")
        return machine.revision, result

"""A state machine over a backend in memory, driven as the applier drives it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

from coord.codec import decode, encode
from coord.mvcc.applied import Applied
from coord.mvcc.machine import StateMachine
from coord.protocol.bodies import encode_body
from coord.protocol.entries import NOTHING, Frame, Member, WritesHeader, encode_entry, encode_writes
from coord.protocol.ops import EntryKind, Op
from coord.protocol.ranges import parse_range
from coord.testing.memory_backend import MemoryBackend
from coord.testing.model import Answer

T = TypeVar("T")
PUT, DELETE, TXN, COMPACT = int(Op.PUT), int(Op.DELETE_RANGE), int(Op.TXN), int(Op.COMPACT)
GRANT, REVOKE, REGISTER, ALARM, RANGE = 5, 6, 7, 8, 20
ALL = [b"\0", b"\0"]


def run(steps: Generator[Any, None, T]) -> T:
    """Run steps to their end and return what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def opened(answer: tuple[int, bool, bytes]) -> Answer:
    """Return an answer decoded; an error as `(code, text)`."""
    revision, ok, payload = answer
    if ok:
        return Answer(revision, True, decode(payload))
    assert payload[:1] == b"\xf6"
    code, text, _ = decode(payload[1:])
    return Answer(revision, False, (code, text))


def frame(*writes: list[Any], client: int = 0, low: int = 0, settled: dict[int, Any] | None = None) -> Frame:
    """Return a frame of writes `[number, op, guard, arguments]`."""
    return Frame(client, low, "", settled or NOTHING, encode_body(writes))


class Rig:
    """One member: `entry` and friends apply what they are told at the next index."""

    def __init__(self, *, max_clients: int | None = None) -> None:
        self.backend = MemoryBackend()
        self.machine = StateMachine(self.backend)
        self.term = 1
        self.entries: list[tuple[int, int, bytes]] = []
        self.last: Applied
        self.bootstrap(max_clients or 10_000)

    def apply(self, data: bytes) -> Applied:
        """Apply an entry's bytes."""
        index = self.machine.applied_index + 1
        self.entries.append((index, self.term, data))
        self.last = self.machine.apply(index, self.term, data)
        return self.last

    def bootstrap(self, max_clients: int) -> None:
        """Apply the first entry of the cluster."""
        member = Member(7, "n1", ("http://127.0.0.1:7380",), ("http://127.0.0.1:7379",))
        self.apply(encode_entry(EntryKind.CLUSTER, None, encode([99, max_clients, [member.to_wire()]])))

    def entry(
        self,
        *writes: list[Any],
        client: int = 0,
        low: int = 0,
        settled: dict[int, Any] | None = None,
        max_txn_ops: int = 128,
    ) -> list[Answer]:
        """Apply one entry of one frame of writes `[number, op, guard, arguments]`."""
        return self.frames(frame(*writes, client=client, low=low, settled=settled), max_txn_ops=max_txn_ops)

    def frames(self, *frames: Frame, max_txn_ops: int = 128) -> list[Answer]:
        """Apply one entry of frames."""
        entry = encode_writes(WritesHeader(7, 1, max_txn_ops), frames)
        return [opened(answer) for answer in self.apply(entry).answers]

    def write(self, op: int, *arguments: Any, guard: Any = None) -> Answer:
        """Apply one write without a number."""
        return self.entry([0, op, guard, list(arguments)])[0]

    def put(self, key: bytes, value: bytes = b"", *more: Any) -> Answer:
        """Apply a put."""
        return self.write(PUT, key, value, *more)

    def txn(self, compares: list[Any], success: list[Any], failure: list[Any] | None = None) -> Answer:
        """Apply a transaction."""
        return self.write(TXN, compares, success, failure or [])

    def register(self) -> int:
        """Register a client and return its id."""
        answer = self.entry([0, REGISTER, None, []])[0]
        assert answer.ok
        client: int = answer.result
        return client

    def expire(self, *leases: int, term: int | None = None, seen: int | None = None) -> Applied:
        """Apply an expiry, proposed in this term and with all applied that is, unless said otherwise."""
        seen = self.machine.applied_index if seen is None else seen
        body = encode([self.term if term is None else term, seen, list(leases)])
        return self.apply(encode_entry(EntryKind.EXPIRY, None, body))

    def checkpoint(self, *checkpoints: list[int], term: int | None = None, seen: int | None = None) -> Applied:
        """Apply checkpoints, proposed in this term and with all applied that is, unless said otherwise."""
        seen = self.machine.applied_index if seen is None else seen
        body = encode([self.term if term is None else term, seen, list(checkpoints)])
        return self.apply(encode_entry(EntryKind.CHECKPOINT, None, body))

    def range(self, *arguments: Any) -> list[Any]:
        """Read a range: `[pairs, more, count]`."""
        records, more, count = run(self.machine.range(parse_range(list(arguments))))
        return [[decode(record) for record in records], more, count]

    def get(self, key: bytes) -> Any:
        """Read one key by the fast path."""
        record = self.machine.get(key)
        return None if record is None else decode(record)

    def keys(self) -> list[bytes]:
        """Return all keys that are there."""
        return [pair[0] for pair in self.range(*ALL)[0]]

    def compact_physically(self) -> int:
        """Take away what is dead; return how many records went."""
        removed = 0
        for positions in self.machine.compaction_steps():
            self.backend.remove(positions)
            removed += len(positions)
        return removed

    def hash(self, revision: int | None = None) -> tuple[int, int]:
        """Return `hash_kv`."""
        return run(self.machine.hash_kv(self.machine.revision if revision is None else revision))

    def reload(self) -> None:
        """Restart from what the backend holds."""
        self.machine.flush_rows()
        self.machine = StateMachine(self.backend)
        run(self.machine.load())

    def rows(self) -> dict[str, dict[bytes, bytes]]:
        """Return all rows as a flush would leave them."""
        self.machine.flush_rows()
        return {str(table): dict(rows) for table, rows in self.backend.tables.items()}

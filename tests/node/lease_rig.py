from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coord.codec import decode, encode
from coord.mvcc.machine import StateMachine
from coord.node.leases import LeaseReaper
from coord.observe.log import RecordingLog
from coord.protocol.entries import NOTHING, Frame, WritesHeader, decode_entry, encode_writes
from coord.protocol.ops import EntryKind, Op, Settled
from coord.testing.memory_backend import MemoryBackend


class Reaping:
    """A reaper with a lease, 7, whose term, rounds and time a test moves."""

    def __init__(self, ttl_s: int = 5) -> None:
        self.term = 3
        self.now = 100.0
        self.rounds: list[Callable[[], None]] = []
        self.proposed: list[bytes] = []
        self.has_room = True
        self.machine = StateMachine(MemoryBackend())
        self.reaper = LeaseReaper(
            machine=self.machine,
            clock=lambda: self.now,
            log=RecordingLog(),
            propose=self.propose,
            start_round=self.rounds.append,
            term=lambda: self.term,
            interval_s=0.1,
        )
        self.grant(7, ttl_s)

    def propose(self, entry: bytes) -> bool:
        if self.has_room:
            self.proposed.append(entry)
        return self.has_room

    def grant(self, first: int, ttl_s: int, count: int = 1) -> None:
        settled = {place: (int(Settled.LEASE), first + place, ttl_s) for place in range(count)}
        writes = [[0, int(Op.LEASE_GRANT), None, [ttl_s]]] * count
        self.apply(encode_writes(WritesHeader(1, 1, 128), [Frame(0, 0, "", settled, encode(writes))]))

    def revoke(self, lease: int) -> None:
        body = encode([[0, int(Op.LEASE_REVOKE), None, [lease]]])
        self.apply(encode_writes(WritesHeader(1, 1, 128), [Frame(0, 0, "", NOTHING, body)]))

    def apply(self, entry: bytes, term: int | None = None) -> None:
        index = self.machine.applied_index + 1
        self.reaper.on_applied(self.machine.apply(index, self.term if term is None else term, entry))

    def commit(self) -> None:
        """Apply all that is proposed."""
        proposed, self.proposed = self.proposed, []
        for entry in proposed:
            self.apply(entry)

    def bodies(self, kind: EntryKind) -> list[Any]:
        decoded = [decode_entry(entry) for entry in self.proposed]
        return [decode(body) for one, _, body in decoded if one == kind]

    def expired(self) -> list[list[int]]:
        return [leases for _, _, leases in self.bodies(EntryKind.EXPIRY)]

    def checkpointed(self) -> list[list[list[int]]]:
        return [checkpoints for _, _, checkpoints in self.bodies(EntryKind.CHECKPOINT)]

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.reaper.tick()

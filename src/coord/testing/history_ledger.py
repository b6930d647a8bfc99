"""The ledger: the committed entries themselves, and what the naive model makes of them.

Every member reports what it commits; two members that report another entry at one index have split. Replayed through
`coord.testing.model` the ledger tells what every write did, so that a history can be judged without guessing about
writes that were never answered.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field, frozen

from coord.codec import decode
from coord.protocol.bodies import writes_of
from coord.protocol.entries import decode_entry, read_writes
from coord.protocol.ops import EntryKind, Op, Settled
from coord.testing.model import Answer, Model


class Split(AssertionError):
    """Two members committed different entries at one index, or one a part of what it had committed before."""


@define
class Ledger:
    """The committed entries by index: `(term, data)`."""

    entries: dict[int, tuple[int, bytes]] = field(factory=dict)
    committed_at: dict[int, float] = field(factory=dict)
    """When the first member learned of it."""

    def commit(self, member: str, index: int, term: int, data: bytes, now: float) -> None:
        """Note that a member committed an entry. Raises `Split`."""
        known = self.entries.get(index)
        if known is None:
            self.entries[index] = (term, data)
            self.committed_at[index] = now
        elif known != (term, data):
            raise Split(f"{member} commits entry {index} of term {term}; another member had one of term {known[0]}")


@frozen
class Judged:
    """A write of the ledger, and what the model makes of it."""

    index: int
    position: int
    client: int
    number: int
    op: int
    arguments: list[Any]
    answer: Answer


@frozen
class LeaseEnd:
    """The end of a lease: by an expiry entry, or revoked."""

    lease: int
    index: int
    at: float
    is_expiry: bool


class ReplayModel(Model):
    """The model, fed with entries. What the proposer settled for a write counts before what the client sent."""

    def __init__(self) -> None:
        super().__init__()
        self.index = 0
        self.settled: tuple[Any, ...] | None = None
        self.granted_at: dict[int, int] = {}
        """Index of the entry that granted a lease which is there."""
        self._alarms: set[tuple[int, int]] = set()

    def write(self, op: int, guard: Any, arguments: list[Any]) -> Answer:
        """See `Model.write`."""
        if self.settled is not None and self.settled[0] == Settled.REFUSED:
            return Answer(self.revision, False, tuple(self.settled[1][:2]))
        if op == Op.REGISTER:
            return self.register(self.index)
        if op == Op.ALARM:
            return Answer(self.revision, True, self.alarm(*arguments))
        if op == Op.LEASE_GRANT and self.settled is not None:
            arguments = [self.settled[2], self.settled[1]]
        answer = super().write(op, guard, arguments)
        if op == Op.LEASE_GRANT and answer.ok:
            self.granted_at[arguments[1]] = self.index
        return answer

    def alarm(self, action: int, member: int, alarm: int) -> list[list[int]]:
        """Raise or clear an alarm; return those that changed."""
        if action == 1:
            changed = {(member, alarm)} - self._alarms
            self._alarms |= changed
        else:
            changed = {one for one in self._alarms if member in (0, one[0]) and alarm in (0, one[1])}
            self._alarms -= changed
        self.no_space = any(kind == 1 for _, kind in self._alarms)
        return [list(one) for one in sorted(changed)]

    def expire_seen(self, seen_index: int, leases: list[int]) -> None:
        """Apply an expiry; a lease that was granted anew above `seen_index` is another one (S22)."""
        self.settled = None
        self.expire([lease for lease in leases if self.was_there(lease, seen_index)])

    def checkpoint_seen(self, seen_index: int, checkpoints: list[list[int]]) -> None:
        """Apply checkpoints, but those of leases that were granted anew above `seen_index` (S23)."""
        self.checkpoint([one for one in checkpoints if self.was_there(one[0], seen_index)])

    def was_there(self, lease: int, index: int) -> bool:
        """Tell whether a lease that is there now was granted at `index` or below."""
        return self.granted_at.get(lease, self.index) <= index


@define
class Replay:
    """The ledger, replayed."""

    model: ReplayModel = field(factory=ReplayModel)
    writes: list[Judged] = field(factory=list)
    lease_ends: list[LeaseEnd] = field(factory=list)
    grants: dict[int, int] = field(factory=dict)
    """Lease -> TTL in seconds, of every lease that there ever was."""


def replay(ledger: Ledger) -> Replay:
    """Replay a ledger. Raises `Split` if entries are missing: they must be there from 1 on."""
    played = Replay()
    for index in range(1, len(ledger.entries) + 1):
        if index not in ledger.entries:
            raise Split(f"nobody committed entry {index}, but later ones were")
        term, data = ledger.entries[index]
        before = dict(played.model.leases)
        played.model.index = index
        is_expiry = _apply(played, index, term, data)
        after = played.model.leases
        played.grants.update((lease, ttl_s) for lease, ttl_s in after.items() if lease not in before)
        ended = [lease for lease in before if lease not in after]
        at = ledger.committed_at[index]
        played.lease_ends += [LeaseEnd(lease, index, at, is_expiry) for lease in ended]
    return played


def _apply(played: Replay, index: int, term: int, data: bytes) -> bool:
    kind, header, body = decode_entry(data)
    model = played.model
    if kind == EntryKind.EXPIRY:
        proposed_in, seen_index, leases = decode(body)
        if proposed_in == term:  # S22
            model.expire_seen(seen_index, leases)
        return True
    if kind == EntryKind.CHECKPOINT:
        proposed_in, seen_index, checkpoints = decode(body)
        if proposed_in == term:  # S23
            model.checkpoint_seen(seen_index, checkpoints)
    elif kind == EntryKind.ALARM:
        model.alarm(*decode(body))
    elif kind == EntryKind.CLUSTER and index > 0:
        model.max_clients = decode(body)[1]
    elif kind == EntryKind.WRITES:
        _, frames = read_writes(header, body)
        for frame in frames:
            for position, write in enumerate(writes_of(frame.decoded)):
                model.settled = frame.settled.get(position)
                (answer,) = model.frame(frame.client, frame.low, [write])
                judged = Judged(index, position, frame.client, write[0], write[1], write[3], answer)
                played.writes.append(judged)
    return False

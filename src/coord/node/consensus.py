"""The consensus actor: owns Raft, turns clients' writes into entries and remembers who waits for them.

One turn takes everything that arrived since the last, proposes it, starts one read round for all reads that wait,
and hands Raft's `Ready` on: entries to the log writer, committed entries to the applier, confirmed rounds to the
reader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from attrs import define, field

from coord import errors
from coord.codec import encode
from coord.errors import ApiError, OutcomeUnknown
from coord.limits import (
    INTERNAL_RESERVE,
    PROPOSAL_BYTES_PENDING_MAX,
    PROPOSALS_PENDING_MAX,
    REQUEST_TIMEOUT_MS_MAX,
)
from coord.mvcc.txn import has_put
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.replies import reply_error
from coord.protocol.check import check_write
from coord.protocol.entries import WritesHeader, encode_writes
from coord.protocol.ops import EntryKind, Op, Settled
from coord.raft.core import Raft
from coord.raft.types import Entry, HardState

ANSWERED: Final = -1
"""In a request id's place; every other integer may be a client's."""
_TIMED_OUT = "etcdserver: request timed out: the write may still be applied"


def _grows(write: list[Any]) -> bool:
    op = write[1]
    return op in (Op.PUT, Op.LEASE_GRANT) or (op == Op.TXN and has_put(write[3]))


class Log(Protocol):
    """Emits one event of the catalogue."""

    def __call__(self, event: str, /, **fields: Any) -> None:
        """Emit `event`."""


@define
class Waiter:
    """A frame of writes that was proposed and has not been answered (S13: found by index *and* term)."""

    term: int
    sink: Sink | None
    ids: list[tuple[int, float]]
    """`(request id, deadline)` by position in the entry; `ANSWERED` for an id that is answered already."""
    size: int
    entry: tuple[int, WritesHeader, list[Any]]
    """The entry as decoded here already; it stands for exactly the bytes that were proposed."""


@define
class Settings:
    """What the node settles for its clients' writes (S15)."""

    member_id: int
    max_request_bytes: int
    max_txn_ops: int
    lease_ttl_s_min: int
    request_timeout_s: float


@define
class Consensus:
    """See the module's docstring. `clock` is monotonic, in seconds; `new_lease_id` draws from 1 … 2⁶³−1."""

    raft: Raft
    settings: Settings
    clock: Callable[[], float]
    new_lease_id: Callable[[], int]
    log: Log
    wake: Callable[[], None]
    to_log: Callable[[Sequence[Entry], HardState], None]
    to_applier: Callable[[Sequence[Entry]], None]
    to_reader: Callable[[Sequence[tuple[int, int]]], None]
    wants_round: Callable[[], int]
    """Returns the id of a new round if reads wait for one, else 0."""
    has_space: Callable[[int], bool]
    """Tells whether a frame that grows the store by so many bytes fits; asked only for one that does."""
    outbox: Outbox
    waiters: dict[int, Waiter] = field(factory=dict)
    pending_bytes: int = 0
    refused: int = 0
    proposed: int = 0
    leader_changes: int = 0
    is_stopping: bool = False
    _frame: int = 0
    _inbox: deque[tuple[Sink, int, int, list[tuple[int, int]], bytes, list[Any]]] = field(factory=deque)
    _internal: deque[bytes] = field(factory=deque)
    _completions: deque[tuple[int, int, HardState]] = field(factory=deque)

    def writes(
        self, sink: Sink, client: int, low: int, ids: list[tuple[int, int]], body: bytes, decoded: list[Any]
    ) -> None:
        """Queue a frame of a client's writes."""
        self._inbox.append((sink, client, low, ids, body, decoded))
        self.wake()

    def propose_internal(self, entry: bytes) -> bool:
        """Queue an entry of the node's own; False if even the reserved share is full (S11)."""
        if len(self._internal) >= INTERNAL_RESERVE:
            return False
        self._internal.append(entry)
        self.wake()
        return True

    def persisted(self, term: int, index: int, state: HardState) -> None:
        """Queue the log writer's completion."""
        self._completions.append((term, index, state))
        self.wake()

    def turn(self) -> bool:
        """Step everything, then hand on one Ready."""
        raft = self.raft
        while self._completions:
            raft.persisted(*self._completions.popleft())
        while self._internal:
            if raft.propose(self._internal[0]) is None:
                self._internal.clear()
                break
            self._internal.popleft()
        while self._inbox:
            self._take(*self._inbox.popleft())
        if round_id := self.wants_round():
            raft.read_index(round_id)
        self.hand_on()
        return False

    def hand_on(self) -> None:
        """Take Raft's Ready apart."""
        while (ready := self.raft.ready()) is not None:
            for name, fields in ready.notes:
                if name == "raft.election.won":
                    self.leader_changes += 1
                self.log(name, **fields)
            if ready.entries or ready.hard_state is not None:
                self.to_log(ready.entries, self.raft.state_to_save())
            if ready.committed:
                self.to_applier(ready.committed)
            if ready.reads:
                self.to_reader(ready.reads)

    def tick(self) -> None:
        """Count a tick and answer those whose time is over."""
        self.raft.tick()
        self.expire(self.clock())
        self.wake()

    def expire(self, now: float) -> None:
        """Answer waiters past their deadline; their writes may still be applied (S14)."""
        for waiter in self.waiters.values():
            if waiter.sink is None:
                continue
            for position, (request_id, deadline) in enumerate(waiter.ids):
                if deadline <= now and request_id != ANSWERED:
                    self.outbox.reply(waiter.sink, reply_error(request_id, 0, OutcomeUnknown(_TIMED_OUT)))
                    waiter.ids[position] = (ANSWERED, deadline)

    def take_waiter(self, index: int) -> Waiter | None:
        """Remove and return who waits for the entry at `index`."""
        waiter = self.waiters.pop(index, None)
        if waiter is not None:
            self.pending_bytes -= waiter.size
        return waiter

    def forget(self, sink: Sink) -> None:
        """Answer nobody on `sink` any more; its writes go on."""
        for waiter in self.waiters.values():
            if waiter.sink is sink:
                waiter.sink = None

    def _take(
        self, sink: Sink, client: int, low: int, ids: list[tuple[int, int]], body: bytes, decoded: list[Any]
    ) -> None:
        refusal = self._refusal(len(body))
        if refusal is not None:
            self.refused += len(ids)
            self.outbox.refuse(sink, ids, refusal)
            return
        settled = self._settle(decoded, len(body))
        if len(settled) == len(decoded) and all(what[0] == Settled.REFUSED for what in settled.values()):
            # Nothing to propose: what the pure check refuses once, it refuses always.
            for position, (request_id, _) in enumerate(ids):
                self.outbox.reply(sink, reply_error(request_id, 0, ApiError.from_wire(settled[position][1])))
            return
        settings = self.settings
        self._frame += 1
        header = WritesHeader(settings.member_id, self._frame, client, low, "", settings.max_txn_ops, settled)
        proposal = self.raft.propose(encode_writes(header, body))
        if proposal is None:
            self.outbox.refuse(sink, ids, errors.no_leader())
            return
        term, index = proposal
        self.proposed += 1
        self.pending_bytes += len(body)
        now = self.clock()
        default = now + settings.request_timeout_s
        latest = now + REQUEST_TIMEOUT_MS_MAX / 1000
        deadlines = [
            (request_id, min(now + timeout_ms / 1000, latest) if timeout_ms else default)
            for request_id, timeout_ms in ids
        ]
        self.waiters[index] = Waiter(term, sink, deadlines, len(body), (int(EntryKind.WRITES), header, decoded))

    def _refusal(self, size: int) -> ApiError | None:
        """Return why nothing at all of a frame can be proposed now, or None."""
        if self.is_stopping:
            return errors.server_stopped()
        if self.pending_bytes + size > PROPOSAL_BYTES_PENDING_MAX or len(self.waiters) >= PROPOSALS_PENDING_MAX:
            return errors.too_many_requests()
        return None

    def _settle(self, decoded: list[Any], size: int) -> dict[int, tuple[Any, ...]]:
        """Check each write and settle what depends on this node, by position (S15).

        S16: without space only what grows the store is refused, also beside a delete in the same frame.
        """
        settled: dict[int, tuple[Any, ...]] = {}
        has_space: bool | None = None
        max_txn_ops = self.settings.max_txn_ops
        # Only a frame above the limit can hold a write above it, so that no other is measured.
        size_max = self.settings.max_request_bytes if size > self.settings.max_request_bytes else None
        for position, write in enumerate(decoded):
            error = check_write(write, max_txn_ops)
            if size_max is not None and len(encode(write)) > size_max:
                error = errors.request_too_large()
            if error is None and _grows(write):
                if has_space is None:
                    has_space = self.has_space(size + 256 * len(decoded))
                error = None if has_space else errors.no_space()
            if error is not None:
                settled[position] = (Settled.REFUSED, error.to_wire())
            elif write[1] == Op.LEASE_GRANT:
                arguments = write[3]
                lease = arguments[1] if len(arguments) > 1 else 0
                ttl_s = max(arguments[0], self.settings.lease_ttl_s_min)
                settled[position] = (Settled.LEASE, lease or self.new_lease_id(), ttl_s)
        return settled

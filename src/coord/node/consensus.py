"""The consensus actor: owns Raft, and turns clients' writes into entries.

One turn takes everything that arrived since the last, what other members sent before all else, proposes it, starts one
read round for all reads that wait, and hands Raft's `Ready` on: messages to the peers, entries to the log writer,
committed entries to the applier, confirmed rounds to the reader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from attrs import define, field

from coord import errors
from coord.codec import encode
from coord.errors import ApiError
from coord.limits import (
    INTERNAL_RESERVE,
    PROPOSAL_BYTES_PENDING_MAX,
    PROPOSALS_PENDING_MAX,
    REQUEST_TIMEOUT_MS_MAX,
    TURN_BUDGET_S,
)
from coord.mvcc.txn import has_put
from coord.node.forwarding import Forwarder
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.replies import reply_error
from coord.node.waiters import Waiter, Waiters, Waiting
from coord.protocol.bodies import is_run, writes_of
from coord.protocol.check import check_write
from coord.protocol.entries import NOTHING, Frame, Settling
from coord.protocol.id_run import IdRun, Ids
from coord.protocol.messages import PeerMessage, Propose, Proposed, RaftMessage
from coord.protocol.ops import Op, Settled
from coord.raft.core import Raft, Ready
from coord.raft.types import Entry, HardState
from coord.types import Role


def _grows(write: list[Any]) -> bool:
    op = write[1]
    return op in (Op.PUT, Op.LEASE_GRANT) or (op == Op.TXN and has_put(write[3]))


class Log(Protocol):
    """Emits one event of the catalogue."""

    def __call__(self, event: str, /, **fields: Any) -> None:
        """Emit `event`."""


@define
class Settings:
    """What the node settles for its clients' writes (S15)."""

    first_number: int
    """Frames are numbered from here on, and no two of a member alike, over all its boots (S14)."""
    max_request_bytes: int
    max_txn_ops: int
    lease_ttl_s_min: int
    request_timeout_s: float


@define
class Outlets:
    """Where what Raft wants done goes."""

    send: Callable[[Sequence[PeerMessage]], None]
    to_log: Callable[[Sequence[Entry], HardState, Sequence[RaftMessage]], None]
    hold: Callable[[Sequence[RaftMessage]], None]
    """Sends messages when all that went to the log before is durable."""
    to_applier: Callable[[Sequence[Entry]], None]
    to_reader: Callable[[Sequence[tuple[int, int]]], None]
    lost_reads: Callable[[Sequence[int]], None]
    to_snapshotter: Callable[[int], None]


@define
class Consensus:
    """See the module's docstring. `clock` is monotonic, in seconds; `new_lease_id` draws from 1 … 2⁶³−1."""

    raft: Raft
    settings: Settings
    clock: Callable[[], float]
    new_lease_id: Callable[[], int]
    log: Log
    wake: Callable[[], None]
    outlets: Outlets
    wants_round: Callable[[], int]
    """Returns the id of a new round if reads wait for one, else 0."""
    has_space: Callable[[int], bool]
    """Tells whether a frame that grows the store by so many bytes fits; asked only for one that does."""
    outbox: Outbox
    waiters: Waiters
    forwarder: Forwarder
    refused: int = 0
    leader_changes: int = 0
    is_stopping: bool = False
    _last_number: int = field(init=False)
    _known_leader: int = 0
    _is_tick_due: bool = False
    _inbox: deque[tuple[Sink, int, int, Ids, bytes, list[Any]]] = field(factory=deque)
    _internal: deque[bytes] = field(factory=deque)
    _completions: deque[tuple[int, int, HardState]] = field(factory=deque)
    _from_peers: deque[tuple[Callable[..., object], tuple[Any, ...]]] = field(factory=deque)
    """What is to be done, and with what, in order."""

    def __attrs_post_init__(self) -> None:
        self._last_number = self.settings.first_number

    @property
    def pending_count(self) -> int:
        """How many frames wait to be applied."""
        return self.waiters.frames + self.forwarder.waiting_count

    @property
    def is_idle(self) -> bool:
        """True if nobody waits for a write."""
        return not self.waiters.placed and self.forwarder.is_idle and not self._inbox

    def writes(self, sink: Sink, client: int, low: int, ids: Ids, body: bytes, decoded: list[Any]) -> None:
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

    def received(self, message: RaftMessage | Propose | Proposed) -> None:
        """Queue what another member sent."""
        kind = type(message)
        if kind is Propose:
            self.soon(self.forwarder.propose_for, message)
        elif kind is Proposed:
            self.soon(self.forwarder.proposed, message)
        else:
            self.soon(self.raft.step, message)

    def soon(self, step: Callable[..., object], *what: Any) -> None:
        """Queue `step(*what)` behind what other members sent before."""
        self._from_peers.append((step, what))
        self.wake()

    def tick(self) -> None:
        """Count a tick: at once if nothing waits, else in the next turn that has handled all of the peers."""
        if self._from_peers or self._completions or self._is_tick_due:
            self._is_tick_due = True
            self.wake()
            return
        # Most ticks change nothing, and a pass over all actors for each would be half of what an idle node costs.
        self.raft.tick()
        if self.hand_on():
            self.wake()

    def turn(self) -> bool:
        """Step everything, then hand on one Ready; True if more of the peers waits."""
        raft = self.raft
        is_drained = self._drain_peers()
        if self._completions:
            self._take_completions()
        if self._is_tick_due and is_drained:
            # S11: never before what lay in the inbox, which may tell that the leader lives; and once, however many
            # ticks a stall has cost.
            self._is_tick_due = False
            raft.tick()
        if self._internal:
            self._propose_internal()
        if self._inbox:
            self._take_all()
        self.forwarder.turn()
        if round_id := self.wants_round():
            raft.read_index(round_id)
        self.hand_on()
        return not is_drained

    def settle(self) -> bool:
        """Hand on what a write that was over at once brings about, in the same pass."""
        if self._completions:
            self._take_completions()
            self.hand_on()
        return False

    def hand_on(self) -> bool:
        """Take Raft's Ready apart; True if there was one."""
        ready = self.raft.ready()
        if ready is None:
            return False
        self._hand_on(ready)
        if ready.snapshots_wanted:
            # One that cannot be sent is told of at once, and asks for something else to be done.
            self.hand_on()
        leader = self.raft.leader_id
        if leader not in (0, self._known_leader):
            self._known_leader = leader
            self.leader_changes += 1
        return True

    def expire(self, now: float) -> None:
        """Answer writes past their deadline."""
        self.waiters.expire(now, self.raft.role is Role.LEADER)
        self.forwarder.expire(now)

    def forget(self, sink: Sink) -> None:
        """Answer nobody on `sink` any more; its writes go on."""
        self.waiters.forget(sink)
        self.forwarder.forget(sink)

    def _hand_on(self, ready: Ready) -> None:
        outlets = self.outlets
        for name, fields in ready.notes:
            self.log(name, **fields)
        if ready.messages:
            # Thesis §10.2.1: the leader's appends need not wait for its own disk.
            outlets.send(ready.messages)
        if ready.entries or ready.hard_state is not None:
            if self.raft.role is not Role.LEADER:
                self.waiters.overwritten(ready.entries)
            outlets.to_log(ready.entries, self.raft.state_to_save(), ready.durable_messages)
        elif ready.durable_messages:
            outlets.hold(ready.durable_messages)
        if ready.committed:
            outlets.to_applier(ready.committed)
        if ready.reads:
            outlets.to_reader(ready.reads)
        if ready.lost_reads:
            outlets.lost_reads(ready.lost_reads)
        for member in ready.snapshots_wanted:
            outlets.to_snapshotter(member)

    def _drain_peers(self) -> bool:
        """Handle what the peers sent, as far as the turn's time goes; True if that was all."""
        if not self._from_peers:
            return True
        ends = self.clock() + TURN_BUDGET_S
        while self._from_peers:
            step, what = self._from_peers.popleft()
            step(*what)
            if self.clock() >= ends:
                break
        return not self._from_peers

    def _take_completions(self) -> None:
        while self._completions:
            self.raft.persisted(*self._completions.popleft())

    def _propose_internal(self) -> None:
        if self.raft.role is not Role.LEADER:
            # Each is of a leader, which judges anew when it leads again.
            self._internal.clear()
        while self._internal and self.raft.propose(self._internal[0]) is not None:
            self._internal.popleft()

    def _take_all(self) -> None:
        now = self.clock()
        default = now + self.settings.request_timeout_s
        latest = now + REQUEST_TIMEOUT_MS_MAX / 1000

        def deadline(timeout_ms: float) -> float:
            return min(now + timeout_ms / 1000, latest) if timeout_ms else default

        while self._inbox:
            sink, client, low, ids, body, decoded = self._inbox.popleft()
            settled = self._judge(sink, ids, decoded, len(body))
            if settled is None:
                continue
            waiting: Waiting
            if isinstance(ids, IdRun):
                waiting = IdRun(ids.ids, deadline(ids.each))
            else:
                waiting = [(request_id, deadline(timeout_ms)) for request_id, timeout_ms in ids]
            self._last_number += 1
            frame = Frame(client, low, "", settled, body, decoded, is_checked=True)
            self.forwarder.submit(Waiter(self._last_number, sink, waiting, frame))

    def _judge(self, sink: Sink, ids: Ids, decoded: list[Any], size: int) -> Settling | None:
        """Return what is settled for a frame, or answer it and return None if nothing of it is to be proposed."""
        refusal = self._refusal(size)
        if refusal is not None:
            self.refused += len(ids)
            self.outbox.refuse(sink, ids, refusal)
            return None
        settled = self._settle(decoded, len(ids), size)
        if len(settled) == len(ids) and all(what[0] == Settled.REFUSED for what in settled.values()):
            # Nothing to propose: what the pure check refuses once, it refuses always.
            for position, (request_id, _) in enumerate(ids):
                self.outbox.reply(sink, reply_error(request_id, 0, ApiError.from_wire(settled[position][1])))
            return None
        return settled

    def _refusal(self, size: int) -> ApiError | None:
        """Return why nothing at all of a frame can be proposed now, or None."""
        if self.is_stopping:
            return errors.server_stopped()
        pending_bytes = self.waiters.placed_load.bytes + self.forwarder.bytes
        if pending_bytes + size > PROPOSAL_BYTES_PENDING_MAX or self.pending_count >= PROPOSALS_PENDING_MAX:
            return errors.too_many_requests()
        return None

    def _settle(self, decoded: list[Any], count: int, size: int) -> Settling:
        """Check each of `count` writes and settle what depends on this node, by position (S15).

        S16: without space only what grows the store is refused, also beside a delete in the same frame.
        """
        has_space: bool | None = None
        max_txn_ops = self.settings.max_txn_ops
        # Only a frame above the limit can hold a write above it, so that no other is measured.
        size_max = self.settings.max_request_bytes if size > self.settings.max_request_bytes else None
        if is_run(decoded) and size_max is None:
            # What most frames are passes the check, and asks for nothing but space.
            has_space = self.has_space(size + 256 * count)
            if has_space:
                return NOTHING
        settled: dict[int, tuple[Any, ...]] = {}
        for position, write in enumerate(writes_of(decoded)):
            error = check_write(write, max_txn_ops)
            if size_max is not None and len(encode(write)) > size_max:
                error = errors.request_too_large()
            if error is None and _grows(write):
                if has_space is None:
                    has_space = self.has_space(size + 256 * count)
                error = None if has_space else errors.no_space()
            if error is not None:
                settled[position] = (Settled.REFUSED, error.to_wire())
            elif write[1] == Op.LEASE_GRANT:
                arguments = write[3]
                lease = arguments[1] if len(arguments) > 1 else 0
                ttl_s = max(arguments[0], self.settings.lease_ttl_s_min)
                settled[position] = (Settled.LEASE, lease or self.new_lease_id(), ttl_s)
        return settled

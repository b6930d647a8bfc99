"""The reader: linearizable reads, which wait for a confirmed read round, and everything answered like one.

Reads that wait when a round starts share it; those that arrive during it wait for the next (S8), on followers too. A
round that nobody will confirm any more, since the leader went, gives its reads back: they share the next one, until
their deadlines. Long ranges run in slices, so that a scan of the whole store does not hold the loop; their revision
is pinned when they start (S7).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence

from attrs import define, field

from coord import errors
from coord.errors import ApiError, Behind
from coord.limits import READS_PENDING_MAX, TURN_BUDGET_S
from coord.mvcc.machine import StateMachine
from coord.mvcc.ranges import encode_range
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.replies import reply_error, reply_ok
from coord.protocol.ranges import RangeRequest

Serve = Callable[[], bytes | Generator[None, None, bytes] | None]
"""Makes the reply: at once, in slices, or by itself later (None)."""

_BEHIND_S = 1.0
_ROUND_RETRY_S = 0.5
"""A round that is not confirmed by then is started anew: what asks the leader for it may have been lost."""
_EXPIRY_INTERVAL_S = 0.05
"""Deadlines are looked at no more often, since that walks over all that waits."""
_SERVED_PER_LOOK = 8
"""So many reads are served between two looks at the clock: a transaction may range over thousands of keys."""


class _Nobody:
    """The sink of reads that the node makes for itself."""

    def reply(self, reply: bytes) -> None:
        """Drop it."""

    def notify(self, notification: bytes) -> None:
        """Drop it."""

    def flush(self) -> None:
        """Nothing waits."""

    def is_slow(self) -> bool:
        """Never."""
        return False


NOBODY = _Nobody()


@define(eq=False)
class Read:
    """One request that waits. `serve` is called once a round confirms that the state here is current."""

    sink: Sink
    request_id: int
    deadline: float
    serve: Serve
    min_revision: int = 0


@define
class Reader:
    """See the module's docstring."""

    machine: StateMachine
    outbox: Outbox
    clock: Callable[[], float]
    wake: Callable[[], None]
    new_round: Callable[[], int]
    """Makes the id of a round: unique among all members and their starts (S8)."""
    has_leader: Callable[[], bool] = lambda: True
    no_leader: Callable[[], ApiError] = errors.no_leader
    """Says why there is none, for reads that wait for one until their deadline."""
    waiting: list[Read] = field(factory=list)
    ranges_served: int = 0
    local_reads: int = 0
    """Of local state, that were asked for: serializable ones, and watches that name their start."""
    is_stopping: bool = False
    is_held: bool = False
    """The state is being replaced by a snapshot: nothing may look at it."""
    _has_lost: bool = False
    """A round was lost: the next is started at a tick, so that a leader that cannot confirm is not asked in a loop."""
    _round_began: float = 0.0
    _old_count: int = 0
    """So many of `waiting` were there when it was last looked for a leader in vain."""
    _looked_at: float = 0.0
    _next_expiry: float = 0.0
    _rounds: dict[int, list[Read]] = field(factory=dict)
    _confirmed: deque[tuple[int, int]] = field(factory=deque)
    _serving: deque[Read] = field(factory=deque)
    """May be served now; what does not fit into a turn waits for the next."""
    _slices: deque[tuple[Read, Generator[None, None, bytes]]] = field(factory=deque)
    _behind: list[Read] = field(factory=list)
    _parked: list[tuple[Read, Callable[[], bool]]] = field(factory=list)
    _retried_index: int = 0
    _gone: set[Sink] = field(factory=set)
    _canceled: set[tuple[Sink, int]] = field(factory=set)

    @property
    def open_count(self) -> int:
        """How many reads have not been answered."""
        in_rounds = sum(map(len, self._rounds.values()))
        held = len(self._behind) + len(self._parked)
        return len(self.waiting) + in_rounds + len(self._serving) + len(self._slices) + held

    @property
    def is_led(self) -> bool:
        """True if a round can be started: there is a leader, and this member is not about to stop."""
        return self.has_leader() and not self.is_stopping

    def linearizable(self, read: Read) -> None:
        """Queue a read for the next round."""
        if self._canceled:
            self._canceled.discard((read.sink, read.request_id))
        if self.is_stopping:
            self._fail(read, errors.server_stopped())
        elif len(self.waiting) + len(self._slices) >= READS_PENDING_MAX and read.sink is not NOBODY:
            # S11: the rounds that the node needs for itself find room in any crowd.
            self._fail(read, errors.too_many_requests())
        else:
            self.waiting.append(read)
            self.wake()

    def serializable(self, read: Read) -> None:
        """Queue a read of local state, as soon as it has reached the revision that the client has seen (S29)."""
        if self._canceled:
            self._canceled.discard((read.sink, read.request_id))
        self.local_reads += 1
        if len(self._behind) + len(self._serving) + len(self._slices) >= READS_PENDING_MAX:
            self._fail(read, errors.too_many_requests())
        elif read.min_revision > self.machine.revision:
            read.deadline = min(read.deadline, self.clock() + _BEHIND_S)
            self._behind.append(read)
        else:
            self._serving.append(read)
        self.wake()

    def park(self, read: Read, is_over: Callable[[], bool]) -> None:
        """Keep a read until an entry is applied that makes `is_over` true; then it needs a round of its own."""
        self._parked.append((read, is_over))

    def after_round(self, resume: Callable[[], None], deadline: float) -> None:
        """Call `resume` when a round that starts from now on is confirmed."""
        self.linearizable(Read(NOBODY, 0, deadline, resume))

    def wants_round(self) -> int:
        """Start a round for what waits, unless one is open or nobody could confirm it; return its id, or 0."""
        if not self.waiting or self._rounds or self._serving or self._has_lost or not self.has_leader():
            return 0
        round_id = self.new_round()
        self._rounds[round_id] = self.waiting
        self._round_began = self.clock()
        self.waiting = []
        return round_id

    def confirmed(self, reads: Sequence[tuple[int, int]]) -> None:
        """Learn that rounds are confirmed at an index."""
        self._confirmed.extend(reads)

    def lost(self, rounds: Sequence[int]) -> None:
        """Learn that nobody will confirm these rounds: their reads wait for a new one."""
        for round_id in rounds:
            if reads := self._rounds.pop(round_id, None):
                self.waiting[:0] = reads
                self._has_lost = True

    def leaderless(self, now: float, patience_s: float) -> None:
        """Refuse what has waited for `patience_s` or more; called at every tick of a member without a leader.

        Nothing was done, so that a client that knows another member goes there while it has time left.
        """
        since_s = now - self._looked_at
        if since_s < patience_s:
            return
        if since_s > 2 * patience_s:
            self._old_count = 0  # of another time without a leader
        self._looked_at = now
        old, self.waiting = self.waiting[: self._old_count], self.waiting[self._old_count :]
        for read in old:
            if read.sink is NOBODY:
                self.waiting.append(read)
            else:
                self._fail(read, self.no_leader())
        self._old_count = len(self.waiting)

    def hold(self) -> None:
        """Look at the state no more until `go_on`: it is being replaced. What was being served is served anew then."""
        self.is_held = True
        slices, self._slices = self._slices, deque()
        for read, running in slices:
            running.close()
            self._serving.append(read)

    def go_on(self) -> None:
        """Serve from the state as it is now."""
        self.is_held = False
        self.wake()

    def turn(self) -> bool:
        """Serve what may be served and fits into the turn; True if more can go on at once."""
        if self.is_held:
            return False
        if self._gone or self._canceled:
            self._drop_unwanted()
        while self._confirmed and self._confirmed[0][1] <= self.machine.applied_index:
            round_id, _ = self._confirmed.popleft()
            self._serving.extend(self._rounds.pop(round_id, ()))
        if (self._behind or self._parked) and self._retried_index != self.machine.applied_index:
            self._retry()
        if self._serving or self._slices:
            ends = self.clock() + TURN_BUDGET_S
            self._serve_until(ends)
            self._run_slices(ends)
        is_round_due = self.waiting and not self._rounds and not self._has_lost and self.has_leader()
        return bool(self._serving or self._slices or is_round_due)

    def expire(self, now: float) -> None:
        """Answer reads past their deadline, and start a round anew that was not confirmed; call it at every tick."""
        self._has_lost = False
        if self._rounds and not self._confirmed and now - self._round_began >= _ROUND_RETRY_S:
            self.lost(list(self._rounds))
            self._has_lost = False
        if now < self._next_expiry:
            return
        self._next_expiry = now + _EXPIRY_INTERVAL_S
        for read in self._drop(lambda read: read.deadline <= now):
            if read.min_revision > self.machine.revision:
                text = f"this node is at revision {self.machine.revision}, the client has seen {read.min_revision}"
                self._fail(read, Behind(text))
            else:
                self._fail(read, errors.request_timed_out() if self.has_leader() else self.no_leader())

    def cancel(self, sink: Sink, request_id: int) -> None:
        """Answer a read, if it still waits when the turn comes, with Canceled."""
        self._canceled.add((sink, request_id))
        self.wake()

    def forget(self, sink: Sink) -> None:
        """Drop all reads of a connection that has gone."""
        self._gone.add(sink)
        self.wake()

    def fail_all(self, error: ApiError) -> None:
        """Answer everything that waits with `error`."""
        for read in self._drop(lambda _: True):
            self._fail(read, error)

    def range(self, request: RangeRequest) -> Generator[None, None, bytes]:
        """Return the slices of a range; the encoded result is their return value."""
        self.ranges_served += 1
        return encode_range((yield from self.machine.range(request)))

    def _serve_until(self, ends: float) -> None:
        serving = self._serving
        while serving:
            # The clock is looked at once for some, since most reads cost little more than a look.
            for _ in range(min(len(serving), _SERVED_PER_LOOK)):
                self._serve(serving.popleft())
            if self.clock() >= ends:
                return

    def _serve(self, read: Read) -> None:
        try:
            served = read.serve()
        except ApiError as error:
            self._fail(read, error)
            return
        if isinstance(served, bytes):
            self._succeed(read, served)
        elif served is not None:
            self._slices.append((read, served))

    def _run_slices(self, ends: float) -> None:
        """Run slices until the turn's time is up; a range that is not done then waits behind the others."""
        while self._slices:
            read, slices = self._slices.popleft()
            try:
                while True:
                    next(slices)
                    if self.clock() >= ends:
                        self._slices.append((read, slices))
                        return
            except StopIteration as stop:
                self._succeed(read, stop.value)
            except ApiError as error:
                self._fail(read, error)
            if self.clock() >= ends:
                return

    def _retry(self) -> None:
        """See which of the reads that wait for entries can go on, now that some were applied."""
        self._retried_index = self.machine.applied_index
        revision = self.machine.revision
        self._serving.extend(read for read in self._behind if read.min_revision <= revision)
        self._behind = [read for read in self._behind if read.min_revision > revision]
        parked, self._parked = self._parked, []
        for read, is_over in parked:
            if is_over():
                self.linearizable(read)
            else:
                self._parked.append((read, is_over))

    def _drop_unwanted(self) -> None:
        """Drop the reads of lost connections and answer the canceled, in one look at all that wait."""
        gone, canceled = self._gone, self._canceled
        self._gone, self._canceled = set(), set()
        for read in self._drop(lambda read: read.sink in gone or (read.sink, read.request_id) in canceled):
            if read.sink not in gone:
                self._fail(read, ApiError("request canceled", code=errors.Code.CANCELED))

    def _drop(self, chosen: Callable[[Read], bool]) -> list[Read]:
        """Remove and return the chosen reads, in time proportional to all of them."""
        dropped: list[Read] = []

        def stays(read: Read) -> bool:
            if not chosen(read):
                return True
            dropped.append(read)
            return False

        for reads in (self.waiting, self._behind, *self._rounds.values()):
            reads[:] = filter(stays, reads)
        self._serving = deque(filter(stays, self._serving))
        self._parked = [parked for parked in self._parked if stays(parked[0])]
        slices, self._slices = self._slices, deque()
        for item in slices:
            if stays(item[0]):
                self._slices.append(item)
            else:
                item[1].close()
        return dropped

    def _succeed(self, read: Read, result: bytes) -> None:
        self.outbox.reply(read.sink, reply_ok(read.request_id, self.machine.revision, result))

    def _fail(self, read: Read, error: ApiError) -> None:
        self.outbox.reply(read.sink, reply_error(read.request_id, self.machine.revision, error))

"""The reader: linearizable reads, which wait for a confirmed read round, and everything answered like one.

Reads that wait when a round starts share it; those that arrive during it wait for the next (S8). Long ranges run in
slices, so that a scan of the whole store does not hold the loop; their revision is pinned when they start (S7).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence

from attrs import define, field

from coord import errors
from coord.errors import ApiError, Behind
from coord.limits import READS_PENDING_MAX, REPLY_BYTES_MAX, TURN_BUDGET_S
from coord.mvcc.machine import StateMachine
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.replies import range_result, reply_error, reply_ok
from coord.protocol.ranges import RangeRequest

Serve = Callable[[], bytes | Generator[None, None, bytes] | None]
"""Makes the reply: at once, in slices, or by itself later (None)."""

_BEHIND_S = 1.0


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
    waiting: list[Read] = field(factory=list)
    ranges_served: int = 0
    is_stopping: bool = False
    _rounds: dict[int, list[Read]] = field(factory=dict)
    _confirmed: deque[tuple[int, int]] = field(factory=deque)
    _slices: deque[tuple[Read, Generator[None, None, bytes]]] = field(factory=deque)
    _behind: list[Read] = field(factory=list)

    def linearizable(self, read: Read) -> None:
        """Queue a read for the next round."""
        if self.is_stopping:
            self._fail(read, errors.server_stopped())
        elif len(self.waiting) >= READS_PENDING_MAX:
            self._fail(read, errors.too_many_requests())
        else:
            self.waiting.append(read)
            self.wake()

    def serializable(self, read: Read) -> None:
        """Serve a read from local state, once it has reached the revision that the client has seen (S29)."""
        if read.min_revision > self.machine.revision:
            read.deadline = min(read.deadline, self.clock() + _BEHIND_S)
            self._behind.append(read)
        else:
            self._serve(read)
        self.wake()

    def wants_round(self) -> int:
        """Start a round for what waits, unless one is open; return its id, or 0."""
        if not self.waiting or self._rounds:
            return 0
        round_id = self.new_round()
        self._rounds[round_id] = self.waiting
        self.waiting = []
        return round_id

    def confirmed(self, reads: Sequence[tuple[int, int]]) -> None:
        """Learn that rounds are confirmed at an index."""
        self._confirmed.extend(reads)

    def turn(self) -> bool:
        """Serve what may be served; True if more can go on at once."""
        while self._confirmed and self._confirmed[0][1] <= self.machine.applied_index:
            round_id, _ = self._confirmed.popleft()
            for read in self._rounds.pop(round_id, ()):
                self._serve(read)
        if self._behind:
            self._retry_behind()
        if self._slices:
            self._run_slices()
        return bool(self._slices) or bool(self.waiting and not self._rounds)

    def expire(self, now: float) -> None:
        """Answer reads past their deadline."""
        for reads in (self.waiting, *self._rounds.values()):
            for read in [read for read in reads if read.deadline <= now]:
                reads.remove(read)
                self._fail(read, errors.request_timed_out())
        for read in [read for read in self._behind if read.deadline <= now]:
            self._behind.remove(read)
            text = f"this node is at revision {self.machine.revision}, the client has seen {read.min_revision}"
            self._fail(read, Behind(text))

    def cancel(self, sink: Sink, request_id: int) -> bool:
        """Answer a read that still waits with Canceled; False if there is none."""
        canceled = self._drop(lambda read: read.sink is sink and read.request_id == request_id)
        for read in canceled:
            self._fail(read, ApiError("request canceled", code=errors.Code.CANCELED))
        return bool(canceled)

    def forget(self, sink: Sink) -> None:
        """Drop all reads of a connection that has gone."""
        self._drop(lambda read: read.sink is sink)

    def fail_all(self, error: ApiError) -> None:
        """Answer everything that waits with `error`."""
        for read in self._drop(lambda _: True):
            self._fail(read, error)

    def range(self, request: RangeRequest) -> Generator[None, None, bytes]:
        """Return the slices of a range; the encoded result is their return value."""
        self.ranges_served += 1
        records, more, count = yield from self.machine.range(request)
        if sum(map(len, records)) > REPLY_BYTES_MAX:
            raise errors.ResourceExhausted(
                f"the range holds more than {REPLY_BYTES_MAX} bytes: page it with limit", len(records)
            )
        return range_result(records, more, count)

    def _serve(self, read: Read) -> None:
        try:
            served = read.serve()
        except ApiError as error:
            self._fail(read, error)
            return
        if isinstance(served, bytes):
            self._succeed(read, served)
        elif served is not None:
            self._step(read, served, self.clock() + TURN_BUDGET_S)

    def _run_slices(self) -> None:
        ends = self.clock() + TURN_BUDGET_S
        for _ in range(len(self._slices)):
            self._step(*self._slices.popleft(), ends)
            if self.clock() >= ends:
                return

    def _step(self, read: Read, slices: Generator[None, None, bytes], ends: float) -> None:
        """Run slices until the turn's time is up; what is left waits behind the others."""
        try:
            while True:
                next(slices)
                if self.clock() >= ends:
                    self._slices.append((read, slices))
                    self.wake()
                    return
        except StopIteration as stop:
            self._succeed(read, stop.value)
        except ApiError as error:
            self._fail(read, error)

    def _retry_behind(self) -> None:
        revision = self.machine.revision
        ready = [read for read in self._behind if read.min_revision <= revision]
        if ready:
            self._behind = [read for read in self._behind if read.min_revision > revision]
            for read in ready:
                self._serve(read)

    def _drop(self, chosen: Callable[[Read], bool]) -> list[Read]:
        dropped = []
        for reads in (self.waiting, self._behind, *self._rounds.values()):
            found = [read for read in reads if chosen(read)]
            for read in found:
                reads.remove(read)
            dropped.extend(found)
        for item in [item for item in self._slices if chosen(item[0])]:
            self._slices.remove(item)
            item[1].close()
            dropped.append(item[0])
        return dropped

    def _succeed(self, read: Read, result: bytes) -> None:
        self.outbox.reply(read.sink, reply_ok(read.request_id, self.machine.revision, result))

    def _fail(self, read: Read, error: ApiError) -> None:
        self.outbox.reply(read.sink, reply_error(read.request_id, self.machine.revision, error))

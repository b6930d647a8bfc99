"""Calls to the leader: what only it can answer, asked by the member that the client talks to.

A lease's clock lives on the leader alone, and only the leader changes the members. A call waits for a leader until
its deadline. One that may be asked twice is asked again when the link breaks or another member leads; a change of
members is asked again only after an answer saying that nothing was done (S14), else its outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import define, field

from coord import errors
from coord.codec import uint
from coord.errors import ApiError, OutcomeUnknown, Unimplemented
from coord.limits import READS_PENDING_MAX
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.replies import reply_error
from coord.protocol.messages import Call, CallReply, PeerMessage
from coord.protocol.ops import MEMBER_CHANGES, Method

REPEATABLE: Final = frozenset((Method.LEASE_KEEP_ALIVE, Method.LEASE_TIME_TO_LIVE))
"""What may be asked twice."""

_LOST = OutcomeUnknown("etcdserver: the link to the leader broke: the change may still happen")
_LATE = OutcomeUnknown("etcdserver: request timed out: the change may still happen")

Serve = Callable[[Sink, int, int, int, list[Any]], None]
"""Takes a request here: sink, request id, method, timeout in ms, arguments."""


@define(eq=False)
class Caller:
    """A member that called, where the actors of a leader expect a client's connection."""

    calls: Calls
    member: int
    call_id: int

    def reply(self, reply: bytes) -> None:
        """Send the answer to the member that called."""
        self.calls.send((CallReply(self.calls.member_id, self.member, self.call_id, reply),))

    def notify(self, notification: bytes) -> None:
        """Nothing that is called notifies."""

    def flush(self) -> None:
        """The links to the members are flushed by their owner."""

    def is_slow(self) -> bool:
        """Never: an answer is small."""
        return False


@define(eq=False)
class _Pending:
    """A client's request that the leader answers; `sent_to` is 0 while it waits for one."""

    sink: Sink
    request_id: int
    deadline: float
    method: int
    arguments: list[Any]
    sent_to: int = 0
    turned_away_by: int = 0
    """Said that it does not lead; not asked again before the next tick."""


@define
class Calls:
    """See the module's docstring. `new_id` makes ids that are unique over this member's starts."""

    member_id: int
    leader_id: Callable[[], int]
    is_linked: Callable[[int], bool]
    send: Callable[[Sequence[PeerMessage]], None]
    serve: Serve
    clock: Callable[[], float]
    wake: Callable[[], None]
    new_id: Callable[[], int]
    no_leader: Callable[[], ApiError]
    outbox: Outbox
    _waiting: list[_Pending] = field(factory=list)
    _open: dict[int, _Pending] = field(factory=dict)
    _inbox: list[Call | CallReply] = field(factory=list)

    @property
    def is_here(self) -> bool:
        """This member leads: what only the leader answers is answered here."""
        return self.leader_id() == self.member_id

    @property
    def open_count(self) -> int:
        """How many calls of this member's clients have not been answered."""
        return len(self._waiting) + len(self._open)

    @property
    def is_idle(self) -> bool:
        """True if no change is on its way whose outcome only the leader's answer tells."""
        return all(pending.method in REPEATABLE for pending in self._open.values())

    def forward(self, sink: Sink, request_id: int, deadline: float, method: int, arguments: list[Any]) -> None:
        """Have the leader answer a request. Raises `ApiError` if there are too many.

        One that another member sent here, taking this one for the leader, goes back to it.
        """
        if isinstance(sink, Caller):
            self._turn_away(sink)
            return
        if self.open_count >= READS_PENDING_MAX:
            raise errors.too_many_requests()
        # Where this member leads, it does so since a moment ago, or no longer for long: not again before the next tick.
        turned_away_by = self.member_id if self.is_here else 0
        self._waiting.append(_Pending(sink, request_id, deadline, method, arguments, 0, turned_away_by))
        self.wake()

    def take(self, message: Call | CallReply) -> None:
        """Queue what another member says."""
        self._inbox.append(message)
        self.wake()

    def link_broken(self, member: int) -> None:
        """Ask elsewhere, or again, what `member` may not have heard, or whose answer may be lost."""
        for call_id, pending in list(self._open.items()):
            if pending.sent_to == member:
                del self._open[call_id]
                if pending.method in REPEATABLE:
                    self._wait_again(pending)
                else:
                    self._fail(pending, _LOST)

    def turn(self) -> bool:
        """Serve those who call this member, take answers, and send what waits for a leader."""
        inbox, self._inbox = self._inbox, []
        for message in inbox:
            if isinstance(message, Call):
                self._take_call(message)
            else:
                self._take_reply(message)
        leader = self.leader_id()
        if not leader:
            return False
        for call_id, pending in list(self._open.items()):
            if pending.sent_to != leader and pending.method in REPEATABLE:
                del self._open[call_id]
                self._wait_again(pending)
        if self._waiting and (leader == self.member_id or self.is_linked(leader)):
            self._send_waiting(leader)
        return False

    def expire(self) -> None:
        """Answer those past their deadline; call it at every tick."""
        now = self.clock()
        for pending in self._waiting:
            pending.turned_away_by = 0
        for pending in self._drop(lambda pending: pending.deadline <= now):
            if pending.sent_to and pending.method not in REPEATABLE:
                self._fail(pending, _LATE)
            else:
                self._fail(pending, errors.request_timed_out() if self.leader_id() else self.no_leader())

    def cancel(self, sink: Sink, request_id: int) -> None:
        """Answer a call that still waits with Canceled; a change that was sent may still happen and goes on."""

        def is_meant(pending: _Pending) -> bool:
            is_free = not pending.sent_to or pending.method in REPEATABLE
            return pending.sink is sink and pending.request_id == request_id and is_free

        for pending in self._drop(is_meant):
            self._fail(pending, ApiError("request canceled", code=errors.Code.CANCELED))

    def forget(self, sink: Sink) -> None:
        """Drop the calls of a connection that has gone."""
        self._drop(lambda pending: pending.sink is sink)

    def fail_all(self, error: ApiError) -> None:
        """Answer everything that waits with `error`; changes that were sent may still happen."""
        for pending in self._drop(lambda pending: True):
            self._fail(pending, _LOST if pending.sent_to and pending.method not in REPEATABLE else error)

    def _take_call(self, call: Call) -> None:
        caller = Caller(self, call.sender, call.id)
        if not self.is_here:
            self._turn_away(caller)
        elif call.method not in REPEATABLE and call.method not in MEMBER_CHANGES:
            self.outbox.reply(caller, reply_error(call.id, 0, Unimplemented(f"no member calls method {call.method}")))
        else:
            self.serve(caller, call.id, call.method, call.timeout_ms, call.arguments)

    def _turn_away(self, caller: Caller) -> None:
        error = errors.no_leader().to_wire()
        self.send((CallReply(self.member_id, caller.member, caller.call_id, None, error, is_unhandled=True),))

    def _take_reply(self, reply: CallReply) -> None:
        pending = self._open.pop(reply.id, None)
        if pending is None:
            return
        if reply.is_unhandled:
            pending.turned_away_by = reply.sender
            self._wait_again(pending)
        elif reply.result is not None:
            # The leader's reply as it stands, under the id that the client gave.
            tail = reply.result[1 + len(uint(reply.id)) :]
            self.outbox.reply(pending.sink, reply.result[:1] + uint(pending.request_id) + tail)
        else:
            self._fail(pending, ApiError.from_wire(list(reply.error or _LOST.to_wire())))

    def _wait_again(self, pending: _Pending) -> None:
        pending.sent_to = 0
        self._waiting.append(pending)
        self.wake()

    def _send_waiting(self, leader: int) -> None:
        waiting, self._waiting = self._waiting, []
        messages = []
        now = self.clock()
        for pending in waiting:
            timeout_ms = max(1, round((pending.deadline - now) * 1000))
            if pending.turned_away_by == leader:
                self._waiting.append(pending)
            elif leader == self.member_id:
                self.serve(pending.sink, pending.request_id, pending.method, timeout_ms, pending.arguments)
            else:
                call_id = self.new_id()
                pending.sent_to = leader
                self._open[call_id] = pending
                messages.append(Call(self.member_id, leader, call_id, pending.method, timeout_ms, pending.arguments))
        if messages:
            self.send(messages)

    def _drop(self, chosen: Callable[[_Pending], bool]) -> list[_Pending]:
        dropped = [pending for pending in self._waiting if chosen(pending)]
        dropped += [pending for pending in self._open.values() if chosen(pending)]
        if dropped:
            gone = set(map(id, dropped))
            self._waiting = [pending for pending in self._waiting if id(pending) not in gone]
            self._open = {call_id: pending for call_id, pending in self._open.items() if id(pending) not in gone}
        return dropped

    def _fail(self, pending: _Pending, error: ApiError) -> None:
        self.outbox.reply(pending.sink, reply_error(pending.request_id, 0, error))

"""The core of the client: which call waits for what, over all connections. Pure: bytes in, wake-ups and frames out.

A call is submitted to the outbox. Whoever drives a connection takes frames for it, hands in what arrives and tells
when it is lost; the waiters of all that came to an end collect in `wakes`. An event loop adds only sockets, a clock
and the waking itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import Any, Final

from attrs import define, field

from coord.client.calls import NEVER, Call, Connection, Subscription
from coord.client.endpoints import ANOTHER_TRY_S, Rotation, refusal_pause_s
from coord.client.failing import (
    REFUSALS_BEFORE_MOVING,
    has_no_leader,
    is_clear_refusal,
    lost_after_sending,
    other_cluster,
    timed_out,
    unreachable,
)
from coord.client.watches import Watches
from coord.errors import ApiError, ProtocolViolation
from coord.limits import REQUESTS_OPEN_PER_CONNECTION
from coord.protocol import client_protocol as protocol
from coord.protocol.ops import Method, ServerMessage

_WATCH_CREATE: Final = int(Method.WATCH_CREATE)
_WATCH_PROGRESS: Final = int(Method.WATCH_PROGRESS)
_CANCEL: Final = int(Method.CANCEL)


@define(eq=False)
class ClientCore:
    """All calls, watches and connections of a client."""

    rotation: Rotation
    cluster_id: int = 0
    revision: int = 0
    """The highest revision seen (S29)."""
    active: Connection | None = None
    """Where calls are sent."""
    connections: list[Connection] = field(factory=list)
    outbox: list[Call] = field(factory=list)
    wakes: list[Any] = field(factory=list)
    """Waiters of calls and watches that something happened to; the driver takes and wakes them."""
    next_due: float = NEVER
    """Nothing is due before this; `expire` does what is due then."""
    watches: Watches = field(init=False)
    next_id: Callable[[], int] = field(factory=lambda: count(1).__next__)
    """Makes request ids and watch ids."""
    _resting: list[tuple[float, int, Call]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.watches = Watches(self)

    # -- calls

    def submit(self, call: Call) -> None:
        """Take a call; it leaves with the next frames."""
        self.outbox.append(call)
        if call.deadline < self.next_due:
            self.next_due = call.deadline

    def submit_progress(self, call: Call, subscription: Subscription) -> None:
        """Take a request for progress; it goes to the connection that carries the watch."""
        connection = call.connection = subscription.connection
        if connection is None:
            self.submit(call)
            return
        connection.pending[call.id] = call
        connection.orders.append((call.id, call.code, call.timeout_ms, call.arguments))
        self.next_due = min(self.next_due, call.deadline)

    def rest(self, call: Call, now: float) -> None:
        """Take a call that was refused; it leaves after a pause, which grows with each refusal."""
        call.connection = None
        call.attempts += 1
        due = now + refusal_pause_s(call.attempts, self.rotation.random)
        if due + ANOTHER_TRY_S >= call.deadline:
            self._finish(call, timed_out(call.timeout, False, False, call.refusal))
            return
        call.timeout_ms = min(call.timeout_ms, protocol.milliseconds(call.deadline - due))
        heapq.heappush(self._resting, (due, call.id, call))
        self.next_due = min(self.next_due, due)

    def abandon(self, call: Call) -> None:
        """Forget a call whose caller was cancelled; a write that was sent may still happen."""
        if not call.is_done:
            call.is_done = True
            self._withdraw(call)

    def _withdraw(self, call: Call) -> None:
        connection = call.connection
        if connection is None or connection.pending.pop(call.id, None) is None:
            return
        if not call.is_write:
            connection.orders.append((self.next_id(), _CANCEL, 0, (call.id,)))

    def take_frames(self, connection: Connection) -> list[bytes]:
        """Return the frames to send on `connection` now."""
        requests, connection.orders = connection.orders, []
        frames = [protocol.requests_frame(requests)] if requests else []
        if connection is not self.active or connection.is_leaving:
            return frames
        room = REQUESTS_OPEN_PER_CONNECTION - len(connection.pending)
        calls, self.outbox = self.outbox[:room], self.outbox[room:]
        reads: list[Call] = []
        writes: list[Call] = []
        for call in calls:
            # One that was cancelled or timed out while it waited here is done.
            if not call.is_done:
                call.connection = connection
                connection.pending[call.id] = call
                (writes if call.is_write else reads).append(call)
        if reads:
            frames += self._frames(reads, _requests_frame)
        if writes:
            frames += self._frames(writes, _writes_frame)
        return frames

    def _frames(self, calls: list[Call], build: Callable[[list[Call]], bytes]) -> list[bytes]:
        try:
            frame = build(calls)
            if len(frame) <= protocol.FRAME_BYTES_AIM or len(calls) == 1:
                return [frame]
        except Exception as error:
            # One call that cannot be sent, because it is too large or is no CBOR, must not fail its neighbours.
            if len(calls) == 1:
                assert calls[0].connection is not None
                calls[0].connection.pending.pop(calls[0].id, None)
                self._finish(calls[0], error)
                return []
        middle = len(calls) // 2
        return self._frames(calls[:middle], build) + self._frames(calls[middle:], build)

    def _finish(self, call: Call, error: Exception | None) -> None:
        if call.is_done:
            return
        call.is_done = True
        call.error = error
        if call.waiter is not None:
            self.wakes.append(call.waiter)
        elif call.subscription is not None and error is not None:
            self.watches.fail(call.subscription, error)

    # -- time

    def expire(self, now: float) -> None:
        """End calls past their deadline, send refused ones again when their pause is over, and set `next_due`."""
        self.next_due = NEVER
        for call in list(self._open_calls()):
            if call.deadline <= now:
                self._time_out(call)
            else:
                self.next_due = min(self.next_due, call.deadline)
        while self._resting and (self._resting[0][0] <= now or self._resting[0][2].is_done):
            call = heapq.heappop(self._resting)[2]
            if call.is_done:
                continue
            if call.code == _WATCH_PROGRESS and call.subscription is not None:
                self.submit_progress(call, call.subscription)
            else:
                self.outbox.append(call)
        self.outbox = [call for call in self.outbox if not call.is_done]
        if self._resting:
            self.next_due = min(self.next_due, self._resting[0][0])

    def _open_calls(self) -> Iterator[Call]:
        waiting = chain(self.outbox, (call for _, _, call in self._resting))
        sent = (call for connection in self.connections for call in connection.pending.values())
        return (call for call in chain(waiting, sent) if not call.is_done)

    def _time_out(self, call: Call) -> None:
        timeout = call.timeout
        is_sent = call.connection is not None
        if call.connection is not None:
            # A node answers shortly before its client's deadline; one that has not is left, though its link may stand.
            call.connection.refusals = max(call.connection.refusals, REFUSALS_BEFORE_MOVING)
        error: Exception = timed_out(timeout, call.is_change, is_sent, call.refusal)
        if not is_sent and self.active is None and call.refusal is None:
            error = unreachable(timeout, self.rotation)
        self._withdraw(call)
        self._finish(call, error)

    # -- connections

    def opened(self, connection: Connection) -> None:
        """Note a connection past its hello."""
        self.connections.append(connection)

    def lost(self, connection: Connection, why: str) -> None:
        """End or move all that `connection` carried: what only reads goes on elsewhere."""
        self.connections.remove(connection)
        if connection is self.active:
            self.active = None
        self.rotation.failed(connection.endpoint, why, is_standby=connection.is_standby)
        pending, connection.pending = connection.pending, {}
        self.watches.lost(connection)
        for call in pending.values():
            call.connection = None
            if call.is_change:
                self._finish(call, lost_after_sending(connection.endpoint, why))
            elif call.code == _WATCH_CREATE and call.subscription is not None:
                self.watches.subscribe(call.subscription)
            else:
                self.outbox.append(call)

    def close(self, error: Exception) -> None:
        """End everything that is open with `error`."""
        for call in list(self._open_calls()):
            self._finish(call, error)
        for connection in self.connections:
            for subscription in tuple(connection.subscriptions.values()):
                self.watches.fail(subscription, error)
        self.outbox.clear()
        self._resting.clear()

    # -- what arrives

    def receive(self, connection: Connection, data: bytes, now: float) -> None:
        """Take one message. Raises `ProtocolViolation`, after which the connection is of no use."""
        message = protocol.decode_message(data)
        try:
            if type(message) is protocol.Frame:
                if message.cluster_id != self.cluster_id:
                    self._note_cluster(message.cluster_id)
                if message.leader_id not in (0, self.rotation.leader_id):
                    self._note_leader(message.leader_id)
                if message.kind is ServerMessage.REPLIES:
                    self._take_replies(connection, message, now)
                else:
                    self.revision = max(self.revision, self.watches.take(connection, message.items, now))
            elif type(message) is protocol.Goodbye:
                connection.is_leaving = True
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise ProtocolViolation(f"not a message of coord.v1: {error}") from error

    def _note_cluster(self, found: int) -> None:
        if not found:
            return  # it still has none, and refuses whatever needs one
        if self.cluster_id:
            raise ProtocolViolation(other_cluster(self.cluster_id, found))
        self.cluster_id = found

    def _note_leader(self, leader_id: int) -> None:
        self.rotation.leader_id = leader_id
        for connection in self.connections:
            # Who refused for want of a leader has one again.
            connection.refusals = 0

    def _take_replies(self, connection: Connection, frame: protocol.Frame, now: float) -> None:
        pending, wakes = connection.pending, self.wakes
        highest = self.revision
        for reply in frame.items:
            call = pending.pop(reply[0], None)
            if call is None:
                # Nobody waits any more, or it answers a message of ours that could not be read.
                if reply[0] == 0 and len(reply) > 3:
                    raise ProtocolViolation(f"the node could not read a request: {reply[3][1]}")
                if len(reply) < 4:
                    connection.refusals = 0
                continue
            if len(reply) > 3 and reply[3] is not None:
                self._take_error(connection, call, ApiError.from_wire(reply[3]), now)
                continue
            if reply[1] > highest:
                highest = reply[1]
            connection.refusals = 0
            if call.subscription is not None and not self._take_watch_reply(connection, call, reply[2], now):
                continue
            call.reply = reply
            call.frame = frame
            call.is_done = True
            if call.waiter is not None:
                wakes.append(call.waiter)
        self.revision = highest

    def _take_watch_reply(self, connection: Connection, call: Call, result: Any, now: float) -> bool:
        assert call.subscription is not None
        if call.code == _WATCH_CREATE:
            self.watches.created(connection, call.subscription, result[1])
        elif call.subscription.connection is connection:
            self.watches.progressed(call.subscription, result)
        else:
            # S30: this connection's progress says nothing of a watch that another one carries, or none now.
            self.rest(call, now)
            return False
        return True

    def _take_error(self, connection: Connection, call: Call, error: ApiError, now: float) -> None:
        if not is_clear_refusal(error):
            self._finish(call, error)
            return
        connection.refusals += 1
        if has_no_leader(error):
            connection.refusals = max(connection.refusals, REFUSALS_BEFORE_MOVING)
        call.refusal = error
        self.rest(call, now)


def _requests_frame(calls: list[Call]) -> bytes:
    return protocol.requests_frame([(call.id, call.code, call.timeout_ms, call.arguments) for call in calls])


def _writes_frame(calls: list[Call]) -> bytes:
    ids = [(call.id, call.timeout_ms) for call in calls]
    return protocol.writes_frame(ids, [(0, call.code, call.guard, call.arguments) for call in calls])

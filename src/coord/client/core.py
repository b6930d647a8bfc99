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
from coord.client.endpoints import ANOTHER_TRY_S, REFUSALS_BEFORE_MOVING, Rotation, refusal_pause_s
from coord.client.failing import (
    Verdict,
    forgotten_in_doubt,
    has_no_leader,
    judge,
    lost_after_sending,
    other_cluster,
    timed_out,
    unanswered,
    unreachable,
)
from coord.client.numbering import Numbering
from coord.client.once import Once
from coord.client.watches import Watches
from coord.errors import ApiError, OutcomeUnknown, ProtocolViolation
from coord.limits import REQUEST_TIMEOUT_MS_DEFAULT, REQUESTS_OPEN_PER_CONNECTION
from coord.protocol import client_protocol as protocol
from coord.protocol.ops import Method, Op, ServerMessage

_WATCH_CREATE: Final = int(Method.WATCH_CREATE)
_WATCH_PROGRESS: Final = int(Method.WATCH_PROGRESS)
_CANCEL: Final = int(Method.CANCEL)
_REGISTER: Final = int(Op.REGISTER)
_REPLIES: Final = int(ServerMessage.REPLIES)


@define(eq=False)
class ClientCore:
    """All calls, watches and connections of a client."""

    rotation: Rotation
    is_numbering: bool = True
    """Its writes are numbered, so that they may be sent again (S18)."""
    cluster_id: int = 0
    revision: int = 0
    """The highest revision seen (S29)."""
    active: Connection | None = None
    """Where calls are sent."""
    connections: list[Connection] = field(factory=list)
    outbox: list[Call] = field(factory=list)
    """Calls to send now; writes that were never sent wait in `once`."""
    wakes: list[Any] = field(factory=list)
    """Waiters of calls and watches that something happened to; the driver takes and wakes them."""
    next_due: float = NEVER
    """Nothing is due before this; `expire` does what is due then."""
    watches: Watches = field(init=False)
    once: Once = field(init=False)
    next_id: Callable[[], int] = field(factory=lambda: count(1).__next__)
    """Makes request ids and watch ids."""
    _resting: list[tuple[float, int, Call]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.watches = Watches(self)
        self.once = Once(self.submit, self.next_id)

    # -- calls

    def submit(self, call: Call) -> None:
        """Take a call; it leaves with the next frames."""
        if call.is_write and self.is_numbering and call.code != _REGISTER:
            self.once.submit(call)
        else:
            self.outbox.append(call)
        self._note_due(call)

    def _note_due(self, call: Call) -> None:
        due = call.deadline if call.deadline < call.ask_again_at else call.ask_again_at
        if due < self.next_due:
            self.next_due = due

    @property
    def has_frames(self) -> bool:
        """True if there is something to send."""
        if self.outbox or (self.once.waiting and self.once.has_work):
            return True
        for connection in self.connections:  # noqa: SIM110  # a generator costs a lone call a microsecond
            if connection.orders:
                return True
        return False

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
            self._finish(call, timed_out(call.timeout, call.is_in_doubt, call.refusal, call.doubt))
            return
        _shorten(call, due)
        if call.is_register:
            # The write that it was first sent for may have had too little time for any answer; others wait behind it.
            call.timeout_ms = max(call.timeout_ms, min(2 * call.timeout_ms, REQUEST_TIMEOUT_MS_DEFAULT))
        heapq.heappush(self._resting, (due, call.id, call))
        self.next_due = min(self.next_due, due)

    def abandon(self, call: Call) -> None:
        """Forget a call whose caller was cancelled; a write that was sent may still happen."""
        if not call.is_done:
            # S18: a cancelled number counts as closed, so that what was sent of it is settled by the next write.
            call.close()
            self._withdraw(call)

    def _withdraw(self, call: Call) -> None:
        connection = call.connection
        if connection is None or connection.pending.pop(call.id, None) is None:
            return
        if not call.is_write:
            connection.orders.append((self.next_id(), _CANCEL, 0, (call.id,)))

    def frame_of(self, call: Call, connection: Connection) -> bytes | None:
        """Take a call that leaves at once, alone, and return its frame; None if it has to wait, and is to be submitted.

        Raises what makes it one that no node would take.
        """
        if connection is not self.active or connection.is_leaving:
            return None
        if call.is_write and self.is_numbering and not self.once.number(call):
            return None
        try:
            frame = _lone_frame(call)
        except Exception:
            call.close()
            raise
        call.connection = connection
        call.sends = 1
        connection.pending[call.id] = call
        self._note_due(call)
        return frame

    def take_frames(self, connection: Connection) -> list[bytes]:
        """Return the frames to send on `connection` now."""
        requests, connection.orders = connection.orders, []
        frames = [protocol.requests_frame(requests)] if requests else []
        if connection is not self.active or connection.is_leaving:
            return frames
        # Requests for progress go to their watch's connection however much is open there.
        room = max(REQUESTS_OPEN_PER_CONNECTION - len(connection.pending), 0)
        calls, self.outbox = self.outbox, []
        if len(calls) > room:
            calls, self.outbox = calls[:room], calls[room:]
        if self.once.waiting:
            calls += self.once.take(room - len(calls))
        reads: list[Call] = []
        writes: dict[Numbering | None, list[Call]] = {}
        for call in calls:
            # One that was cancelled or timed out while it waited here is done.
            if not call.is_done:
                call.connection = connection
                call.sends += 1
                connection.pending[call.id] = call
                if not call.is_write:
                    reads.append(call)
                elif call.code == _REGISTER:
                    frames += self._frames([call], _writes_frame)
                else:
                    writes.setdefault(call.numbering, []).append(call)
        if reads:
            frames += self._frames(reads, _requests_frame)
        for of_one_client in writes.values():
            frames += self._frames(of_one_client, _writes_frame)
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
        call.close()
        call.error = error
        if call.is_register:
            for write in self.once.unregistered():
                self._finish(write, error)
        if call.waiter is not None:
            self.wakes.append(call.waiter)
        elif call.subscription is not None and error is not None:
            self.watches.fail(call.subscription, error)

    # -- time

    def expire(self, now: float) -> None:
        """End calls past their deadline, send refused and unanswered ones again, and set `next_due`."""
        self.next_due = NEVER
        for call in list(self._open_calls()):
            if call.deadline <= now:
                self._time_out(call)
                continue
            if call.ask_again_at <= now:
                self._ask_again(call, now)
            self.next_due = min(self.next_due, call.deadline, call.ask_again_at)
        while self._resting and (self._resting[0][0] <= now or self._resting[0][2].is_done):
            call = heapq.heappop(self._resting)[2]
            if call.is_done:
                continue
            if call.code == _WATCH_PROGRESS and call.subscription is not None:
                self.submit_progress(call, call.subscription)
            else:
                self.outbox.append(call)
        self.outbox = [call for call in self.outbox if not call.is_done]
        self.once.prune()
        if self._resting:
            self.next_due = min(self.next_due, self._resting[0][0])

    def _open_calls(self) -> Iterator[Call]:
        waiting = chain(self.outbox, self.once.waiting, (call for _, _, call in self._resting))
        sent = (call for connection in self.connections for call in connection.pending.values())
        return (call for call in chain(waiting, sent) if not call.is_done)

    def _ask_again(self, call: Call, now: float) -> None:
        """Leave a node that has not answered for another one, where there is one and asking twice does no harm."""
        call.patience_s *= 2
        call.ask_again_at = now + call.patience_s
        silent = call.connection
        if (
            silent is None
            or not call.may_repeat
            or not any(other is not silent and not other.is_unfit for other in self.connections)
        ):
            return
        silent.is_silent = True
        self._withdraw(call)
        self._send_again(call, now, f"no answer from {silent.endpoint}")
        # Its former id may still be open there.
        call.id = self.next_id()

    def _send_again(self, call: Call, now: float, why: str) -> None:
        """Send a call once more of which a sending was not answered."""
        call.connection = None
        if call.is_write:
            call.doubt = why
        _shorten(call, now)
        self.outbox.append(call)

    def _time_out(self, call: Call) -> None:
        timeout = call.timeout
        is_sent = call.connection is not None
        refusal = call.refusal
        if call.connection is not None:
            # A node answers shortly before its client's deadline; one that has not is left, though its link may stand.
            call.connection.refusals = max(call.connection.refusals, REFUSALS_BEFORE_MOVING)
        elif call.is_write and not call.sends:
            refusal = refusal or self.once.refusal()
        is_in_doubt = call.is_in_doubt or (call.is_change and is_sent)
        error: Exception = timed_out(timeout, is_in_doubt, refusal, call.doubt)
        if not is_sent and not call.is_in_doubt and self.active is None and refusal is None:
            error = unreachable(timeout, self.rotation)
        self._withdraw(call)
        self._finish(call, error)

    # -- connections

    def opened(self, connection: Connection) -> None:
        """Note a connection past its hello."""
        self.connections.append(connection)

    def lost(self, connection: Connection, why: str, now: float) -> None:
        """Move all that `connection` carried, or end it where asking twice could do it twice."""
        self.connections.remove(connection)
        if connection is self.active:
            self.active = None
        self.rotation.failed(connection.endpoint, why, is_standby=connection.is_standby)
        pending, connection.pending = connection.pending, {}
        self.watches.lost(connection)
        for call in pending.values():
            if not call.may_repeat:
                self._finish(call, lost_after_sending(connection.endpoint, why))
            elif call.code == _WATCH_CREATE and call.subscription is not None:
                self.watches.subscribe(call.subscription)
            else:
                self._send_again(call, now, unanswered(connection.endpoint, why))

    def close(self, error: Exception) -> None:
        """End everything that is open with `error`."""
        for call in list(self._open_calls()):
            self._finish(call, error)
        for connection in self.connections:
            for subscription in tuple(connection.subscriptions.values()):
                self.watches.fail(subscription, error)
        self.outbox.clear()
        self.once.waiting.clear()
        self._resting.clear()

    # -- what arrives

    def receive(self, connection: Connection, data: bytes, now: float) -> None:
        """Take one message. Raises `ProtocolViolation`, after which the connection is of no use."""
        message = protocol.decode_message(data)
        connection.is_silent = False
        try:
            if type(message) is protocol.Frame:
                if message.cluster_id != self.cluster_id:
                    self._note_cluster(message.cluster_id)
                if message.leader_id not in (0, self.rotation.leader_id):
                    self._note_leader(message.leader_id)
                if message.kind == _REPLIES:
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
                self._take_error(connection, call, reply, now)
                continue
            if reply[1] > highest:
                highest = reply[1]
            connection.refusals = 0
            if call.subscription is not None and not self._take_watch_reply(connection, call, reply[2], now):
                continue
            call.reply = reply
            call.frame = frame
            call.close()
            if call.waiter is not None:
                wakes.append(call.waiter)
            elif call.is_register:
                self.once.registered(reply[2])
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

    def _take_error(self, connection: Connection, call: Call, reply: Any, now: float) -> None:
        error = ApiError.from_wire(reply[3])
        error.revision = reply[1]
        is_recognized = call.is_write and call.may_repeat
        verdict = judge(error, is_recognized=is_recognized, is_in_doubt=call.is_in_doubt)
        if verdict is Verdict.FINAL:
            self._finish(call, error)
        elif verdict is Verdict.FORGOTTEN:
            self._forgotten(call)
        else:
            connection.refusals += 1
            if has_no_leader(error):
                connection.refusals = max(connection.refusals, REFUSALS_BEFORE_MOVING)
            if isinstance(error, OutcomeUnknown):
                call.doubt = error.text
            call.refusal = error
            self.rest(call, now)

    def _forgotten(self, call: Call) -> None:
        if call.is_in_doubt:
            self._finish(call, forgotten_in_doubt())
        else:
            self.once.forgotten(call)


def _shorten(call: Call, now: float) -> None:
    """Tell the next node no more than what is left of a call's time."""
    call.timeout_ms = min(call.timeout_ms, protocol.milliseconds(call.deadline - now))


def _lone_frame(call: Call) -> bytes:
    """Return what the two below do, without lists of one."""
    if not call.is_write:
        return protocol.requests_frame(((call.id, call.code, call.timeout_ms, call.arguments),))
    numbering = call.numbering
    client, low = (numbering.client_id, numbering.low) if numbering is not None else (0, 0)
    write = (call.number, call.code, call.guard, call.arguments)
    return protocol.writes_frame(((call.id, call.timeout_ms),), (write,), client, low)


def _requests_frame(calls: list[Call]) -> bytes:
    return protocol.requests_frame([(call.id, call.code, call.timeout_ms, call.arguments) for call in calls])


def _writes_frame(calls: list[Call]) -> bytes:
    numbering = calls[0].numbering
    client, low = (numbering.client_id, numbering.low) if numbering is not None else (0, 0)
    ids = [(call.id, call.timeout_ms) for call in calls]
    writes = [(call.number, call.code, call.guard, call.arguments) for call in calls]
    return protocol.writes_frame(ids, writes, client, low)

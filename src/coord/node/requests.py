"""Requests that are no writes: what each method of coord.cddl does.

Reads become a `Read`, whose `serve` runs when a round confirms that the state here is current. Renewing a lease waits
for a round as well, because of S22, and so does a watch that names no start revision, so that "from now on" means
behind every acknowledged write. One that names it is made at once, as long as there is a leader (S30). What rests on
the leader's clock, or changes the members, goes to the leader (`Calls`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from attrs import define, field

from coord import errors
from coord.codec import encode
from coord.errors import ApiError, InvalidArgument, Unimplemented
from coord.limits import REQUEST_TIMEOUT_MS_MAX
from coord.mvcc.machine import StateMachine
from coord.mvcc.ranges import encode_range
from coord.node.calls import Calls
from coord.node.changes import Changes
from coord.node.leases import LeaseReaper
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.reads import Read, Reader
from coord.node.replies import reply_error, reply_value
from coord.node.watch_delivery import Life, Watch
from coord.node.watches import Broadcaster
from coord.protocol.ops import MEMBER_CHANGES, Method
from coord.protocol.ranges import RangeRequest, parse_range

_Handler = Callable[[Sink, int, float, list[Any]], None]


@define
class Requests:
    """Takes requests apart and gives them to the actors. `status` is the result of Method.STATUS."""

    machine: StateMachine
    reader: Reader
    leases: LeaseReaper
    watches: Broadcaster
    outbox: Outbox
    clock: Callable[[], float]
    request_timeout_s: float
    max_txn_ops: int
    status: Callable[[], list[Any]]
    calls: Calls
    changes: Changes
    _handlers: dict[int, _Handler] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._handlers = {
            Method.RANGE: self._range,
            Method.TXN: self._txn,
            Method.LEASE_TIME_TO_LIVE: self._time_to_live,
            Method.LEASE_LEASES: self._lease_list,
            Method.LEASE_KEEP_ALIVE: self._keep_alive,
            Method.WATCH_CREATE: self._watch_create,
            Method.WATCH_CANCEL: self._watch_cancel,
            Method.WATCH_PROGRESS: self._watch_progress,
            Method.CANCEL: self._cancel,
            Method.STATUS: self._status,
            Method.MEMBER_LIST: self._member_list,
            Method.HASH_KV: self._hash_kv,
            Method.ALARM_LIST: self._alarm_list,
        }
        for method in MEMBER_CHANGES:
            self._handlers[method] = partial(self._change, method)

    def take(self, sink: Sink, request_id: int, method: int, timeout_ms: int, arguments: list[Any]) -> None:
        """Handle one request; whatever is wrong with it becomes its reply."""
        handler = self._handlers.get(method)
        timeout_s = min(timeout_ms, REQUEST_TIMEOUT_MS_MAX) / 1000 if timeout_ms else self.request_timeout_s
        try:
            if handler is None:
                raise Unimplemented(f"unknown method {method}")
            handler(sink, request_id, self.clock() + timeout_s, arguments)
        except ApiError as error:
            self.outbox.reply(sink, reply_error(request_id, self.machine.revision, error))

    def _range(self, sink: Sink, request_id: int, deadline: float, arguments: list[Any]) -> None:
        if len(arguments) == 1 and type(arguments[0]) is bytes and arguments[0]:
            self.reader.linearizable(Read(sink, request_id, deadline, partial(self._get, arguments[0])))
            return
        request = parse_range(arguments)
        read = Read(sink, request_id, deadline, partial(self._serve_range, request), request.min_revision)
        if request.serializable:
            self.reader.serializable(read)
        else:
            self.reader.linearizable(read)

    def _get(self, key: bytes) -> bytes:
        self.reader.ranges_served += 1
        record = self.machine.get(key)
        return encode_range(([], False, 0) if record is None else ([record], False, 1))

    def _serve_range(self, request: RangeRequest) -> bytes | Generator[None, None, bytes]:
        return self._get(request.key) if request.is_plain_get else self.reader.range(request)

    def _txn(self, sink: Sink, request_id: int, deadline: float, arguments: list[Any]) -> None:
        serve, is_serializable = self.machine.read_txn(arguments, self.max_txn_ops)
        read = Read(sink, request_id, deadline, serve)
        if is_serializable:
            ranges = [inner for branch in arguments[1:] for _, inner in branch]
            read.min_revision = max(inner[13] if len(inner) > 13 else 0 for inner in ranges)
            self.reader.serializable(read)
        else:
            self.reader.linearizable(read)

    def _time_to_live(self, sink: Sink, request_id: int, deadline: float, arguments: list[Any]) -> None:
        lease = _integer(arguments, 0, "id")
        with_keys = _boolean(arguments, 1, "keys")
        _at_most(arguments, 2)

        def serve() -> bytes | None:
            if not self.leases.is_leading:
                self._elsewhere(sink, request_id, deadline, Method.LEASE_TIME_TO_LIVE, arguments)
                return None
            granted_s = self.machine.lease_ttl(lease)
            if not granted_s:
                return encode([lease, -1, 0, []])
            keys = self.machine.lease_keys(lease) if with_keys else []
            return encode([lease, self.leases.remaining_s(lease), granted_s, keys])

        self._on_leader(Read(sink, request_id, deadline, serve), Method.LEASE_TIME_TO_LIVE, arguments)

    def _lease_list(self, sink: Sink, request_id: int, deadline: float, arguments: list[Any]) -> None:
        _at_most(arguments, 0)
        self.reader.linearizable(Read(sink, request_id, deadline, lambda: encode(self.leases.ordered())))

    def _keep_alive(self, sink: Sink, request_id: int, deadline: float, arguments: list[Any]) -> None:
        _at_most(arguments, 1)
        ids = arguments[0] if arguments else None
        if type(ids) is not list or not ids or not all(type(lease) is int for lease in ids):
            raise InvalidArgument("lease-keep-alive needs a list of lease ids")
        read = Read(sink, request_id, deadline, lambda: self._renew(read, arguments))
        self._on_leader(read, Method.LEASE_KEEP_ALIVE, arguments)

    def _on_leader(self, read: Read, method: Method, arguments: list[Any]) -> None:
        """Have the round's confirmation looked at where the lease's clock runs."""
        if self.calls.is_here:
            self.reader.linearizable(read)
        else:
            self.calls.forward(read.sink, read.request_id, read.deadline, method, arguments)

    def _elsewhere(self, sink: Sink, request_id: int, deadline: float, method: Method, arguments: list[Any]) -> None:
        # S9: it led when it took the request, and no longer does. What it believes of its leases means nothing.
        self.calls.forward(sink, request_id, deadline, method, arguments)

    def _renew(self, read: Read, arguments: list[Any]) -> bytes | None:
        if not self.leases.is_leading:
            self._elsewhere(read.sink, read.request_id, read.deadline, Method.LEASE_KEEP_ALIVE, arguments)
            return None
        ids: list[int] = arguments[0]
        if expiring := self.leases.is_expiring(ids):
            # The expiry is in the log: what it does decides the answer, and that is known soon.
            self.reader.park(read, lambda: not self.leases.is_expiring([expiring]))
        elif missed := self.leases.clear_checkpoints(ids):
            self.reader.park(read, lambda: not self.leases.is_clearing(missed))
        else:
            return encode(self.leases.renew(ids))
        return None

    def _watch_create(self, sink: Sink, request_id: int, deadline: float, arguments: list[Any]) -> None:
        watch = _parse_watch(sink, arguments)

        def serve() -> bytes:
            start = self.watches.create(watch)
            return encode([watch.id, start])

        read = Read(sink, request_id, deadline, serve)
        if watch.next_revision > 0 and self.reader.is_led:
            self.reader.serializable(read)
        else:
            self.reader.linearizable(read)

    def _watch_cancel(self, sink: Sink, request_id: int, deadline: float, arguments: list[Any]) -> None:
        watch_id = _integer(arguments, 0, "watch-id")
        _at_most(arguments, 1)
        existed = self.watches.cancel(sink, watch_id)
        self.outbox.reply(sink, reply_value(request_id, self.machine.revision, existed))

    def _watch_progress(self, sink: Sink, request_id: int, deadline: float, arguments: list[Any]) -> None:
        _at_most(arguments, 0)

        def answer(revision: int | None) -> None:
            if revision is None:
                reply = reply_error(request_id, self.machine.revision, errors.request_timed_out())
            else:
                reply = reply_value(request_id, self.machine.revision, revision)
            self.outbox.reply(sink, reply)

        self.watches.when_current(sink, deadline, answer)

    def _cancel(self, sink: Sink, request_id: int, deadline: float, arguments: list[Any]) -> None:
        # No reply of its own; a write cannot be called back and answers as if nothing had been said.
        if arguments and type(arguments[0]) is int:
            self.reader.cancel(sink, arguments[0])
            self.calls.cancel(sink, arguments[0])

    def _change(self, method: Method, sink: Sink, request_id: int, deadline: float, arguments: list[Any]) -> None:
        if self.calls.is_here:
            self.changes.take(sink, request_id, deadline, method, arguments)
        else:
            self.calls.forward(sink, request_id, deadline, method, arguments)

    def _status(self, sink: Sink, request_id: int, deadline: float, arguments: list[Any]) -> None:
        _at_most(arguments, 0)
        self.outbox.reply(sink, reply_value(request_id, self.machine.revision, self.status()))

    def _member_list(self, sink: Sink, request_id: int, deadline: float, arguments: list[Any]) -> None:
        linearizable = _boolean(arguments, 0, "linearizable")
        _at_most(arguments, 1)
        read = Read(sink, request_id, deadline, self._members)
        if linearizable:
            self.reader.linearizable(read)
        else:
            self.reader.serializable(read)

    def _members(self) -> bytes:
        members = sorted(self.machine.members.values(), key=lambda member: member.id)
        return encode([member.to_wire() for member in members])

    def _hash_kv(self, sink: Sink, request_id: int, deadline: float, arguments: list[Any]) -> None:
        revision = _integer(arguments, 0, "revision") if arguments else 0
        _at_most(arguments, 1)
        self.reader.linearizable(Read(sink, request_id, deadline, lambda: self._hash(revision)))

    def _hash(self, revision: int) -> Generator[None, None, bytes]:
        at = revision if revision > 0 else self.machine.revision
        if at > self.machine.revision:
            raise errors.future_revision()
        hashed, compact_revision = yield from self.machine.hash_kv(at)
        return encode([hashed, compact_revision, at])

    def _alarm_list(self, sink: Sink, request_id: int, deadline: float, arguments: list[Any]) -> None:
        _at_most(arguments, 0)
        read = Read(sink, request_id, deadline, lambda: encode([list(alarm) for alarm in sorted(self.machine.alarms)]))
        self.reader.linearizable(read)


def _parse_watch(sink: Sink, arguments: list[Any]) -> Watch:
    _at_most(arguments, 9)
    key = arguments[0] if arguments else b""
    range_end = arguments[1] if len(arguments) > 1 else b""
    if type(key) is not bytes or type(range_end) is not bytes:
        raise InvalidArgument("watch-create: key and range-end are byte strings")
    start = _integer(arguments, 2, "start-revision") if len(arguments) > 2 else 0
    watch_id = _integer(arguments, 3, "watch-id") if len(arguments) > 3 else 0
    if watch_id < 0:
        raise InvalidArgument(f"watch-create: watch-id {watch_id} is negative")
    names = ("no-put", "no-delete", "prev-kv", "progress-notify", "fragment")
    no_put, no_delete, prev_kv, progress_notify, fragment = (
        _boolean(arguments, 4 + place, name) for place, name in enumerate(names)
    )
    return Watch(
        Life(sink),
        key or b"\0",
        range_end,
        id=watch_id,
        next_revision=start,
        no_put=no_put,
        no_delete=no_delete,
        prev_kv=prev_kv,
        progress_notify=progress_notify,
        fragment=fragment,
    )


def _integer(arguments: list[Any], place: int, name: str) -> int:
    value = arguments[place] if len(arguments) > place else None
    if type(value) is float:
        raise InvalidArgument(f"{name} is a float ({value!r}); an integer belongs there")
    if type(value) is not int:
        raise InvalidArgument(f"{name} is missing or no integer")
    return value


def _boolean(arguments: list[Any], place: int, name: str) -> bool:
    value = arguments[place] if len(arguments) > place else False
    if type(value) is not bool:
        raise InvalidArgument(f"{name} is no boolean")
    return value


def _at_most(arguments: list[Any], count: int) -> None:
    if len(arguments) > count:
        raise Unimplemented(f"this node does not know item {count + 1} of the arguments: {arguments[count]!r:.40}")

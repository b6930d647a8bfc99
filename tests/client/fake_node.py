"""A node that keeps its keys in a dict and speaks coord.v1, with the faults that tests ask for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, field

from coord.codec import decode, encode
from coord.errors import ApiError, ClientExpired, FenceLost, NotFound, SequenceClosed, compacted
from coord.protocol.bodies import writes_of
from coord.protocol.ops import MEMBER_CHANGES, ClientMessage, Method, Op, ServerMessage
from coord.protocol.server_protocol import write_ids

CLUSTER = 0xC0FFEE


@define
class FakeNode:
    """One node, or the state of several that serve the same keys."""

    member_id: int = 7
    cluster_id: int = CLUSTER
    leader_id: int = 0
    revision: int = 1
    compact_revision: int = 0
    keys: dict[bytes, list[Any]] = field(factory=dict)
    history: list[tuple[int, list[Any]]] = field(factory=list)
    leases: dict[int, int] = field(factory=dict)
    alarms: list[list[int]] = field(factory=list)
    sessions: list[Session] = field(factory=list)
    frames: list[tuple[str, int]] = field(factory=list)
    """Every message of requests or writes: which, and how many items."""
    refusals: list[ApiError] = field(factory=list)
    """Answers to the next requests and writes, instead of serving them."""
    records: dict[int, dict[int, list[Any]]] = field(factory=dict)
    """What was answered to the numbers of each registered client."""
    lows: dict[int, int] = field(factory=dict)
    applied: list[tuple[int, int]] = field(factory=list)
    """Client id and number of every numbered write that was applied."""
    is_silent: bool = False
    """Serves, but keeps its answers."""
    fragments: bool = False
    """Sends every revision in two parts."""
    reads: list[list[Any]] = field(factory=list)
    learners: list[list[Any]] = field(factory=list)
    changes: list[list[Any]] = field(factory=list)
    """Every change of the members: its method and arguments."""

    def apply(self, events: list[Any]) -> None:
        self.history.append((self.revision, events))
        for session in list(self.sessions):
            session.notify(self.revision, events)

    def put(self, key: bytes, value: bytes, lease: int = 0, *rest: bool) -> Any:
        prev_kv, ignore_value, ignore_lease = (*rest, False, False, False)[:3]
        before = self.keys.get(key)
        if lease and lease not in self.leases:
            raise NotFound("etcdserver: requested lease not found")
        self.revision += 1
        create, version = (before[1], before[3] + 1) if before else (self.revision, 1)
        value = before[5] if ignore_value and before else value
        lease = before[4] if ignore_lease and before else lease
        self.keys[key] = [key, create, self.revision, version, lease, value]
        self.apply([[0, self.keys[key], before]])
        return before if prev_kv else None

    def delete(self, key: bytes, end: bytes = b"", prev_kv: bool = False) -> Any:
        gone = self.select(key, end)
        if gone:
            self.revision += 1
            for kv in gone:
                del self.keys[kv[0]]
            self.apply([[1, [kv[0], 0, self.revision, 0, 0, b""], kv] for kv in gone])
        return [len(gone), gone if prev_kv else []]

    def select(self, key: bytes, end: bytes) -> list[list[Any]]:
        return [self.keys[one] for one in sorted(self.keys) if is_in(one, key, end)]

    def range(self, key: bytes, end: bytes = b"", limit: int = 0, revision: int = 0, *rest: Any) -> Any:
        self.reads.append([key, end, limit, revision, *rest])
        if 0 < revision < self.compact_revision:
            raise compacted(self.compact_revision)
        found = self.select(key, end)
        cut = found[:limit] if limit else found
        return [cut, len(cut) < len(found), len(found)]

    def txn(self, compares: list[Any], success: list[Any], failure: list[Any]) -> Any:
        succeeded = all(self.holds(*compare) for compare in compares)
        results = []
        for code, arguments in success if succeeded else failure:
            result = self.operations()[code](*arguments)
            results.append([code, self.revision, result])
        return [succeeded, results]

    def holds(self, target: int, result: int, key: bytes, operand: Any, _end: bytes = b"") -> bool:
        kv = self.keys.get(key, [key, 0, 0, 0, 0, b""])
        actual = [kv[3], kv[1], kv[2], kv[5], kv[4]][target]
        return bool([actual == operand, actual > operand, actual < operand, actual != operand][result])

    def operations(self) -> dict[int, Callable[..., Any]]:
        return {Op.PUT: self.put, Op.DELETE_RANGE: self.delete, Op.TXN: self.txn, Op.RANGE: self.range}

    def grant(self, ttl_s: int, lease: int = 0) -> Any:
        lease = lease or 1000 + len(self.leases)
        self.leases[lease] = ttl_s
        return [lease, ttl_s]

    def revoke(self, lease: int) -> None:
        if self.leases.pop(lease, None) is None:
            raise NotFound("etcdserver: requested lease not found")

    def register(self) -> int:
        client = 5000 + len(self.records)
        self.records[client], self.lows[client] = {}, 1
        return client

    def compact(self, revision: int, _physical: bool = False) -> None:
        self.compact_revision = revision

    def disarm(self, _action: int, _member: int, _alarm: int) -> Any:
        was, self.alarms = self.alarms, []
        return was

    def guarded(self, guard: list[Any] | None, op: int, arguments: list[Any]) -> Any:
        if guard is not None and self.keys.get(guard[0], [b"", 0])[1] != guard[1]:
            raise FenceLost("coord: fence lost", *guard)
        return self.write(op, arguments)

    def write(self, op: int, arguments: list[Any]) -> Any:
        others: dict[int, Callable[..., Any]] = {
            Op.COMPACT: self.compact,
            Op.LEASE_GRANT: self.grant,
            Op.LEASE_REVOKE: self.revoke,
            Op.ALARM: self.disarm,
        }
        return {**self.operations(), **others}[op](*arguments)

    def members(self) -> list[list[Any]]:
        own = [self.member_id, "n1", ["http://127.0.0.1:7380"], ["http://127.0.0.1:7379"], False]
        return [own, *self.learners]

    def change(self, method: int, *arguments: Any) -> Any:
        self.changes.append([method, *arguments])
        if method == Method.MOVE_LEADER:
            return arguments[0] or 9
        if method == Method.MEMBER_ADD:
            self.learners.append([2**64 - 1, "", arguments[0], [], True, 0, not arguments[1]])
            return [self.learners[-1], self.members()]
        if arguments[0] == 404:
            raise NotFound("etcdserver: member not found")
        if method == Method.MEMBER_REMOVE:
            self.learners = [row for row in self.learners if row[0] not in arguments[0]]
        for row in self.learners:
            if method == Method.MEMBER_UPDATE and row[0] == arguments[0]:
                row[2] = arguments[1]
            if method == Method.MEMBER_PROMOTE and row[0] == arguments[0]:
                row[4] = False
        return self.members()

    def ask(self, method: int, arguments: list[Any]) -> Any:
        if method in MEMBER_CHANGES:
            return self.change(method, *arguments)
        answers: dict[int, Callable[..., Any]] = {
            Method.RANGE: self.range,
            Method.TXN: self.txn,
            Method.LEASE_TIME_TO_LIVE: lambda lease, keys=False: [
                lease,
                self.leases.get(lease, -1),
                self.leases.get(lease, 0),
                [kv[0] for kv in self.keys.values() if keys and kv[4] == lease],
            ],
            Method.LEASE_LEASES: lambda: sorted(self.leases),
            Method.LEASE_KEEP_ALIVE: lambda ids: [[one, self.leases.get(one, 0)] for one in ids],
            Method.STATUS: lambda: ["0.1.0", 10, 5, 100, self.leader_id, 9, 3, 9, [], False, "from a later release"],
            Method.MEMBER_LIST: lambda _linearizable=True: self.members(),
            Method.HASH_KV: lambda revision=0: [0xABCD, -1, revision or self.revision],
            Method.ALARM_LIST: lambda: self.alarms,
        }
        return answers[method](*arguments)


@define(eq=False, slots=False)
class Session:
    """One connection to a node: `send` takes a message for the client, `hang_up` ends the connection."""

    node: FakeNode
    send: Callable[[bytes], None]
    hang_up: Callable[[], None]
    watches: dict[int, list[Any]] = field(factory=dict)
    requests: list[tuple[int, list[Any]]] = field(factory=list)
    withheld: list[list[Any]] = field(factory=list)
    hello: list[Any] = field(factory=list)

    def open(self) -> None:
        self.node.sessions.append(self)
        node = self.node
        hello = [0, 1, node.cluster_id, node.member_id, "n1", "0.1.0", 1536 * 1024, 128, 1024, "more"]
        self.send(encode(hello))

    def close(self) -> None:
        if self in self.node.sessions:
            self.node.sessions.remove(self)

    def receive(self, data: bytes) -> None:
        message = decode(data)
        if message[0] == ClientMessage.HELLO:
            self.hello = message
        elif message[0] == ClientMessage.REQUESTS:
            self.node.frames.append(("requests", len(message[1])))
            replies = []
            for number, method, _, arguments in message[1]:
                replies.append(self.serve(number, self.request, method, arguments))
                if self.due:
                    # History stands behind the answer to the creation, and before that to a request for progress.
                    self.answer(replies)
                    replies = []
            self.answer(replies)
        else:
            writes = writes_of(decode(message[4]))
            if any(write[1] != Op.REGISTER for write in writes):
                self.node.frames.append(("writes", len(writes)))
            ids = [one for one, _ in write_ids(message[3]) or ()]
            client, low = message[1], message[2]
            if client in self.node.records:
                self.node.lows[client] = max(low, self.node.lows.get(client, 1))
            self.answer([self.write(number, client, write) for number, write in zip(ids, writes, strict=True)])

    def write(self, request: int, client: int, write: list[Any]) -> Any:
        number, op, guard, arguments = write
        if op == Op.REGISTER:
            return [request, self.node.revision, self.node.register()]
        if not client or self.node.refusals:
            return self.serve(request, partial(self.node.guarded, guard), op, arguments)
        record = self.node.records.get(client)
        if record is None:
            return [request, self.node.revision, None, ClientExpired("coord: register anew").to_wire()]
        if number < self.node.lows[client]:
            return [request, self.node.revision, None, SequenceClosed("coord: closed").to_wire()]
        if number not in record:
            self.node.applied.append((client, number))
            record[number] = self.serve(request, partial(self.node.guarded, guard), op, arguments)
        return [request, *record[number][1:]]

    def serve(self, number: int, how: Callable[[int, list[Any]], Any], code: int, arguments: list[Any]) -> Any:
        if code == Method.CANCEL or code == Method.WATCH_CANCEL:
            return self.request(code, arguments)
        try:
            if self.node.refusals:
                return [number, 0, None, self.node.refusals.pop(0).to_wire()]
            result = how(code, arguments)
            return [number, self.node.revision, result]
        except ApiError as error:
            return [number, self.node.revision, None, error.to_wire()]

    def answer(self, replies: list[Any]) -> None:
        replies = [reply for reply in replies if reply]
        if self.node.is_silent:
            self.withheld += replies
        elif replies:
            self.send_replies(replies)

    def release(self) -> None:
        replies, self.withheld = self.withheld, []
        self.send_replies(replies)

    def send_replies(self, replies: list[Any]) -> None:
        node = self.node
        self.send(encode([int(ServerMessage.REPLIES), node.cluster_id, node.member_id, 3, node.leader_id, replies]))
        for notification in self.due:
            self.send_notifications([notification])
        self.due.clear()

    due: list[Any] = field(factory=list)

    def send_notifications(self, items: list[Any]) -> None:
        node = self.node
        kind = int(ServerMessage.NOTIFICATIONS)
        self.send(encode([kind, node.cluster_id, node.member_id, 3, node.leader_id, items]))

    def request(self, method: int, arguments: list[Any]) -> Any:
        self.requests.append((method, arguments))
        if method == Method.WATCH_CREATE:
            return self.create(*arguments)
        if method == Method.WATCH_CANCEL:
            self.watches.pop(arguments[0], None)
            return None
        if method == Method.WATCH_PROGRESS:
            return self.node.revision
        if method == Method.CANCEL:
            self.withheld = [reply for reply in self.withheld if reply[0] != arguments[0]]
            return None
        return self.node.ask(method, arguments)

    def create(self, key: bytes, end: bytes, start: int, watch_id: int, *filters: bool) -> Any:
        if 0 < start < self.node.compact_revision:
            self.due.append([2, [watch_id], self.node.compact_revision, ""])
            return [watch_id, start]
        self.watches[watch_id] = [key, end, *filters]
        start = start or self.node.revision + 1
        for revision, events in self.node.history:
            if revision >= start:
                self.due += self.parts([watch_id], revision, self.matching(watch_id, events))
        return [watch_id, start]

    def matching(self, watch_id: int, events: list[Any]) -> list[Any]:
        key, end, no_put, no_delete, prev_kv, *_ = self.watches[watch_id]
        return [
            [kind, kv, before if prev_kv else None]
            for kind, kv, before in events
            if is_in(kv[0], key, end) and not (no_put if kind == 0 else no_delete)
        ]

    def parts(self, ids: list[int], revision: int, events: list[Any]) -> list[Any]:
        if not events:
            return []
        if self.node.fragments and len(events) > 1:
            return [[0, ids, revision, events[:1], True], [0, ids, revision, events[1:], False, "more"]]
        return [[0, ids, revision, events]]

    def notify(self, revision: int, events: list[Any]) -> None:
        for watch_id in list(self.watches):
            for part in self.parts([watch_id], revision, self.matching(watch_id, events)):
                self.send_notifications([part])


def is_in(key: bytes, start: bytes, end: bytes) -> bool:
    return key == start if not end else key >= start and (end == b"\0" or key < end)

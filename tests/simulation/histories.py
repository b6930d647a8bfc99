"""Histories of a perfect server, for the checkers to accept, and to be spoilt by their tests."""

from __future__ import annotations

import random
from typing import Any

from attrs import define, field

from coord.codec import encode
from coord.protocol.entries import Frame, WritesHeader, encode_entry, encode_writes
from coord.protocol.ops import EntryKind, Op, Settled
from coord.testing.history import History, Kind, Operation, WatchEvents, WatchProgress, WatchRecord
from coord.testing.history_check import check_history
from coord.testing.history_ledger import Ledger, ReplayModel, replay
from coord.testing.lease_check import check_leases
from coord.testing.linearizability import check_linearizable
from coord.testing.watch_check import check_watches

KEYS = (b"a", b"b", b"c")
EVERYTHING = (b"\0", b"\0")


@define
class Perfect:
    """One server in one place: each call takes effect at one moment between its beginning and its end."""

    chance: random.Random
    history: History = field(factory=History)
    ledger: Ledger = field(factory=Ledger)
    model: ReplayModel = field(factory=ReplayModel)
    now: float = 0.0
    term: int = 1

    def write(self, session: int, low: int, write: list[Any], settled: dict[int, tuple[Any, ...]] | None = None) -> Any:
        """Commit a write and return the model's answer."""
        frame = Frame(session, low, "", settled or {}, encode([write]))
        index = self.commit(encode_writes(WritesHeader(7, 0, 128), [frame]))
        self.model.index = index
        self.model.settled = (settled or {}).get(0)
        return self.model.frame(session, low, [write])[0]

    def expire(self, lease: int) -> None:
        """Commit the expiry of a lease."""
        seen = len(self.ledger.entries)
        self.commit(encode_entry(EntryKind.EXPIRY, None, encode([self.term, seen, [lease]])))
        self.model.expire_seen(seen, [lease])

    def commit(self, data: bytes) -> int:
        """Put an entry on the ledger and return its index."""
        index = len(self.ledger.entries) + 1
        self.ledger.commit("n1", index, self.term, data, self.now)
        return index

    def call(self, client: str, kind: Kind, request: list[Any], session: int = 0) -> Operation:
        """Begin a call."""
        self.now += 0.001
        return self.history.call(client, kind, request, self.now, session)

    def act(self, operation: Operation) -> Any:
        """Let a call take effect and return its answer."""
        if operation.kind is Kind.WRITE:
            number, op, _, arguments = operation.request
            settled: dict[int, tuple[Any, ...]] = {}
            if op == Op.LEASE_GRANT:
                settled = {0: (Settled.LEASE, arguments[1], arguments[0])}
            return self.write(operation.session, max(number - 2, 0), operation.request, settled)
        if operation.kind is Kind.RENEWAL:
            result = [[lease, self.model.leases.get(lease, 0)] for lease in operation.request]
            return (self.model.revision, True, result)
        return self.model.read(operation.request)

    def finish(self, operation: Operation, answer: Any) -> None:
        """End a call with its answer."""
        self.now += 0.001
        assert answer[1], answer
        self.history.done(operation, answer[0], answer[2], self.now)

    def do(self, client: str, kind: Kind, request: list[Any], session: int = 0) -> Operation:
        """Call, act and finish."""
        operation = self.call(client, kind, request, session)
        self.finish(operation, self.act(operation))
        return operation

    def put(self, key: bytes, value: bytes, lease: int = 0) -> Operation:
        """Put a key, without a session."""
        arguments: list[Any] = [key, value, lease] if lease else [key, value]
        return self.do("someone", Kind.WRITE, [0, int(Op.PUT), None, arguments])

    def watch(self, *, asked: int = 1, prev_kv: bool = True) -> WatchRecord:
        """Add a watch on everything that has been told all there is."""
        record = WatchRecord("watcher", *EVERYTHING, asked, self.history.tick(), prev_kv=prev_kv)
        record.start = asked or self.model.revision + 1
        record.created_order = self.history.tick()
        for revision, events in sorted(self.model.events.items()):
            if revision >= record.start:
                told = [[kind, pair, before if prev_kv else None] for kind, pair, before in events]
                record.told.append(WatchEvents(revision, told))
        record.told.append(WatchProgress(self.model.revision))
        return self.history.watch(record)

    def check(self) -> list[str]:
        """Run all checkers."""
        played = replay(self.ledger)
        found = check_history(self.history, played) + check_leases(self.history, played)
        return found + check_watches(self.history, played.model) + check_linearizable(self.history)


def random_request(chance: random.Random, tag: bytes) -> tuple[Kind, list[Any], bool]:
    """Return a call, and whether it must be numbered, since nothing but its number tells it from another."""
    key = chance.choice(KEYS)
    match chance.randrange(7):
        case 0 | 1:
            return Kind.WRITE, [0, int(Op.PUT), None, [key, tag]], False
        case 2:
            return Kind.WRITE, [0, int(Op.DELETE_RANGE), None, [key]], True
        case 3:
            compare: list[Any] = [1, 0, key, 0] if chance.random() < 0.5 else [3, 0, key, b"%d" % chance.randrange(40)]
            branches = [[[int(Op.PUT), [key, tag]]], [[int(Op.RANGE), [key]]]]
            return Kind.WRITE, [0, int(Op.TXN), None, [[compare], *branches]], False
        case 4:
            return Kind.LOCAL_READ, [*EVERYTHING, 0, 0, 0, 0, True], False
        case _:
            return Kind.READ, [key], False


def perfect(seed: int, calls: int = 120, clients: int = 5) -> Perfect:
    """Return a random history with overlapping calls, some of them never answered."""
    chance = random.Random(seed)
    server = Perfect(chance)
    sessions = [server.write(0, 0, [0, int(Op.REGISTER), None, []]).result for _ in range(clients)]
    numbers = [0] * clients
    open_calls: dict[int, tuple[Operation, Any]] = {}
    for place in range(calls):
        who = chance.randrange(clients)
        if who in open_calls:
            operation, answer = open_calls.pop(who)
            if answer is None:
                answer = server.act(operation)
            if operation.kind is not Kind.WRITE or chance.random() < 0.95:
                server.finish(operation, answer)
            continue
        kind, request, must_be_numbered = random_request(chance, b"%d" % place)
        session = 0
        if kind is Kind.WRITE and (must_be_numbered or chance.random() < 0.5):
            session = sessions[who]
            numbers[who] += 1
            request[0] = numbers[who]
        operation = server.call(f"c{who}", kind, request, session)
        open_calls[who] = (operation, server.act(operation) if chance.random() < 0.5 else None)
    server.watch()
    server.watch(asked=max(server.model.revision // 2, 1), prev_kv=False)
    return server

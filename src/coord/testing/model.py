"""A naive model of the store: what coord promises, written for the reader and not for speed.

It keeps a whole copy of all keys for each revision, and shares no code with the state machine, so that the two can be
held against each other. Requests and results are plain lists in coord.cddl's form; an error is `(code, text)`.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import eq, gt, lt, ne
from typing import Any, NamedTuple

Pair = list[Any]
"""`[key, create_revision, mod_revision, version, lease, value]`."""
State = dict[bytes, Pair]

WINDOW = 1024
MAX_OPS = 128
MAX_TTL_S = 9_000_000_000


class Refused(Exception):
    """The request is refused; `args` are the error's code and text, and its details if they count."""


class Answer(NamedTuple):
    """What a write or a read came to: `result` in coord.cddl's form, or `(code, text)` if it is not `ok`."""

    revision: int
    ok: bool
    result: Any


def _etcd(code: str, text: str) -> Refused:
    return Refused(code, f"etcdserver: {text}")


def _empty_key() -> Refused:
    return _etcd("InvalidArgument", "key is not provided")


def _no_lease() -> Refused:
    return _etcd("NotFound", "requested lease not found")


def _no_key() -> Refused:
    return _etcd("InvalidArgument", "key not found")


def _future() -> Refused:
    return _etcd("OutOfRange", "mvcc: required revision is a future revision")


def _compacted() -> Refused:
    return _etcd("OutOfRange", "mvcc: required revision has been compacted")


def _full(arguments: list[Any], *defaults: Any) -> list[Any]:
    return [*arguments, *defaults[len(arguments) :]]


def _is_in(key: bytes, start: bytes, end: bytes) -> bool:
    if not end:
        return key == start
    return key >= start and (end == b"\0" or key < end)


class Model:
    """The store. `past[r]` is all that is there at revision r; `events[r]` what r changed, in order."""

    def __init__(self) -> None:
        self.past: list[State] = [{}, {}]
        self.events: dict[int, list[list[Any]]] = {}
        self.compact_revision = -1
        self.leases: dict[int, int] = {}
        self.checkpoints: dict[int, int] = {}
        """What was left of leases, in milliseconds, where a checkpoint stands."""
        self.clients: dict[int, dict[str, Any]] = {}
        self.uses = 0
        self.max_clients = 10_000
        self.no_space = False
        self._draft: State = {}
        self._changes: list[list[Any]] = []

    @property
    def revision(self) -> int:
        """The current revision."""
        return len(self.past) - 1

    @property
    def now(self) -> State:
        """All that is there now."""
        return self.past[-1]

    # -- exactly once ---------------------------------------------------------------------------------------------

    def register(self, index: int) -> Answer:
        """Register a client by the entry at `index`."""
        self.uses += 1
        self.clients[index] = {"used": self.uses, "low": 0, "answers": {}}
        while len(self.clients) > self.max_clients:
            oldest = min(self.clients, key=lambda client: self.clients[client]["used"])
            del self.clients[oldest]
        return Answer(self.revision, True, index)

    def frame(self, client: int, low: int, writes: list[list[Any]]) -> list[Answer]:
        """Apply a frame of writes `[number, op, guard, arguments]`."""
        record = self.clients.get(client)
        if client and record is None:
            text = "coord: the client is not registered (any more); register anew"
            return [Answer(self.revision, False, ("FailedPrecondition", text)) for _ in writes]
        if record is None:
            return [self.write(*write[1:]) for write in writes]
        self.uses += 1
        record["used"] = self.uses
        record["low"] = max(record["low"], low)
        record["answers"] = {n: kept for n, kept in record["answers"].items() if n >= record["low"]}
        return [self._once(record, *write) for write in writes]

    def _once(self, record: dict[str, Any], number: int, op: int, guard: Any, arguments: list[Any]) -> Answer:
        low = record["low"]
        if number < low:
            text = f"coord: number {number} is below the client's low, {low}"
            return Answer(self.revision, False, ("FailedPrecondition", text))
        sent = repr((op, guard, arguments))
        if number in record["answers"]:
            first, answer = record["answers"][number]
            if first == sent:
                return answer  # type: ignore[no-any-return]
            text = f"coord: number {number} stands for another write"
            return Answer(self.revision, False, ("InvalidArgument", text))
        if number >= low + WINDOW:
            text = f"coord: number {number} is {WINDOW} or more above low, {low}"
            return Answer(self.revision, False, ("ResourceExhausted", text))
        answer = self.write(op, guard, arguments)
        record["answers"][number] = (sent, answer)
        return answer

    # -- writes ---------------------------------------------------------------------------------------------------

    def write(self, op: int, guard: Any, arguments: list[Any]) -> Answer:
        """Apply one write: all of it or nothing."""
        self._draft = {key: list(pair) for key, pair in self.now.items()}
        self._changes = []
        leases = dict(self.leases)
        try:
            result = self._do(op, guard, arguments)
        except Refused as refusal:
            self.leases = leases
            return Answer(self.revision, False, refusal.args)
        if self._changes:
            self.events[self.revision + 1] = self._changes
            self.past.append(self._draft)
        return Answer(self.revision, True, result)

    def expire(self, leases: list[int]) -> None:
        """Apply an expiry of its own term."""
        for lease in leases:
            self.write(6, None, [lease])

    def checkpoint(self, checkpoints: list[list[int]]) -> None:
        """Apply checkpoints of their own term; 0 clears one."""
        for lease, remaining_ms in checkpoints:
            self.checkpoints[lease] = remaining_ms
        self.checkpoints = {lease: ms for lease, ms in self.checkpoints.items() if ms and lease in self.leases}

    def _do(self, op: int, guard: Any, arguments: list[Any]) -> Any:
        if op == 3:
            self._check_level(arguments, MAX_OPS)
            for branch in arguments[1:]:
                self._check_duplicates(branch)
        else:
            self._check(op, arguments)
        if guard is not None:
            pair = self.now.get(guard[0])
            if pair is None or pair[1] != guard[1]:
                raise Refused("Aborted", f"coord: fence lost: the key no longer has create revision {guard[1]}")
        if self.no_space and (op in (1, 5) or (op == 3 and _puts(arguments))):
            raise _etcd("ResourceExhausted", "mvcc: database space exceeded")
        do: dict[int, Callable[..., Any]] = {
            1: self._put,
            2: self._delete,
            3: self._txn,
            4: self._compact,
            5: self._grant,
            6: self._revoke,
        }
        return do[op](*arguments)

    def _change(self, kind: int, pair: Pair) -> None:
        before = self.now.get(pair[0])
        if kind == 0 and pair[1] == pair[2]:
            before = None
        self._changes.append([kind, pair, before])

    def _put(
        self,
        key: bytes,
        value: bytes,
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> Any:
        if lease and lease not in self.leases:
            raise _no_lease()
        before = self._draft.get(key)
        if before is None and (ignore_value or ignore_lease):
            raise _no_key()
        mod = self.revision + 1
        pair = [key, mod, mod, 1, lease, value]
        if before is not None:
            pair[1], pair[3] = before[1], before[3] + 1
            if ignore_value:
                pair[5] = before[5]
            if ignore_lease:
                pair[4] = before[4]
        self._draft[key] = pair
        self._change(0, pair)
        return before if prev_kv else None

    def _delete(self, key: bytes, range_end: bytes = b"", prev_kv: bool = False) -> Any:
        gone = [name for name in sorted(self._draft) if _is_in(name, key, range_end)]
        pairs = [self._draft.pop(name) for name in gone]
        for name in gone:
            self._change(1, [name, 0, self.revision + 1, 0, 0, b""])
        return [len(gone), pairs if prev_kv else []]

    def _compact(self, revision: int, physical: bool = False) -> None:
        if revision <= self.compact_revision:
            raise _compacted()
        if revision > self.revision:
            raise _future()
        self.compact_revision = revision

    def _grant(self, ttl_s: int, lease: int = 0) -> Any:
        if not lease:
            raise _no_lease()
        if lease in self.leases:
            raise _etcd("FailedPrecondition", "lease already exists")
        self.leases[lease] = max(ttl_s, 1)
        return [lease, max(ttl_s, 1)]

    def _revoke(self, lease: int) -> None:
        if lease not in self.leases:
            raise _no_lease()
        for key in self.attached(lease):
            self._delete(key)
        del self.leases[lease]
        self.checkpoints.pop(lease, None)

    def attached(self, lease: int) -> list[bytes]:
        """Return the keys attached to a lease, in order."""
        return sorted(key for key, pair in self.now.items() if pair[4] == lease)

    # -- transactions ---------------------------------------------------------------------------------------------

    def _txn(self, compares: list[Any], success: list[Any], failure: list[Any]) -> Any:
        plan = self._judge([compares, success, failure])
        for check in (self._may_put, self._may_read):
            self._walk(plan, check)
        return self._perform(plan)

    def _judge(self, txn: list[Any]) -> tuple[bool, list[Any]]:
        holds = all(self._holds(*compare) for compare in txn[0])
        branch = txn[1] if holds else txn[2]
        return holds, [[op, self._judge(inner) if op == 3 else inner] for op, inner in branch]

    def _holds(self, target: int, result: int, key: bytes, operand: Any, range_end: bytes = b"") -> bool:
        relation = (eq, gt, lt, ne)[result] if result < 4 else lambda *_: True
        place = (3, 1, 2, 5, 4)[target]
        pairs = [pair for name, pair in self.now.items() if _is_in(name, key, range_end)]
        if not pairs:
            return target != 3 and bool(relation(0, operand))
        return all(relation(pair[place], operand) for pair in pairs)

    def _walk(self, plan: tuple[bool, list[Any]], visit: Callable[[int, Any], None]) -> None:
        for op, inner in plan[1]:
            if op == 3:
                self._walk(inner, visit)
            else:
                visit(op, inner)

    def _may_put(self, op: int, arguments: list[Any]) -> None:
        if op != 1:
            return
        key, _, lease, _, ignore_value, ignore_lease = _full(arguments, 0, 0, 0, False, False, False)
        if (ignore_value or ignore_lease) and key not in self.now:
            raise _no_key()
        if lease and lease not in self.leases:
            raise _no_lease()

    def _may_read(self, op: int, arguments: list[Any]) -> None:
        revision = arguments[3] if op == 20 and len(arguments) > 3 else 0
        if revision > self.revision:
            raise _future()
        if revision and revision < self.compact_revision:
            raise _compacted()

    def _perform(self, plan: tuple[bool, list[Any]]) -> Any:
        results = []
        for op, inner in plan[1]:
            if op == 3:
                results.append([3, 0, self._perform(inner)])
                continue
            if op == 20:
                result = self._range(self._draft, self.revision + bool(self._changes), inner)
            else:
                result = self._put(*inner) if op == 1 else self._delete(*inner)
            results.append([op, self.revision + bool(self._changes), result])
        return [plan[0], results]

    # -- checks that look at the request alone ----------------------------------------------------------------------

    def _check(self, op: int, arguments: list[Any]) -> None:
        if op in (1, 2, 20) and not arguments[0]:
            raise _empty_key()
        if op == 1:
            _, value, lease, _, ignore_value, ignore_lease = _full(arguments, 0, 0, 0, False, False, False)
            if ignore_value and value:
                raise _etcd("InvalidArgument", "value is provided")
            if ignore_lease and lease:
                raise _etcd("InvalidArgument", "lease is provided")
        if op == 5 and arguments[0] > MAX_TTL_S:
            raise _etcd("OutOfRange", "too large lease TTL")

    def _check_level(self, txn: list[Any], ops_left: int) -> None:
        cost = max(len(part) for part in txn)
        if cost > ops_left:
            raise _etcd("InvalidArgument", "too many operations in txn request")
        for compare in txn[0]:
            if not compare[2]:
                raise _empty_key()
        for op, inner in [*txn[1], *txn[2]]:
            if op == 3:
                self._check_level(inner, ops_left - cost)
            else:
                self._check(op, inner)

    def _check_duplicates(self, branch: list[Any]) -> tuple[set[bytes], list[tuple[bytes, bytes]]]:
        """Return the keys put and the intervals deleted; a delete to the end of the keyspace is not looked at."""
        puts: set[bytes] = set()
        deletes = [(_full(inner, b"", b"")[0], _full(inner, b"", b"")[1]) for op, inner in branch if op == 2]
        deletes = [(start, end) for start, end in deletes if end != b"\0"]

        def add(key: bytes) -> None:
            if key in puts or any(_is_in(key, start, end) for start, end in deletes):
                raise _etcd("InvalidArgument", "duplicate key given in txn request")
            puts.add(key)

        for op, inner in branch:
            if op == 3:
                (then_puts, then_deletes), (else_puts, else_deletes) = map(self._check_duplicates, inner[1:])
                for key in [*then_puts, *(else_puts - then_puts)]:
                    add(key)
                deletes = [*deletes, *then_deletes, *else_deletes]
        for op, inner in branch:
            if op == 1:
                add(inner[0])
        return puts, deletes

    # -- reads ----------------------------------------------------------------------------------------------------

    def read(self, arguments: list[Any]) -> Answer:
        """Answer a range request."""
        try:
            self._check(20, arguments)
            return Answer(self.revision, True, self._range(self.now, self.revision, arguments))
        except Refused as refusal:
            return Answer(self.revision, False, refusal.args)

    def range_at(self, revision: int, arguments: list[Any]) -> Any:
        """Return what a range of the newest state gave at a revision, compaction apart."""
        return self._range(self.past[revision], revision, [*_full(arguments, b"", b"", 0)[:3], 0, *arguments[4:]])

    def _range(self, newest: State, current: int, arguments: list[Any]) -> Any:
        key, end, limit, revision, order, target, _, keys_only, count_only, *filters = _full(
            arguments, b"", b"", 0, 0, 0, 0, False, False, False, 0, 0, 0, 0, 0
        )
        if revision > current:
            raise _future()
        if 0 < revision < self.compact_revision:
            raise _compacted()
        state = newest if revision <= 0 or revision == current else self.past[revision]
        pairs = [state[name] for name in sorted(state) if _is_in(name, key, end)]
        count = len(pairs)
        if count_only:
            return [[], False, count]
        min_mod, max_mod, min_create, max_create = filters[:4]
        if limit > 0 and order == 0 and not any(filters[:4]):
            pairs = pairs[: limit + 1]
        pairs = [
            pair
            for pair in pairs
            if (not min_mod or pair[2] >= min_mod)
            and (not max_mod or pair[2] <= max_mod)
            and (not min_create or pair[1] >= min_create)
            and (not max_create or pair[1] <= max_create)
        ]
        place = (0, 3, 1, 2, 5)[target]
        pairs.sort(key=lambda pair: pair[place], reverse=order == 2)
        more = 0 < limit < len(pairs)
        if limit > 0:
            pairs = pairs[:limit]
        return [[[*pair[:5], b""] if keys_only else pair for pair in pairs], more, count]


def _puts(txn: list[Any]) -> bool:
    return any(op == 1 or (op == 3 and _puts(inner)) for branch in txn[1:] for op, inner in branch)

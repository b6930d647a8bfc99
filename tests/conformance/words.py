"""Short forms for writing rows: what a table says a hundred times should read like a sentence.

Keys: a `str` stands below the row's prefix, `bytes` as it is, `""` is the empty key. Revisions in replies are counted
from the row's start.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve

from coord.errors import Code

from .vocabulary import (
    ANY,
    At,
    Canceled,
    Compare,
    Deleted,
    DeleteRange,
    Done,
    Either,
    Events,
    Found,
    Happened,
    KeyValue,
    Name,
    NextCancel,
    NextEvents,
    PrefixEnd,
    Put,
    PutDone,
    Range,
    Refused,
    Request,
    Row,
    Step,
    Txn,
    TxnDone,
    WatchRefused,
)

COMPACTED = Refused(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
FUTURE = Refused(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
EMPTY_KEY = Refused(Code.INVALID_ARGUMENT, "etcdserver: key is not provided")
KEY_NOT_FOUND = Refused(Code.INVALID_ARGUMENT, "etcdserver: key not found")
VALUE_PROVIDED = Refused(Code.INVALID_ARGUMENT, "etcdserver: value is provided")
LEASE_PROVIDED = Refused(Code.INVALID_ARGUMENT, "etcdserver: lease is provided")
TOO_MANY_OPS = Refused(Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request")
DUPLICATE_KEY = Refused(Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request")
INVALID_SORT = Refused(Code.INVALID_ARGUMENT, "etcdserver: invalid sort option")
TOO_LARGE = Refused(Code.INVALID_ARGUMENT, "etcdserver: request is too large")
LEASE_NOT_FOUND = Refused(Code.NOT_FOUND, "etcdserver: requested lease not found")
LEASE_EXISTS = Refused(Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
TTL_TOO_LARGE = Refused(Code.OUT_OF_RANGE, "etcdserver: too large lease TTL")
NO_SPACE = Refused(Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
CORRUPT = Refused(Code.DATA_LOSS, "etcdserver: corrupt cluster")
DUPLICATE_WATCH = WatchRefused("mvcc: duplicate watch ID provided on the WatchStream")
EMPTY_WATCH = WatchRefused("mvcc: watcher range is empty")
COMPACTED_WATCH = WatchRefused("etcdserver: mvcc: required revision has been compacted")

EVERYTHING = b"\0"
"""As a range's end: to the end of the keyspace."""


def row(
    name: str,
    rule: str,
    *steps: Step | Request,
    differs: str = "",
    newer: str = "",
    fresh: bool = False,
    edge: bool = False,
) -> Row:
    """Return a row; a bare request is a step that only must not fail."""
    told = tuple(step if isinstance(step, Step) else Step(step) for step in steps)
    return Row(name, "", rule, told, differs=differs, newer=newer, fresh=fresh, edge=edge)


def section(title: str, *rows: Row) -> tuple[Row, ...]:
    """Return the rows of a section of the rules."""
    return tuple(evolve(one, section=title) for one in rows)


def either(*, coord: Any, etcd: Any) -> Either:
    """Return the expectation of a row on which the two differ."""
    return Either(coord, etcd)


def key_of(key: str | bytes) -> Any:
    """Return what stands for a key as rows write it."""
    return Name(key) if isinstance(key, str) and key else key or b""


def at(offset: int | None) -> Any:
    """Return a revision counted from the row's start, or any."""
    return ANY if offset is None else At(offset)


def put(key: str | bytes, value: str = "", **options: Any) -> Put:
    return Put(key_of(key), value.encode(), **options)


def get(key: str | bytes, end: str | bytes = "", **options: Any) -> Range:
    return Range(key_of(key), key_of(end), **options)


def get_prefix(prefix: str = "", **options: Any) -> Range:
    return Range(Name(prefix), PrefixEnd(prefix), **options)


def delete(key: str | bytes, end: str | bytes = "", **options: Any) -> DeleteRange:
    return DeleteRange(key_of(key), key_of(end), **options)


def delete_prefix(prefix: str = "", **options: Any) -> DeleteRange:
    return DeleteRange(Name(prefix), PrefixEnd(prefix), **options)


def when(target: str, key: str | bytes, result: str | int, operand: Any = None, end: Any = "") -> Compare:
    """Return a compare: `when("version", "a", "=", 0)`; results `= > < !=`, or etcd's number of one."""
    names = {"=": "EQUAL", ">": "GREATER", "<": "LESS", "!=": "NOT_EQUAL"}
    relation = names[result] if isinstance(result, str) else result
    value = operand.encode() if isinstance(operand, str) else operand
    until = end if isinstance(end, PrefixEnd) else key_of(end)
    return Compare(target.upper(), relation, key_of(key), value, until)


def txn(*compares: Compare, then: tuple[Any, ...] = (), orelse: tuple[Any, ...] = ()) -> Txn:
    return Txn(compares, then, orelse)


def kv(key: str, value: str, created: int, modified: int, version: int = 1, lease: Any = 0) -> KeyValue:
    return KeyValue(key_of(key), value.encode(), At(created), At(modified), version, lease)


def found(*pairs: KeyValue, more: bool = False, count: int | None = None, rev: int | None = None) -> Found:
    return Found(pairs, more, len(pairs) if count is None else count, at(rev))


def wrote(rev: int | None = None, previous: KeyValue | None = None) -> PutDone:
    return PutDone(previous, at(rev))


def deleted(count: int, *previous: KeyValue, rev: int | None = None) -> Deleted:
    return Deleted(count, previous, at(rev))


def succeeded(*replies: Any, rev: int | None = None) -> TxnDone:
    return TxnDone(True, replies, at(rev))


def failed(*replies: Any, rev: int | None = None) -> TxnDone:
    return TxnDone(False, replies, at(rev))


def done(rev: int | None = None) -> Done:
    return Done(at(rev))


def put_event(pair: KeyValue, previous: KeyValue | None = None) -> Happened:
    return Happened("PUT", pair, previous)


def delete_event(key: str, modified: int, previous: KeyValue | None = None) -> Happened:
    return Happened("DELETE", KeyValue(key_of(key), b"", 0, At(modified), 0), previous)


def told(stream: str, *events: Happened, watch: int = 1, fragmented: bool = False) -> Step:
    """Return the step that waits for exactly these as the next events of a watch."""
    return NextEvents(stream, watch, len(events)) >> Events(events, fragmented)


def canceled_since_compacted(stream: str, compacted: int, watch: int = 1) -> Step:
    """Return the step that waits until a watch is ended because what it wants is compacted."""
    return NextCancel(stream, watch) >> Canceled(At(compacted))

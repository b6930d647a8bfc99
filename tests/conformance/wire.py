"""Requests of the vocabulary in the forms of coord.cddl, and its results as replies."""

from __future__ import annotations

from typing import Any

from coord.protocol.ops import AlarmAction, Method, Op
from coord.types import AlarmType, CompareResult, CompareTarget, SortOrder, SortTarget

from .vocabulary import (
    Alarm,
    Alarms,
    Alive,
    Compact,
    Compare,
    Deleted,
    DeleteRange,
    Done,
    Found,
    Grant,
    Granted,
    Happened,
    KeepAlive,
    KeyValue,
    LeaseIds,
    Leases,
    Put,
    PutDone,
    Range,
    Remaining,
    Request,
    Revoke,
    TimeToLive,
    Txn,
    TxnDone,
    Watch,
)

_OPS = {Put: Op.PUT, DeleteRange: Op.DELETE_RANGE, Txn: Op.TXN, Range: Op.RANGE}


def write_of(request: Request) -> tuple[Op, list[Any]] | None:
    """Return `(op, arguments)` of what goes through the log, None for what does not."""
    match request:
        case Txn() if _only_reads(request):
            return None
        case Put() | DeleteRange() | Txn():
            return _OPS[type(request)], arguments_of(request)
        case Compact(revision, physical):
            return Op.COMPACT, [revision, physical]
        case Grant(ttl, lease):
            return Op.LEASE_GRANT, [ttl, lease]
        case Revoke(lease):
            return Op.LEASE_REVOKE, [lease]
        case Alarm(action, kind, member) if action != "GET":
            return Op.ALARM, [int(AlarmAction[action]), member, int(AlarmType[kind])]
    return None


def read_of(request: Request) -> tuple[Method, list[Any]]:
    """Return `(method, arguments)` of what does not go through the log."""
    match request:
        case Range():
            return Method.RANGE, arguments_of(request)
        case Txn():
            return Method.TXN, arguments_of(request)
        case TimeToLive(lease, keys):
            return Method.LEASE_TIME_TO_LIVE, [lease, keys]
        case KeepAlive(lease):
            return Method.LEASE_KEEP_ALIVE, [[lease]]
        case Leases():
            return Method.LEASE_LEASES, []
        case Alarm():
            return Method.ALARM_LIST, []
    raise TypeError(f"no read: {request!r}")


def watch_create(request: Watch) -> list[Any]:
    """Return the arguments of coord.cddl's `watch-create`."""
    flags = [request.no_put, request.no_delete, request.prev_kv, request.progress_notify, request.fragment]
    return [request.key, request.end, request.start, request.id, *flags]


def _only_reads(request: Txn) -> bool:
    return all(isinstance(one, Range) for one in (*request.success, *request.failure))


def arguments_of(request: Any) -> list[Any]:
    """Return the positional arguments of a request of the key space."""
    match request:
        case Put():
            flags = [request.prev_kv, request.ignore_value, request.ignore_lease]
            return [request.key, request.value, request.lease, *flags]
        case DeleteRange():
            return [request.key, request.end, request.prev_kv]
        case Range():
            return _range(request)
        case Txn():
            branches = ([_operation(one) for one in branch] for branch in (request.success, request.failure))
            return [[_compare(one) for one in request.compares], *branches]
    raise TypeError(f"no request of the key space: {request!r}")


def _range(request: Range) -> list[Any]:
    order = SortOrder[request.order] if isinstance(request.order, str) else request.order
    target = SortTarget[request.target] if isinstance(request.target, str) else request.target
    flags = [request.serializable, request.keys_only, request.count_only]
    filters = [request.min_mod, request.max_mod, request.min_create, request.max_create]
    head = [request.key, request.end, request.limit, request.revision]
    return [*head, int(order), int(target), *flags, *filters]


def _operation(request: Any) -> list[Any]:
    return [int(_OPS[type(request)]), arguments_of(request)]


def _compare(compare: Compare) -> list[Any]:
    target = CompareTarget[compare.target]
    result = CompareResult[compare.result] if isinstance(compare.result, str) else compare.result
    operand = compare.operand
    if operand is None:  # coord.v1 has no operand that is not there
        operand = b"" if target is CompareTarget.VALUE else 0
    return [int(target), int(result), compare.key, operand, *([compare.end] if compare.end else [])]


def reply_of(request: Any, revision: int, result: Any) -> Any:
    """Return the reply that a result, by op or method, tells of."""
    match request:
        case Put():
            return PutDone(None if result is None else pair(result), revision)
        case DeleteRange():
            return Deleted(result[0], tuple(map(pair, result[1])), revision)
        case Range():
            return Found(tuple(map(pair, result[0])), result[1], result[2], revision)
        case Txn():
            operations = request.success if result[0] else request.failure
            replies = (reply_of(one, *answer[1:]) for one, answer in zip(operations, result[1], strict=True))
            return TxnDone(result[0], tuple(replies), revision)
        case Compact() | Revoke():
            return Done(revision)
        case Grant():
            lease, ttl_s = result
            return Granted(lease, ttl_s, revision)
        case TimeToLive():
            lease, ttl_s, granted_s, keys = result
            return Remaining(lease, ttl_s, granted_s, tuple(keys))
        case KeepAlive():
            return Alive(*result[0])
        case Leases():
            return LeaseIds(tuple(result))
        case Alarm():
            return Alarms(tuple((member, AlarmType(kind).name) for member, kind in result))
    raise TypeError(f"no call: {request!r}")


def pair(wire: list[Any]) -> KeyValue:
    """Return the pair of coord.cddl's `key-value`."""
    key, created, modified, version, lease, value = wire[:6]
    return KeyValue(key, value, created, modified, version, lease)


def event(wire: list[Any]) -> Happened:
    """Return the event of coord.cddl's `event`."""
    previous = None if wire[2] is None else pair(wire[2])
    return Happened("DELETE" if wire[0] else "PUT", pair(wire[1]), previous)

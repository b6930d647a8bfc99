"""etcd's JSON gateway: requests of the vocabulary as JSON, and JSON as replies.

Bytes are base64, 64-bit numbers are strings, enums are names, and fields with their zero value are left out.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from coord.errors import Code

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

Json = dict[str, Any]

CODES = {
    1: Code.CANCELED,
    2: Code.UNKNOWN,
    3: Code.INVALID_ARGUMENT,
    4: Code.DEADLINE_EXCEEDED,
    5: Code.NOT_FOUND,
    8: Code.RESOURCE_EXHAUSTED,
    9: Code.FAILED_PRECONDITION,
    11: Code.OUT_OF_RANGE,
    12: Code.UNIMPLEMENTED,
    13: Code.INTERNAL,
    14: Code.UNAVAILABLE,
    15: Code.DATA_LOSS,
}
"""gRPC's numbers."""


def text(data: bytes) -> str:
    """Return bytes as the gateway takes them."""
    return b64encode(data).decode()


def encode(request: Request) -> tuple[str, Json]:
    """Return the path below `/v3/` and the JSON of a call."""
    match request:
        case Put():
            return "kv/put", _put(request)
        case Range():
            return "kv/range", _range(request)
        case DeleteRange():
            return "kv/deleterange", _delete(request)
        case Txn():
            return "kv/txn", _txn(request)
        case Compact(revision, physical):
            return "kv/compaction", {"revision": str(revision), "physical": physical}
        case Grant(ttl, lease):
            return "lease/grant", {"TTL": str(ttl), "ID": str(lease)}
        case Revoke(lease):
            return "lease/revoke", {"ID": str(lease)}
        case TimeToLive(lease, keys):
            return "lease/timetolive", {"ID": str(lease), "keys": keys}
        case KeepAlive(lease):
            return "lease/keepalive", {"ID": str(lease)}
        case Leases():
            return "lease/leases", {}
        case Alarm(action, kind, member):
            return "maintenance/alarm", {"action": action, "alarm": kind, "memberID": str(member)}
    raise TypeError(f"no call: {request!r}")


def watch_create(request: Watch) -> Json:
    """Return the JSON of a WatchCreateRequest."""
    filters = [name for name, on in (("NOPUT", request.no_put), ("NODELETE", request.no_delete)) if on]
    return {
        "key": text(request.key),
        "range_end": text(request.end),
        "start_revision": str(request.start),
        "watch_id": str(request.id),
        "filters": filters,
        "prev_kv": request.prev_kv,
        "progress_notify": request.progress_notify,
        "fragment": request.fragment,
    }


def _put(request: Put) -> Json:
    return {
        "key": text(request.key),
        "value": text(request.value),
        "lease": str(request.lease),
        "prev_kv": request.prev_kv,
        "ignore_value": request.ignore_value,
        "ignore_lease": request.ignore_lease,
    }


def _range(request: Range) -> Json:
    return {
        "key": text(request.key),
        "range_end": text(request.end),
        "limit": str(request.limit),
        "revision": str(request.revision),
        "sort_order": request.order,
        "sort_target": request.target,
        "serializable": request.serializable,
        "keys_only": request.keys_only,
        "count_only": request.count_only,
        "min_mod_revision": str(request.min_mod),
        "max_mod_revision": str(request.max_mod),
        "min_create_revision": str(request.min_create),
        "max_create_revision": str(request.max_create),
    }


def _delete(request: DeleteRange) -> Json:
    return {"key": text(request.key), "range_end": text(request.end), "prev_kv": request.prev_kv}


_OPERANDS = {
    "VERSION": "version",
    "CREATE": "create_revision",
    "MOD": "mod_revision",
    "VALUE": "value",
    "LEASE": "lease",
}


def _compare(compare: Compare) -> Json:
    wire = {
        "target": compare.target,
        "result": compare.result,
        "key": text(compare.key),
        "range_end": text(compare.end),
    }
    if compare.operand is not None:
        is_value = isinstance(compare.operand, bytes)
        wire[_OPERANDS[compare.target]] = text(compare.operand) if is_value else str(compare.operand)
    return wire


def _txn(request: Txn) -> Json:
    return {
        "compare": [_compare(one) for one in request.compares],
        "success": [_operation(one) for one in request.success],
        "failure": [_operation(one) for one in request.failure],
    }


def _operation(request: Any) -> Json:
    match request:
        case Put():
            return {"request_put": _put(request)}
        case Range():
            return {"request_range": _range(request)}
        case DeleteRange():
            return {"request_delete_range": _delete(request)}
        case Txn():
            return {"request_txn": _txn(request)}
    raise TypeError(f"no operation of a transaction: {request!r}")


def decode(request: Request, wire: Json) -> Any:
    """Return the reply that the JSON tells of."""
    if isinstance(request, KeepAlive):
        wire = wire["result"]
    at, lease = int(wire.get("header", {}).get("revision", 0)), int(wire.get("ID", 0))
    match request:
        case Compact() | Revoke():
            return Done(at)
        case Grant():
            return Granted(lease, int(wire["TTL"]), at)
        case TimeToLive():
            keys = tuple(b64decode(key) for key in wire.get("keys", []))
            return Remaining(lease, int(wire.get("TTL", 0)), int(wire.get("grantedTTL", 0)), keys)
        case KeepAlive():
            return Alive(lease, int(wire.get("TTL", 0)))
        case Leases():
            return LeaseIds(tuple(int(one["ID"]) for one in wire.get("leases", [])))
        case Alarm():
            return Alarms(tuple((int(one["memberID"]), one["alarm"]) for one in wire.get("alarms", [])))
    return _kv_reply(request, wire, at)


def _kv_reply(request: Any, wire: Json, at: int) -> Any:
    match request:
        case Put():
            return PutDone(_pair(wire["prev_kv"]) if "prev_kv" in wire else None, at)
        case Range():
            pairs = tuple(_pair(one) for one in wire.get("kvs", []))
            return Found(pairs, wire.get("more", False), int(wire.get("count", 0)), at)
        case DeleteRange():
            return Deleted(int(wire.get("deleted", 0)), tuple(_pair(one) for one in wire.get("prev_kvs", [])), at)
        case Txn():
            operations = request.success if wire.get("succeeded") else request.failure
            replies = tuple(
                _sub_reply(one, answer) for one, answer in zip(operations, wire.get("responses", []), strict=True)
            )
            return TxnDone(wire.get("succeeded", False), replies, at)
    raise TypeError(f"no request of the key space: {request!r}")


def _sub_reply(request: Any, answer: Json) -> Any:
    (wire,) = answer.values()
    return _kv_reply(request, wire, int(wire["header"].get("revision", 0)))


def _pair(wire: Json) -> KeyValue:
    return KeyValue(
        key=b64decode(wire["key"]),
        value=b64decode(wire.get("value", "")),
        created=int(wire.get("create_revision", 0)),
        modified=int(wire["mod_revision"]),
        version=int(wire.get("version", 0)),
        lease=int(wire.get("lease", 0)),
    )


def event(wire: Json) -> Happened:
    """Return an event of a WatchResponse."""
    previous = _pair(wire["prev_kv"]) if "prev_kv" in wire else None
    return Happened(wire.get("type", "PUT"), _pair(wire["kv"]), previous)

"""What can be asked of a node: each verb's arguments on the wire, and what its answer means. Pure.

Both clients, the Trio one and the blocking one, are made of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, Final, Generic, TypedDict, TypeVar

from attrs import frozen

from coord.client import responses as r
from coord.client.fence import Guard
from coord.client.txn import (
    Compare,
    Key,
    Operation,
    integer,
    interval,
    key_bytes,
    txn_arguments,
    value_bytes,
)
from coord.codec import array_head, bytes_head, uint
from coord.errors import lease_not_found
from coord.protocol.entries import Member
from coord.protocol.ops import MEMBER_CHANGES, AlarmAction, Method, Op
from coord.types import AlarmType, CompareResult, CompareTarget, KeyValue, SortOrder, SortTarget

Answer = TypeVar("Answer")
KEEP_ALIVE_PATIENCE: Final = 6
"""S30: after this share of a TTL another node is asked, so that the silence of one costs no lease of 5 s or more."""


_IS_ABSENT: Final = b"\x85" + uint(CompareTarget.CREATE) + uint(CompareResult.EQUAL)
"""The parts of `queue`: a compare up to its key,"""
_NEWEST: Final = b"\x82" + uint(Op.RANGE) + b"\x88"
"""a range up to its key,"""
_KEYS_ONLY: Final = b"\0" + uint(SortOrder.DESCEND) + uint(SortTarget.CREATE) + b"\xf4\xf5"
"""what follows its limit,"""
_PUT_WITH_LEASE: Final = b"\x82" + uint(Op.PUT) + b"\x84"
"""and a put up to its key."""


@frozen
class Verb(Generic[Answer]):
    """One call: a write (`code` is an `Op`) or a request (a `Method`), and how its answer reads."""

    is_write: bool
    code: int
    arguments: list[Any] | bytes
    """As bytes they are encoded already; for writes only."""
    parse: Callable[[r.Header, Any], Answer]
    patience_s: float = inf
    """Not answered for so long, it is asked again through another endpoint; only for what may be asked twice."""
    guard: Guard | None = None
    """Of a write: without this key of this create revision nothing is done, and the answer is `FenceLost` (S27)."""

    @property
    def is_change(self) -> bool:
        """What is asked for may happen though no answer comes, so that it is not asked for twice (S14)."""
        return self.is_write or self.code in MEMBER_CHANGES


class RangeOptions(TypedDict, total=False):
    """What `range_response` and `coord.op.get` take besides the key.

    `prefix` or `range_end` (exclusive; `b"\\0"`: to the end of the keyspace) make an interval of the key.
    `limit` 0 is no limit; `revision` 0 is the newest. `min_*` and `max_*` are inclusive, 0 is off.
    `serializable` reads what the node that is asked has applied: fast, perhaps old, but never older than what
    this client has seen.
    """

    prefix: bool
    range_end: Key
    limit: int
    revision: int
    sort_order: SortOrder
    sort_target: SortTarget
    serializable: bool
    keys_only: bool
    count_only: bool
    min_mod_revision: int
    max_mod_revision: int
    min_create_revision: int
    max_create_revision: int


def put_arguments(
    key: Key, value: bytes, lease: int, prev_kv: bool, ignore_value: bool, ignore_lease: bool
) -> list[Any]:
    """Return coord.cddl's `put`."""
    arguments = [key_bytes(key), value_bytes(value)]
    # What is left out at the end has its default: every item is checked and decoded by each node.
    if ignore_value or ignore_lease:
        return [*arguments, integer(lease), bool(prev_kv), bool(ignore_value), bool(ignore_lease)]
    if prev_kv:
        return [*arguments, integer(lease), True]
    return [*arguments, integer(lease)] if lease else arguments


def delete_arguments(key: Key, prefix: bool, range_end: Key | None, prev_kv: bool) -> list[Any]:
    """Return coord.cddl's `delete-range`."""
    start, end = interval(key, prefix, range_end)
    return [start, end, bool(prev_kv)] if end or prev_kv else [start]


_RANGE_DEFAULTS: tuple[tuple[str, Any], ...] = (
    ("limit", 0),
    ("revision", 0),
    ("sort_order", 0),
    ("sort_target", 0),
    ("serializable", False),
    ("keys_only", False),
    ("count_only", False),
    ("min_mod_revision", 0),
    ("max_mod_revision", 0),
    ("min_create_revision", 0),
    ("max_create_revision", 0),
)

_RANGE_ITEMS = 2 + len(_RANGE_DEFAULTS) + 1
"""A serializable range has them all: its last is the revision that the client has seen."""


def range_arguments(key: Key, options: RangeOptions, seen: int) -> list[Any]:
    """Return coord.cddl's `range`; `seen` is the highest revision that this client has seen.

    Raises `TypeError` for an option that does not exist.
    """
    given = dict(options)
    start, end = interval(key, bool(given.pop("prefix", False)), given.pop("range_end", None))  # type: ignore[arg-type]
    if not given:
        return [start, end] if end else [start]
    arguments: list[Any] = [start, end]
    is_serializable = bool(options.get("serializable"))
    for name, default in _RANGE_DEFAULTS:
        if not given and not is_serializable:
            break
        item = given.pop(name, default)
        arguments.append(integer(item) if type(default) is int else bool(item))  # type: ignore[arg-type]
    if given:
        raise TypeError(f"unknown range option: {', '.join(given)}")
    # S29: a node that is behind what this client has seen must not answer.
    return [*arguments, seen] if is_serializable else arguments


def get(key: Key, revision: int, serializable: bool, seen: int) -> list[Any]:
    """Return the `range` of a single key."""
    if not (revision or serializable):
        return [key_bytes(key)]
    return range_arguments(key, {"revision": revision, "serializable": serializable}, seen)


def put(
    key: Key,
    value: bytes,
    lease: int,
    prev_kv: bool,
    ignore_value: bool,
    ignore_lease: bool,
    guard: Guard | None = None,
) -> Verb[r.PutResponse]:
    """A put with its whole answer."""
    arguments = put_arguments(key, value, lease, prev_kv, ignore_value, ignore_lease)
    return Verb(True, Op.PUT, arguments, _put, guard=guard)


def delete(
    key: Key, prefix: bool, range_end: Key | None, prev_kv: bool, guard: Guard | None = None
) -> Verb[r.DeleteResponse]:
    """A delete with its whole answer."""
    return Verb(True, Op.DELETE_RANGE, delete_arguments(key, prefix, range_end, prev_kv), _delete, guard=guard)


def range_(key: Key, options: RangeOptions, seen: int) -> Verb[r.RangeResponse]:
    """A range with its whole answer."""
    return Verb(False, Method.RANGE, range_arguments(key, options, seen), _range)


def txn(
    when: Sequence[Compare],
    then: Sequence[Operation],
    orelse: Sequence[Operation],
    seen: int = 0,
    guard: Guard | None = None,
) -> Verb[r.TxnResponse]:
    """A transaction; one that only reads is a request, which can be retried, unless a guard needs the log's order.

    `seen` is the highest revision that this client has seen.
    """
    is_write = guard is not None or any(operation.code is not Op.RANGE for operation in (*then, *orelse))
    if not is_write:
        then, orelse = ([_not_before(seen, operation) for operation in branch] for branch in (then, orelse))
    arguments = txn_arguments(when, then, orelse)
    return Verb(is_write, Op.TXN if is_write else Method.TXN, arguments, _txn, guard=guard)


def _not_before(seen: int, operation: Operation) -> Operation:
    # S29: only here is it known what the client has seen; the operation was made without one.
    if len(operation.arguments) != _RANGE_ITEMS:
        return operation
    return Operation(operation.code, [*operation.arguments[:-1], max(seen, operation.arguments[-1])])


def compare_and_set(key: Key, current: KeyValue | None, value: bytes | None) -> Verb[r.TxnResponse]:
    """Set `key` to `value`, or delete it for None, if it is still `current`; else read it."""
    start = key_bytes(key)
    seen = 0 if current is None else current.mod_revision
    change: list[Operation] = []
    if value is not None:
        # A plain put would detach the key from its lease.
        keeps_lease = current is not None
        change = [Operation(Op.PUT, put_arguments(start, value, 0, False, False, keeps_lease))]
    elif current is not None:
        change = [Operation(Op.DELETE_RANGE, [start])]
    is_same = Compare(CompareTarget.MOD, CompareResult.EQUAL, start, seen)
    return txn([is_same], change, [Operation(Op.RANGE, [start])])


def queue(
    key: bytes, value: bytes, lease: int, rivals: Iterable[tuple[bytes, bytes]], limit: int
) -> Verb[r.TxnResponse]:
    """Put `key` behind the keys of the rivals' intervals; where there are any, read the newest `limit` of each as well.

    Written as it is on the wire: what it is made of else costs a lock nobody waits for a tenth of its time.
    """
    alone: list[bytes] = []
    newest: list[bytes] = []
    for start, end in rivals:
        first, last = bytes_head(len(start)) + start, bytes_head(len(end)) + end
        alone += (_IS_ABSENT, first, b"\0", last)
        newest += (_NEWEST, first, last, uint(limit), _KEYS_ONLY)
    count = len(alone) // 4
    put = b"".join((_PUT_WITH_LEASE, bytes_head(len(key)), key, bytes_head(len(value)), value, uint(lease), b"\xf5"))
    branches = (b"\x81", put, array_head(count + 1), *newest, put)
    return Verb(True, Op.TXN, b"".join((b"\x83", array_head(count), *alone, *branches)), _txn)


def current_of(response: r.TxnResponse) -> KeyValue | None:
    """Return the key that a `compare_and_set` found changed."""
    found = response.responses[0]
    assert isinstance(found, r.RangeResponse)
    return found.kvs[0] if found.kvs else None


def compact(revision: int, physical: bool) -> Verb[r.CompactResponse]:
    """A compaction; with `physical` the answer waits until the space is free."""
    arguments: list[Any] = [integer(revision), True] if physical else [integer(revision)]
    return Verb(True, Op.COMPACT, arguments, lambda header, _: r.CompactResponse(header))


def lease_grant(ttl_s: int, lease: int) -> Verb[r.LeaseGrantResponse]:
    """A new lease; `lease` 0 lets the node choose the id."""
    arguments = [integer(ttl_s), integer(lease)] if lease else [integer(ttl_s)]
    return Verb(True, Op.LEASE_GRANT, arguments, lambda header, wire: r.LeaseGrantResponse(header, wire[0], wire[1]))


def lease_revoke(lease: int) -> Verb[r.LeaseRevokeResponse]:
    """The end of a lease and its keys."""
    return Verb(True, Op.LEASE_REVOKE, [integer(lease)], lambda header, _: r.LeaseRevokeResponse(header))


def lease_keep_alive(lease: int, ttl_s: float) -> Verb[r.LeaseKeepAliveResponse]:
    """One renewal of a lease whose TTL is `ttl_s`, 0 if that is not known.

    Its answer raises `NotFound` if there is no such lease.
    """
    patience_s = ttl_s / KEEP_ALIVE_PATIENCE if ttl_s else inf
    return Verb(False, Method.LEASE_KEEP_ALIVE, [[integer(lease)]], _keep_alive, patience_s)


def lease_keep_alives(leases: Sequence[int], ttl_s: float) -> Verb[list[tuple[int, int]]]:
    """One renewal of many leases, the shortest of whose TTLs is `ttl_s`.

    The answer has each with its TTL, 0 if there is no such lease.
    """
    arguments: list[Any] = [[integer(lease) for lease in leases]]
    return Verb(
        False,
        Method.LEASE_KEEP_ALIVE,
        arguments,
        lambda _, wire: [(item[0], item[1]) for item in wire],
        ttl_s / KEEP_ALIVE_PATIENCE,
    )


def lease_time_to_live(lease: int, keys: bool) -> Verb[r.LeaseTimeToLiveResponse]:
    """What is left of a lease."""
    arguments: list[Any] = [integer(lease), True] if keys else [integer(lease)]
    return Verb(
        False,
        Method.LEASE_TIME_TO_LIVE,
        arguments,
        lambda header, wire: r.LeaseTimeToLiveResponse(header, wire[0], wire[1], wire[2], wire[3]),
    )


def lease_leases() -> Verb[r.LeaseLeasesResponse]:
    """All leases."""
    return Verb(False, Method.LEASE_LEASES, [], r.LeaseLeasesResponse)


def status() -> Verb[r.StatusResponse]:
    """How the node that answers stands."""
    return Verb(False, Method.STATUS, [], lambda header, wire: r.StatusResponse(header, *wire[:10]))


def member_list(linearizable: bool) -> Verb[r.MemberListResponse]:
    """The members."""
    return Verb(
        False,
        Method.MEMBER_LIST,
        [bool(linearizable)],
        lambda header, wire: r.MemberListResponse(header, _members(wire)),
    )


def member_add(peer_urls: Sequence[str], is_learner: bool) -> Verb[r.MemberAddResponse]:
    """A new member, which is reached at `peer_urls`."""
    return Verb(
        False,
        Method.MEMBER_ADD,
        [_urls(peer_urls), bool(is_learner)],
        lambda header, wire: r.MemberAddResponse(header, Member.from_wire(wire[0]), _members(wire[1])),
    )


def member_remove(ids: Sequence[int]) -> Verb[r.MemberRemoveResponse]:
    """The end of members, in one step."""
    return Verb(
        False,
        Method.MEMBER_REMOVE,
        [[_member(member_id) for member_id in ids]],
        lambda header, wire: r.MemberRemoveResponse(header, _members(wire)),
    )


def member_update(member_id: int, peer_urls: Sequence[str]) -> Verb[r.MemberUpdateResponse]:
    """Other peer URLs for a member."""
    return Verb(
        False,
        Method.MEMBER_UPDATE,
        [_member(member_id), _urls(peer_urls)],
        lambda header, wire: r.MemberUpdateResponse(header, _members(wire)),
    )


def member_promote(member_id: int) -> Verb[r.MemberPromoteResponse]:
    """A vote for a learner."""
    return Verb(
        False,
        Method.MEMBER_PROMOTE,
        [_member(member_id)],
        lambda header, wire: r.MemberPromoteResponse(header, _members(wire)),
    )


def move_leader(member_id: int) -> Verb[r.MoveLeaderResponse]:
    """The lead for another voter; 0: the leader chooses."""
    return Verb(False, Method.MOVE_LEADER, [_member(member_id)], r.MoveLeaderResponse)


def hash_kv(revision: int) -> Verb[r.HashKVResponse]:
    """The hash of the history up to `revision`; 0: all."""
    return Verb(
        False,
        Method.HASH_KV,
        [integer(revision)] if revision else [],
        lambda header, wire: r.HashKVResponse(header, wire[0], wire[1], wire[2]),
    )


def alarm_list() -> Verb[r.AlarmResponse]:
    """The alarms that are on."""
    return Verb(False, Method.ALARM_LIST, [], _alarms)


def alarm(action: AlarmAction, member_id: int, alarm_type: AlarmType) -> Verb[r.AlarmResponse]:
    """Switch alarms."""
    return Verb(True, Op.ALARM, [int(action), member_id, int(alarm_type)], _alarms)


def _member(member_id: int) -> int:
    # The ids of members use all 64 bits.
    if not 0 <= member_id < 2**64:
        raise ValueError(f"{member_id} is no member's id: 64 bits, unsigned")
    return member_id


def _urls(peer_urls: Sequence[str]) -> list[str]:
    # One text alone is a sequence too, of its letters.
    return [peer_urls] if isinstance(peer_urls, str) else list(peer_urls)


def _members(wire: Any) -> list[Member]:
    return [Member.from_wire(item) for item in wire]


def _put(header: r.Header, wire: Any) -> r.PutResponse:
    return r.PutResponse(header, None if wire is None else r.key_value(wire))


def _delete(header: r.Header, wire: Any) -> r.DeleteResponse:
    return r.DeleteResponse(header, wire[0], r.key_values(wire[1]))


def _range(header: r.Header, wire: Any) -> r.RangeResponse:
    return r.RangeResponse(header, r.key_values(wire[0]), wire[1], wire[2])


def _txn(header: r.Header, wire: Any) -> r.TxnResponse:
    responses = []
    for item in wire[1]:
        inner = r.Header(header.cluster_id, header.member_id, item[1], header.raft_term)
        responses.append(_BY_OP[item[0]](inner, item[2]))
    return r.TxnResponse(header, wire[0], responses)


_BY_OP: dict[int, Callable[[r.Header, Any], Any]] = {
    Op.PUT: _put,
    Op.DELETE_RANGE: _delete,
    Op.TXN: _txn,
    Op.RANGE: _range,
}


def _keep_alive(header: r.Header, wire: Any) -> r.LeaseKeepAliveResponse:
    lease, ttl_s = wire[0][0], wire[0][1]
    if ttl_s <= 0:
        raise lease_not_found()
    return r.LeaseKeepAliveResponse(header, lease, ttl_s)


def _alarms(header: r.Header, wire: Any) -> r.AlarmResponse:
    return r.AlarmResponse(header, r.alarms(wire))

"""What the calls of a client return.

Every response has a `header`: who answered, and at which revision of the store. The short verbs (`put`,
`get`, `delete`) return only what is usually wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from attrs import frozen

from coord.protocol.entries import Member
from coord.types import AlarmType, Event, EventType, KeyValue, LeaseId, Revision


@frozen
class Header:
    """Who answered, and when: the revision is the store's after the request."""

    cluster_id: int
    member_id: int
    revision: Revision
    raft_term: int


@frozen
class PutResponse:
    """`prev_kv` is the pair before, if it was asked for and there was one."""

    header: Header
    prev_kv: KeyValue | None


@frozen
class DeleteResponse:
    """`deleted` is how many keys went; `prev_kvs` what they were, if asked for."""

    header: Header
    deleted: int
    prev_kvs: list[KeyValue]


@frozen
class RangeResponse:
    """`count` is the number of keys in the interval before limit and filters; `more`: the limit cut."""

    header: Header
    kvs: list[KeyValue]
    more: bool
    count: int


@frozen
class TxnResponse:
    """`succeeded` tells which branch ran; `responses` has one response per operation of that branch."""

    header: Header
    succeeded: bool
    responses: list[PutResponse | DeleteResponse | RangeResponse | TxnResponse]


@frozen
class CompactResponse:
    """Revisions below the one given can no longer be read."""

    header: Header


@frozen
class LeaseGrantResponse:
    """`ttl_s` may be longer than what was asked for."""

    header: Header
    id: LeaseId
    ttl_s: int


@frozen
class LeaseRevokeResponse:
    """The lease and its keys are gone."""

    header: Header


@frozen
class LeaseKeepAliveResponse:
    """The lease lives for `ttl_s` seconds more; 0: there is no such lease."""

    header: Header
    id: LeaseId
    ttl_s: int


@frozen
class LeaseTimeToLiveResponse:
    """`ttl_s` is what is left, -1 if there is no such lease; `keys` are those attached, if asked for."""

    header: Header
    id: LeaseId
    ttl_s: int
    granted_ttl_s: int
    keys: list[bytes]


@frozen
class LeaseLeasesResponse:
    """The ids of all leases."""

    header: Header
    leases: list[LeaseId]


@frozen
class StatusResponse:
    """How one member stands; sizes in bytes."""

    header: Header
    version: str
    db_size: int
    db_size_in_use: int
    db_size_quota: int
    leader_id: int
    raft_index: int
    raft_term: int
    raft_applied_index: int
    errors: list[str]
    is_learner: bool


@frozen
class MemberListResponse:
    """The members of the cluster."""

    header: Header
    members: list[Member]


@frozen
class MemberAddResponse:
    """`member` is the new one, a learner at first in any case; `members` are all."""

    header: Header
    member: Member
    members: list[Member]


@frozen
class MemberRemoveResponse:
    """`members` are those that stay."""

    header: Header
    members: list[Member]


@frozen
class MemberUpdateResponse:
    """`members` are all."""

    header: Header
    members: list[Member]


@frozen
class MemberPromoteResponse:
    """`members` are all."""

    header: Header
    members: list[Member]


@frozen
class MoveLeaderResponse:
    """`leader_id` leads now."""

    header: Header
    leader_id: int


@frozen
class HashKVResponse:
    """A hash of everything between `compact_revision` and `hash_revision`, equal on all members."""

    header: Header
    hash: int
    compact_revision: int
    hash_revision: int


@frozen
class Alarm:
    """An alarm that a member raised; it binds the whole cluster."""

    member_id: int
    alarm: AlarmType


@frozen
class AlarmResponse:
    """The alarms that are on, or that were switched."""

    header: Header
    alarms: list[Alarm]


@frozen
class Health:
    """Whether one endpoint serves: `error` says why not; `took_s` how long the answer took."""

    endpoint: str
    is_healthy: bool
    took_s: float
    error: str


@frozen
class Batch:
    """What one revision changed, as a watch sees it; no events: word that nothing up to it is missing."""

    revision: Revision
    events: Sequence[Event]


_make_pair = KeyValue._make
_PAIR_ITEMS: Final = len(KeyValue._fields)
"""A newer node may send more."""
_PAIR_LENGTHS: Final = {_PAIR_ITEMS}
_new_pair: Callable[[Sequence[Any]], KeyValue] = partial(tuple.__new__, KeyValue)


def key_value(wire: Sequence[Any]) -> KeyValue:
    """Return the pair that coord.cddl's `key-value` tells of."""
    return _make_pair(wire[:_PAIR_ITEMS])


def event(wire: Sequence[Any]) -> Event:
    """Return the event that coord.cddl's `event` tells of."""
    prev = wire[2]
    return Event(EventType(wire[0]), key_value(wire[1]), None if prev is None else key_value(prev))


def batch(wire: Sequence[Any]) -> tuple[Batch, bool]:
    """Return the events that coord.cddl's `events` notification tells of, and whether more of their revision follow."""
    return Batch(wire[2], [event(item) for item in wire[3]]), len(wire) > 4 and wire[4]


def key_values(wire: Sequence[Sequence[Any]]) -> list[KeyValue]:
    """Return the pairs of a list."""
    if set(map(len, wire)) == _PAIR_LENGTHS:
        # As `_make` does it, without a call of Python's for each of ten thousand.
        return list(map(_new_pair, wire))
    return [_make_pair(item[:_PAIR_ITEMS]) for item in wire]


def describe_alarms(found: Sequence[Alarm]) -> str:
    """Return the alarms in words; empty if there are none."""
    return ", ".join(f"alarm {alarm.alarm.name} of member {alarm.member_id:x}" for alarm in found)


def alarms(wire: Sequence[Sequence[Any]]) -> list[Alarm]:
    """Return the alarms of a list."""
    return [Alarm(item[0], AlarmType(item[1])) for item in wire]

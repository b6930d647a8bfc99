"""The words in which a scenario is told: requests, replies, and the symbols that tie them to a run.

A scenario runs against servers that hold other data already, so it never names an absolute key, revision or lease.
A `str` key stands below the scenario's own prefix; `At(2)` is the second revision after its start; `Lease(1)` is its
first lease. `bind` puts the run's values in their place; what a driver sees and returns has plain values only.
"""

from __future__ import annotations

from typing import Any

import attrs
from attrs import field, frozen

from coord.errors import Code
from coord.types import prefix_end


@frozen
class Name:
    """A key below the scenario's prefix."""

    text: str


@frozen
class PrefixEnd:
    """The end of the range of all keys that start with `text` below the scenario's prefix."""

    text: str


@frozen
class At:
    """A revision, counted from the one at which the scenario starts."""

    offset: int


@frozen
class Lease:
    """A lease id of the scenario's own."""

    number: int


class _Anything:
    """Equal to every value: the scenario does not say."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "ANY"


ANY: Any = _Anything()


@frozen(eq=False)
class Between:
    """Equal to every number from `low` to `high`: what depends on a clock."""

    low: int
    high: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and self.low <= other <= self.high

    def __hash__(self) -> int:
        return 0


@frozen
class Scope:
    """What the symbols of a scenario stand for in one run."""

    prefix: bytes
    start: int
    lease_base: int

    def bind(self, item: Any) -> Any:
        """Return `item` with its symbols replaced, through lists, tuples and requests."""
        match item:
            case Name(text):
                return self.prefix + text.encode()
            case PrefixEnd(text):
                return prefix_end(self.prefix + text.encode())
            case At(offset):
                return self.start + offset
            case Lease(number):
                return self.lease_base + number
            case list() | tuple():
                return tuple(self.bind(part) for part in item)
        if attrs.has(type(item)) and not isinstance(item, Between):
            bound = {one.name: self.bind(getattr(item, one.name)) for one in attrs.fields(type(item))}
            return type(item)(**bound)
        return item


@frozen
class Step:
    """A request and the reply that it must get; None where any reply but an error will do."""

    request: Request
    expected: Any = None


@frozen
class Either:
    """A reply on which coord and etcd 3.4 differ; the scenario says why."""

    coord: Any
    etcd: Any


class Request:
    """Base of requests; `request >> reply` is a step."""

    __slots__ = ()

    def __rshift__(self, expected: Any) -> Step:
        return Step(self, expected)


@frozen
class Put(Request):
    """etcd's PutRequest."""

    key: Any
    value: bytes = b""
    lease: Any = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


@frozen
class Range(Request):
    """etcd's RangeRequest; sort order and target by etcd's names or, to be wrong, as numbers."""

    key: Any
    end: Any = b""
    limit: int = 0
    revision: Any = 0
    order: str | int = "NONE"
    target: str | int = "KEY"
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False
    min_mod: Any = 0
    max_mod: Any = 0
    min_create: Any = 0
    max_create: Any = 0


@frozen
class DeleteRange(Request):
    """etcd's DeleteRangeRequest."""

    key: Any
    end: Any = b""
    prev_kv: bool = False


@frozen
class Compare:
    """etcd's Compare; an operand of None leaves the union unset."""

    target: str
    result: str | int
    key: Any
    operand: Any = None
    end: Any = b""


@frozen
class Txn(Request):
    """etcd's TxnRequest; operations are `Put`, `Range`, `DeleteRange` and `Txn`."""

    compares: tuple[Compare, ...] = ()
    success: tuple[Any, ...] = ()
    failure: tuple[Any, ...] = ()


@frozen
class Compact(Request):
    """etcd's CompactionRequest."""

    revision: Any
    physical: bool = False


@frozen
class Grant(Request):
    """etcd's LeaseGrantRequest."""

    ttl: int
    id: Any = 0


@frozen
class Revoke(Request):
    """etcd's LeaseRevokeRequest."""

    id: Any


@frozen
class TimeToLive(Request):
    """etcd's LeaseTimeToLiveRequest."""

    id: Any
    keys: bool = False


@frozen
class KeepAlive(Request):
    """One etcd LeaseKeepAliveRequest and its answer."""

    id: Any


@frozen
class Leases(Request):
    """etcd's LeaseLeasesRequest."""


@frozen
class Alarm(Request):
    """etcd's AlarmRequest: `action` is GET, ACTIVATE or DEACTIVATE, `kind` NONE, NOSPACE or CORRUPT."""

    action: str
    kind: str = "NONE"
    member: int = 0


@frozen
class Watch(Request):
    """etcd's WatchCreateRequest on the scenario's stream of that name; the first one opens the stream."""

    stream: str
    key: Any
    end: Any = b""
    start: Any = 0
    id: int = 0
    no_put: bool = False
    no_delete: bool = False
    prev_kv: bool = False
    progress_notify: bool = False
    fragment: bool = False


@frozen
class NextEvents(Request):
    """Wait until a watch has told `count` more events."""

    stream: str
    watch: int
    count: int


@frozen
class NextCancel(Request):
    """Wait until the server ends a watch."""

    stream: str
    watch: int


@frozen
class CancelWatch(Request):
    """etcd's WatchCancelRequest."""

    stream: str
    watch: int


@frozen
class Progress(Request):
    """etcd's WatchProgressRequest."""

    stream: str


@frozen
class KeyValue:
    """A pair, as replies and events carry it."""

    key: Any
    value: bytes
    created: Any
    modified: Any
    version: int
    lease: Any = 0


@frozen
class Refused:
    """An error reply."""

    code: Code = field(converter=Code)
    text: str


@frozen
class PutDone:
    """etcd's PutResponse; `at` is the header's revision here and below."""

    previous: KeyValue | None = None
    at: Any = ANY


@frozen
class Found:
    """etcd's RangeResponse."""

    pairs: tuple[KeyValue, ...]
    more: bool
    count: int
    at: Any = ANY


@frozen
class Deleted:
    """etcd's DeleteRangeResponse."""

    count: int
    previous: tuple[KeyValue, ...] = ()
    at: Any = ANY


@frozen
class TxnDone:
    """etcd's TxnResponse. The header of a nested one says nothing in etcd, so its `at` is 0."""

    succeeded: bool
    replies: tuple[Any, ...] = ()
    at: Any = ANY


@frozen
class Done:
    """A reply that has a header alone: compaction, lease revocation."""

    at: Any = ANY


@frozen
class Granted:
    """etcd's LeaseGrantResponse."""

    id: Any
    ttl: Any
    at: Any = ANY


@frozen
class Remaining:
    """etcd's LeaseTimeToLiveResponse."""

    id: Any
    ttl: Any
    granted: int = 0
    keys: tuple[Any, ...] = ()


@frozen
class Alive:
    """etcd's LeaseKeepAliveResponse."""

    id: Any
    ttl: Any


@frozen
class LeaseIds:
    """etcd's LeaseLeasesResponse, less the leases of others."""

    ids: tuple[Any, ...]


@frozen
class Alarms:
    """etcd's AlarmResponse: `(member, kind)` of each alarm."""

    alarms: tuple[tuple[int, str], ...]


@frozen
class Created:
    """A watch was made."""

    watch: Any


@frozen
class WatchRefused:
    """A watch was not made."""

    reason: str


@frozen
class Happened:
    """An event of a watch: `kind` is PUT or DELETE."""

    kind: str
    pair: KeyValue
    previous: KeyValue | None = None


@frozen
class Events:
    """What a watch told; `fragmented` if a revision came in several messages, each marked so but the last."""

    events: tuple[Happened, ...]
    fragmented: bool = False


@frozen
class Canceled:
    """The end of a watch; `compacted` is the compacted revision, where that is why."""

    compacted: Any = 0


@frozen
class NoSuchWatch:
    """The answer to the cancelling of a watch that is not there."""


@frozen
class Nothing:
    """No answer at all."""


@frozen
class Progressed:
    """The answer to a progress request: all events up to revision `at` are told."""

    at: Any


@frozen
class Row:
    """A scenario: a rule and the steps that show it.

    `section` is the rule's place in the notes on etcd's semantics, number and title. `differs` says why coord does it
    otherwise on purpose, `newer` that etcd 3.4 predates the rule; such a row has a step that expects `Either`. A
    `fresh` row needs a server of its own; an `edge` row is judged before the state machine sees the request.
    """

    name: str
    section: str
    rule: str
    steps: tuple[Step, ...]
    differs: str = ""
    newer: str = ""
    fresh: bool = False
    edge: bool = False

    @property
    def watches(self) -> bool:
        """True if the scenario needs a connection that events can come on."""
        return any(isinstance(step.request, Watch | Progress) for step in self.steps)

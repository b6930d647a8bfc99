"""The blocking client: the verbs of the Trio client, for scripts and one-shot commands. Never loads Trio."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

from coord.client import responses as r
from coord.client import verbs
from coord.client.blocking_calls import BlockingCalls
from coord.client.blocking_watch import BlockingWatch
from coord.client.clock import Clock, boot_time
from coord.client.endpoints import ENDPOINTS_DEFAULT, Endpoint, Rotation, parse_endpoints
from coord.client.failing import TIMEOUT_DEFAULT_S
from coord.client.fence import Fence, guard_of
from coord.client.many import Pairs, put_many_arguments, revisions
from coord.client.txn import Compare, Key, Operation, interval
from coord.client.verbs import RangeOptions, Verb
from coord.client.watching import WatchState
from coord.errors import CoordError
from coord.protocol.ops import AlarmAction, Op
from coord.types import AlarmType, KeyValue, LeaseId, Revision

if TYPE_CHECKING:
    from coord.client.recipes.blocking_barrier import BlockingBarrier
    from coord.client.recipes.blocking_discovery import BlockingDiscovery
    from coord.client.recipes.blocking_keeper import BlockingKeeper
    from coord.client.recipes.blocking_observation import BlockingObservation
    from coord.client.recipes.blocking_queue import BlockingQueue
    from coord.client.recipes.blocking_session import BlockingSession

Answer = TypeVar("Answer")


def connect_sync(
    endpoints: str | Sequence[str] = ENDPOINTS_DEFAULT,
    *,
    timeout: float = TIMEOUT_DEFAULT_S,
    connect_timeout: float | None = None,
    name: str = "",
    exactly_once: bool = True,
    random: Random | None = None,
    clock: Clock = boot_time,
) -> BlockingClient:
    """Return a blocking client; it connects at its first call. Use it in a `with` block, or `close()` it.

    `endpoints` are `host:port`, `[v6]:port`, `http://` or `ws://` URLs, comma separated or in a sequence;
    `timeout` is in seconds and holds for each call that names none; `connect_timeout`, where given, is how much of it
    may go by without a connection; `name` shows up in the node's logs. Without `exactly_once` the cluster keeps no
    record of the client: its first write is one round trip shorter, as one-shot commands want it, and a write is not
    sent again where that could do it twice. `random` and `clock` are for tests. Raises `ValueError` for an endpoint
    that cannot be one.
    """
    parsed = parse_endpoints(endpoints)
    return BlockingClient(parsed, timeout, connect_timeout, name, exactly_once, random or Random(), clock)


class BlockingClient:
    """A client whose calls block.

    Threads may share it: one call runs at a time, each waits for the one before. Every watch has a connection
    of its own and holds up nobody. Reads are linearizable unless `serializable` is asked for. What a node does not
    answer, or cannot serve, is sent again, through other nodes too, until its timeout: a write is numbered, so that it
    is applied at most once however often it is sent, and ends with `OutcomeUnknown` where the client cannot know. After
    `fork` the child's client is another one, with connections and a client id of its own.
    """

    def __init__(
        self,
        endpoints: list[Endpoint],
        timeout: float,
        connect_timeout: float | None,
        name: str,
        exactly_once: bool,
        random: Random,
        clock: Clock,
    ) -> None:
        self._calls = BlockingCalls(Rotation(endpoints, random), timeout, connect_timeout, name, random, exactly_once)
        self._watch_ids = itertools.count(1)
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; later calls raise `ClientClosed`, and sessions are lost."""
        if "_keeper" in self.__dict__:
            self._keeper.close()
            self._watching.abort()
        self._calls.close()

    @property
    def revision(self) -> Revision:
        """The highest revision that this client has seen; 0 before its first answer."""
        return Revision(self._calls.revision)

    @property
    def endpoints(self) -> list[str]:
        """The endpoints, as they were given."""
        return [str(endpoint) for endpoint in self._calls.rotation.endpoints]

    # -- keys

    def put(
        self,
        key: Key,
        value: bytes,
        *,
        lease: int = 0,
        ignore_value: bool = False,
        ignore_lease: bool = False,
        fence: Fence | None = None,
        timeout: float | None = None,
    ) -> Revision:
        """Put a key and return the revision that did it.

        `lease` attaches the key to a lease, 0 detaches it; `ignore_value` and `ignore_lease` keep what stands. With
        `fence`, a lock or a leadership, it is put only while that is held: the cluster raises `FenceLost` otherwise.
        """
        verb = verbs.put(key, value, lease, False, ignore_value, ignore_lease, guard_of(fence))
        return self._call(verb, timeout, fence).header.revision

    def put_many(
        self, pairs: Pairs, *, lease: int = 0, fence: Fence | None = None, timeout: float | None = None
    ) -> list[Revision]:
        """Put many keys, a mapping or pairs of key and value, and return the revision of each, in their order.

        They share frames, but unlike the puts of a transaction each is a write of its own: others may read or write
        between them, and each may fail alone. Raises `PutsFailed`, which has the outcome of each, if some did;
        `ValueError`, before any is sent, for a key that is there twice, or more than 10 000. `lease` and `fence` hold
        for each as for `put`, `timeout` for all together.
        """
        arguments = put_many_arguments(pairs, lease)
        return revisions(arguments, self._calls.ask_many(Op.PUT, arguments, timeout, fence))

    def put_response(
        self,
        key: Key,
        value: bytes,
        *,
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
        fence: Fence | None = None,
        timeout: float | None = None,
    ) -> r.PutResponse:
        """Put a key and return the whole answer; `prev_kv` asks for the pair before."""
        verb = verbs.put(key, value, lease, prev_kv, ignore_value, ignore_lease, guard_of(fence))
        return self._call(verb, timeout, fence)

    def get(
        self, key: Key, *, revision: int = 0, serializable: bool = False, timeout: float | None = None
    ) -> KeyValue | None:
        """Return a key as it is, or as it was at `revision`; None if it is absent."""
        options: RangeOptions = {"revision": revision, "serializable": serializable}
        kvs = self.range_response(key, timeout=timeout, **options).kvs
        return kvs[0] if kvs else None

    def range_response(
        self, key: Key, *, timeout: float | None = None, **options: Unpack[RangeOptions]
    ) -> r.RangeResponse:
        """Read a key or an interval in one answer, with all options of `RangeOptions`."""
        return self._call(verbs.range_(key, options, self._calls.revision), timeout)

    def range(
        self,
        key: Key,
        *,
        prefix: bool = False,
        range_end: Key | None = None,
        revision: int = 0,
        keys_only: bool = False,
        serializable: bool = False,
        page: int = 1000,
        timeout: float | None = None,
    ) -> Iterator[KeyValue]:
        """Yield an interval in the order of its keys, `page` keys a request, all at one revision.

        `timeout` holds for each page. Raises `Compacted` if that revision is compacted away meanwhile.
        """
        start, end = interval(key, prefix, range_end)
        while True:
            options: RangeOptions = {"limit": page, "revision": revision, "keys_only": keys_only}
            options["serializable"] = serializable
            if end:
                options["range_end"] = end
            response = self.range_response(start, timeout=timeout, **options)
            yield from response.kvs
            if not response.more:
                return
            start = response.kvs[-1].key + b"\0"
            revision = revision or response.header.revision

    def delete(
        self,
        key: Key,
        *,
        prefix: bool = False,
        range_end: Key | None = None,
        fence: Fence | None = None,
        timeout: float | None = None,
    ) -> int:
        """Delete a key or an interval, with `fence` only while that is held; return how many keys went."""
        return self._call(verbs.delete(key, prefix, range_end, False, guard_of(fence)), timeout, fence).deleted

    def delete_response(
        self,
        key: Key,
        *,
        prefix: bool = False,
        range_end: Key | None = None,
        prev_kv: bool = False,
        fence: Fence | None = None,
        timeout: float | None = None,
    ) -> r.DeleteResponse:
        """Delete and return the whole answer; `prev_kv` asks for the pairs that went."""
        return self._call(verbs.delete(key, prefix, range_end, prev_kv, guard_of(fence)), timeout, fence)

    def txn(
        self,
        *,
        when: Sequence[Compare] = (),
        then: Sequence[Operation] = (),
        orelse: Sequence[Operation] = (),
        fence: Fence | None = None,
        timeout: float | None = None,
    ) -> r.TxnResponse:
        """Run `then` if all of `when` hold, else `orelse`, at one revision.

        With `fence`, a lock or a leadership, no branch runs once that is lost: the cluster raises `FenceLost`.
        """
        return self._call(verbs.txn(when, then, orelse, self._calls.revision, guard_of(fence)), timeout, fence)

    def update(
        self, key: Key, change: Callable[[bytes | None], bytes | None], *, timeout: float | None = None
    ) -> Revision:
        """Set `key` to what `change` makes of its value, unless somebody was faster, then try again.

        `change` is given None for an absent key, and may return None to have it deleted; it may be called
        several times. The key keeps its lease. Returns the revision of the change.
        """
        deadline = time.monotonic() + self._calls.seconds(timeout)
        current = self.get(key, timeout=timeout)
        while True:
            verb = verbs.compare_and_set(key, current, change(None if current is None else current.value))
            response = self._call(verb, deadline - time.monotonic())
            if response.succeeded:
                return response.header.revision
            current = verbs.current_of(response)

    def compact(self, revision: int, *, physical: bool = False, timeout: float | None = None) -> r.CompactResponse:
        """Forget all revisions below `revision`; with `physical`, wait until their space is free."""
        return self._call(verbs.compact(revision, physical), timeout)

    # -- leases

    def lease_grant(self, ttl_s: int, *, lease: int = 0, timeout: float | None = None) -> r.LeaseGrantResponse:
        """Grant a lease of `ttl_s` seconds or more; `lease` 0 has its id chosen."""
        return self._call(verbs.lease_grant(ttl_s, lease), timeout)

    def lease_revoke(self, lease: int, *, timeout: float | None = None) -> r.LeaseRevokeResponse:
        """End a lease and delete its keys. Raises `NotFound`."""
        return self._call(verbs.lease_revoke(lease), timeout)

    def lease_keep_alive_once(
        self, lease: int, *, ttl_s: float = 0, timeout: float | None = None
    ) -> r.LeaseKeepAliveResponse:
        """Renew a lease for its whole TTL. Raises `NotFound`.

        With `ttl_s`, its TTL, a node that is silent for a sixth of it is given up, and another one asked.
        """
        return self._call(verbs.lease_keep_alive(lease, ttl_s), timeout)

    def lease_time_to_live(
        self, lease: int, *, keys: bool = False, timeout: float | None = None
    ) -> r.LeaseTimeToLiveResponse:
        """Return what is left of a lease, and its keys if asked for; `ttl_s` -1: there is none."""
        return self._call(verbs.lease_time_to_live(lease, keys), timeout)

    def leases(self, *, timeout: float | None = None) -> list[LeaseId]:
        """Return the ids of all leases."""
        return self.leases_response(timeout=timeout).leases

    def leases_response(self, *, timeout: float | None = None) -> r.LeaseLeasesResponse:
        """Return the ids of all leases, with the header."""
        return self._call(verbs.lease_leases(), timeout)

    # -- watches

    def watch(
        self,
        key: Key,
        *,
        prefix: bool = False,
        range_end: Key | None = None,
        since: int = 0,
        prev_kv: bool = False,
        no_put: bool = False,
        no_delete: bool = False,
        progress_notify: bool = False,
        timeout: float | None = None,
    ) -> BlockingWatch:
        """Watch a key or an interval from revision `since` on, 0 from now on; see `BlockingWatch`.

        Returns when the watch stands, within `timeout` seconds. `no_put` and `no_delete` leave these events
        out; `prev_kv` adds the pair before to each.
        """
        start, end = interval(key, prefix, range_end)
        state = WatchState(0, start, end, since, no_put, no_delete, prev_kv, progress_notify)
        watch = BlockingWatch(self._calls.open, self._watch_ids, state)
        watch.start(self._calls.seconds(timeout))
        return watch

    # -- recipes

    def session(self, ttl: int = 10) -> BlockingSession:
        """Return a session, a lease of `ttl` seconds or more that is kept alive: `with client.session() as session`.

        The shorter the TTL, the sooner others take over from a crashed holder, and the shorter an interruption that
        costs the session; from 5 s on it outlives the silent loss of the node that it talks to. Raises `ValueError` if
        the client is not `exactly_once`.
        """
        # Not loaded by scripts that only put and get.
        from coord.client.recipes.blocking_session import BlockingSession

        if not self._calls.is_numbering:
            raise ValueError("a session needs a client that is exactly_once: a late write of another could undo a lock")
        return BlockingSession(self._calls, self._watching, self._keeper, self._clock, ttl)

    def observe(self, name: Key, *, timeout: float | None = None) -> BlockingObservation:
        """Observe who owns an election or a lock; to be used with `with`, then `for`. `timeout` is for entering."""
        from coord.client.recipes.blocking_observation import BlockingObservation

        return BlockingObservation(self, name, timeout)

    def discover(
        self, service: Key, *, random: Random | None = None, timeout: float | None = None
    ) -> BlockingDiscovery:
        """Open a live view of the instances of `service`; to be used with `with`.

        `timeout` is for entering; `random` is for tests.
        """
        from coord.client.recipes.blocking_discovery import BlockingDiscovery

        return BlockingDiscovery(self, service, random or Random(), timeout)

    def barrier(self, name: Key) -> BlockingBarrier:
        """Return the barrier `name`, which is up while that key is there."""
        from coord.client.recipes.blocking_barrier import BlockingBarrier

        return BlockingBarrier(self._calls, name)

    def queue(self, name: Key) -> BlockingQueue:
        """Return the queue `name`, whose items are keys below `name/`."""
        from coord.client.recipes.blocking_queue import BlockingQueue

        return BlockingQueue(self._calls, name)

    # -- the cluster

    def status(self, endpoint: str | None = None, *, timeout: float | None = None) -> r.StatusResponse:
        """Return how the member at `endpoint` stands; None: the one this client is connected to."""
        return self._at(endpoint, verbs.status(), timeout)

    def member_list(self, *, linearizable: bool = True, timeout: float | None = None) -> r.MemberListResponse:
        """Return the members."""
        return self._call(verbs.member_list(linearizable), timeout)

    def member_add(
        self, peer_urls: Sequence[str], *, is_learner: bool = False, timeout: float | None = None
    ) -> r.MemberAddResponse:
        """Add a member that is reached at `peer_urls`; start it afterwards, with these.

        It begins as a learner, and votes once it has caught up, unless `is_learner` keeps it one until
        `member_promote`.
        """
        return self._call(verbs.member_add(peer_urls, is_learner), timeout)

    def member_remove(self, *ids: int, timeout: float | None = None) -> r.MemberRemoveResponse:
        """Remove members, all in one step; their nodes end. Raises `NotFound`."""
        return self._call(verbs.member_remove(ids), timeout)

    def member_update(
        self, member_id: int, peer_urls: Sequence[str], *, timeout: float | None = None
    ) -> r.MemberUpdateResponse:
        """Tell the cluster that a member is reached at other peer URLs. Raises `NotFound`."""
        return self._call(verbs.member_update(member_id, peer_urls), timeout)

    def member_promote(self, member_id: int, *, timeout: float | None = None) -> r.MemberPromoteResponse:
        """Let a learner vote; refused until it has caught up. Raises `NotFound`."""
        return self._call(verbs.member_promote(member_id), timeout)

    def move_leader(self, member_id: int = 0, *, timeout: float | None = None) -> r.MoveLeaderResponse:
        """Hand the lead over to a voter; 0 lets the leader choose."""
        return self._call(verbs.move_leader(member_id), timeout)

    def hash_kv(
        self, endpoint: str | None = None, *, revision: int = 0, timeout: float | None = None
    ) -> r.HashKVResponse:
        """Return a member's hash of its history up to `revision`, 0: all."""
        return self._at(endpoint, verbs.hash_kv(revision), timeout)

    def alarms(self, *, timeout: float | None = None) -> r.AlarmResponse:
        """Return the alarms that are on."""
        return self._call(verbs.alarm_list(), timeout)

    def alarm_disarm(
        self,
        member_id: int = 0,
        alarm: AlarmType = AlarmType.NONE,
        *,
        timeout: float | None = None,
    ) -> r.AlarmResponse:
        """Switch alarms off, by default all; return those that were."""
        return self._call(verbs.alarm(AlarmAction.DEACTIVATE, member_id, alarm), timeout)

    def health(self, endpoint: str, *, timeout: float | None = None) -> r.Health:
        """Try a linearizable read and look for alarms at one endpoint."""
        started = time.monotonic()
        error = ""
        try:
            with self._only(endpoint, timeout) as probe:
                probe.get("health")
                error = r.describe_alarms(probe.alarms().alarms)
        except CoordError as failure:
            error = str(failure)
        return r.Health(endpoint, not error, time.monotonic() - started, error)

    # -- how calls are made

    @cached_property
    def _keeper(self) -> BlockingKeeper:
        from coord.client.recipes.blocking_keeper import BlockingKeeper

        return BlockingKeeper(self._calls.sibling(), self._clock)

    @cached_property
    def _watching(self) -> BlockingCalls:
        return self._calls.sibling()

    def _call(self, verb: Verb[Answer], timeout: float | None, fence: Fence | None = None) -> Answer:
        return self._calls.call(verb, timeout, None if fence is None else fence.check)

    def _only(self, endpoint: str, timeout: float | None) -> BlockingClient:
        """Return a client like this one of `endpoint` alone."""
        seconds = self._calls.seconds(timeout)
        return connect_sync(
            endpoint, timeout=seconds, connect_timeout=self._calls.connect_timeout, name=self._calls.name
        )

    def _at(self, endpoint: str | None, verb: Verb[Answer], timeout: float | None) -> Answer:
        if endpoint is None:
            return self._call(verb, timeout)
        with self._only(endpoint, timeout) as client:
            return client._call(verb, timeout)

"""The Trio client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from random import Random
from types import TracebackType
from typing import TypeVar, Unpack

import trio

from coord.client import responses as r
from coord.client import verbs
from coord.client.clock import Clock, boot_time
from coord.client.core import ClientCore
from coord.client.driver import Driver
from coord.client.endpoints import ENDPOINTS_DEFAULT, Rotation, parse_endpoints
from coord.client.failing import TIMEOUT_DEFAULT_S, unreachable
from coord.client.fence import Fence, guard_of
from coord.client.keeping import Dial, Keeping, dial_websocket
from coord.client.many import Pairs, put_many_arguments, revisions
from coord.client.pages import Pages
from coord.client.recipes.barrier import Barrier
from coord.client.recipes.discovery import Discovery
from coord.client.recipes.keeper import Keeper
from coord.client.recipes.lookout import Lookout
from coord.client.recipes.observation import Observation
from coord.client.recipes.queue import Queue
from coord.client.recipes.renewals import TTL_S_DEFAULT
from coord.client.recipes.session import Session
from coord.client.txn import Compare, Key, Operation, interval, key_bytes, value_bytes
from coord.client.verbs import RangeOptions, Verb
from coord.client.watch import Watch
from coord.client.watching import WatchState
from coord.errors import CoordError
from coord.protocol.ops import AlarmAction, Method, Op
from coord.types import AlarmType, KeyValue, LeaseId, Revision

Answer = TypeVar("Answer")
_PUT = int(Op.PUT)
_RANGE = int(Method.RANGE)


class connect(AbstractAsyncContextManager["Client"]):  # noqa: N801  # it is called, as a function would be
    """Open a client: `async with coord.connect("n1:7379,n2:7379") as client: ...`.

    `endpoints` are `host:port`, `[v6]:port`, `http://` or `ws://` URLs, comma separated or in a sequence; `timeout`
    is in seconds and holds for each call that names none, and for connecting; `name` shows up in the nodes' logs.
    Without `exactly_once` the cluster keeps no record of the client: its first write is one round trip shorter, and a
    write is not sent again where that could do it twice.
    `random`, `dial` and `clock` are for tests. Raises `ValueError` for an endpoint that cannot be one; entering raises
    `ConnectionFailed` if none can be reached. What the body raises leaves it as it is, not in a group.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str] = ENDPOINTS_DEFAULT,
        *,
        timeout: float = TIMEOUT_DEFAULT_S,
        name: str = "",
        exactly_once: bool = True,
        random: Random | None = None,
        dial: Dial = dial_websocket,
        clock: Clock = boot_time,
    ) -> None:
        rotation = Rotation(parse_endpoints(endpoints), random or Random())
        self._core = ClientCore(rotation, exactly_once)
        self._timeout = timeout
        self._nursery_manager = trio.open_nursery()
        self._serving = trio.CancelScope(shield=True)
        self._name = name
        self._dial = dial
        self._clock = clock

    async def __aenter__(self) -> Client:
        self._driver = Driver(self._core, self._timeout)
        nursery = await self._nursery_manager.__aenter__()
        self._nursery = nursery
        connected = trio.Event()
        try:
            nursery.start_soon(self._serve, connected)
            with trio.move_on_after(self._timeout):
                await connected.wait()
            if not connected.is_set():
                raise unreachable(self._timeout, self._core.rotation)
        except BaseException:
            await self._stop()
            raise
        return Client(self._driver, nursery, self._name, self._dial, self._clock)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _serve(self, connected: trio.Event) -> None:
        """Run the tasks that carry all calls, until `_stop`.

        A scope around the client that is cancelled does not end them before the body is done: whatever that does to
        clean up, shielded, needs them. An end of a session, or a queue's item that is on its way, would wait for ever.
        """
        with self._serving:
            async with trio.open_nursery() as nursery:
                Keeping(self._driver, nursery, self._name, self._dial, connected).start()

    async def _stop(self) -> None:
        self._driver.close()
        self._serving.cancel()
        self._nursery.cancel_scope.cancel()
        # The nursery is not told of the body's exception: it would wrap it in a group.
        await self._nursery_manager.__aexit__(None, None, None)


class Client:
    """A client of the cluster, for any number of tasks; `connect` opens it.

    Calls made at the same time share frames, in no particular order. Reads are linearizable unless `serializable` is
    asked for. What a node does not answer, or cannot serve, is sent again, through other nodes too, until its timeout:
    a write is numbered, so that it is applied at most once however often it is sent, and ends with `OutcomeUnknown`
    where the client cannot know. Every call takes a `timeout` in seconds; None is the client's. A cancelled write may
    still happen, until the next write of this client has. A client belongs to one process: after `fork` the child's
    calls raise `ClientClosed`.
    """

    def __init__(self, driver: Driver, nursery: trio.Nursery, name: str, dial: Dial, clock: Clock) -> None:
        self._driver = driver
        self._core = driver.core
        self._nursery = nursery
        self._keeper = Keeper(driver, nursery, clock)
        self._lookout = Lookout(nursery)
        self._name = name
        self._dial = dial
        self.clock = clock
        """What sessions count by; it goes on while the machine is suspended (S24)."""

    @property
    def revision(self) -> Revision:
        """The highest revision that this client has seen; 0 before its first answer."""
        return Revision(self._core.revision)

    @property
    def endpoints(self) -> list[str]:
        """The endpoints."""
        return [str(endpoint) for endpoint in self._core.rotation.endpoints]

    # -- keys

    async def put(
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
        if lease or ignore_value or ignore_lease:
            arguments = verbs.put_arguments(key, value, lease, False, ignore_value, ignore_lease)
        else:
            arguments = [key_bytes(key), value_bytes(value)]
        call = await self._driver.call(True, _PUT, arguments, timeout, guard_of(fence))
        revision: Revision = call.reply[1]
        return revision

    async def put_many(
        self,
        pairs: Pairs,
        *,
        lease: int = 0,
        fence: Fence | None = None,
        timeout: float | None = None,
    ) -> list[Revision]:
        """Put many keys, a mapping or pairs of key and value, and return the revision of each, in their order.

        They share frames, but unlike the puts of a transaction each is a write of its own: they are done in no
        particular order, others may read or write between them, and each may fail alone. Raises `PutsFailed`, which
        has the outcome of each, if some did; `ValueError`, before any is sent, for a key that is there twice, or more
        than 10 000. `lease` and `fence` hold for each as for `put`, `timeout` for all together.
        """
        arguments = put_many_arguments(pairs, lease)
        calls = await self._driver.call_all(_PUT, arguments, timeout, guard_of(fence))
        return revisions(arguments, [call.error or Revision(call.reply[1]) for call in calls])

    async def put_response(
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
        """Put a key, as `put` does, and return the whole answer; `prev_kv` asks for the pair before."""
        verb = verbs.put(key, value, lease, prev_kv, ignore_value, ignore_lease, guard_of(fence))
        return await self._run(verb, timeout)

    async def get(
        self, key: Key, *, revision: int = 0, serializable: bool = False, timeout: float | None = None
    ) -> KeyValue | None:
        """Return a key as it is, or as it was at `revision`; None if it is absent."""
        arguments = verbs.get(key, revision, serializable, self._core.revision)
        call = await self._driver.call(False, _RANGE, arguments, timeout)
        kvs = call.reply[2][0]
        return r.key_value(kvs[0]) if kvs else None

    async def range_response(
        self, key: Key, *, timeout: float | None = None, **options: Unpack[RangeOptions]
    ) -> r.RangeResponse:
        """Read a key or an interval in one answer, with all options of `RangeOptions`."""
        return await self._run(verbs.range_(key, options, self._core.revision), timeout)

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
    ) -> Pages:
        """Iterate (`async for kv in ...`) over an interval in the order of its keys, all at one revision.

        It is read `page` keys at a time, each within `timeout`. Raises `Compacted` if the revision is compacted away
        meanwhile.
        """
        start, end = interval(key, prefix, range_end)
        options: RangeOptions = {"limit": page, "revision": revision, "keys_only": keys_only}
        options["serializable"] = serializable
        if end:
            options["range_end"] = end

        async def fetch(first: bytes, options: RangeOptions) -> r.RangeResponse:
            return await self.range_response(first, timeout=timeout, **options)

        return Pages(fetch, start, options)

    async def delete(
        self,
        key: Key,
        *,
        prefix: bool = False,
        range_end: Key | None = None,
        fence: Fence | None = None,
        timeout: float | None = None,
    ) -> int:
        """Delete a key or an interval, with `fence` only while that is held; return how many keys went."""
        return (await self._run(verbs.delete(key, prefix, range_end, False, guard_of(fence)), timeout)).deleted

    async def delete_response(
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
        return await self._run(verbs.delete(key, prefix, range_end, prev_kv, guard_of(fence)), timeout)

    async def txn(
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
        return await self._run(verbs.txn(when, then, orelse, self._core.revision, guard_of(fence)), timeout)

    async def update(
        self, key: Key, change: Callable[[bytes | None], bytes | None], *, timeout: float | None = None
    ) -> Revision:
        """Set `key` to what `change` makes of its value, unless somebody was faster, then try again.

        `change` is given None for an absent key, and may return None to have it deleted; it may be called several
        times. The key keeps its lease. Returns the revision of the change.
        """
        deadline = trio.current_time() + (self._driver.timeout if timeout is None else timeout)
        current = await self.get(key, timeout=timeout)
        while True:
            verb = verbs.compare_and_set(key, current, change(None if current is None else current.value))
            response = await self._run(verb, deadline - trio.current_time())
            if response.succeeded:
                return response.header.revision
            current = verbs.current_of(response)

    async def compact(
        self, revision: int, *, physical: bool = False, timeout: float | None = None
    ) -> r.CompactResponse:
        """Forget all revisions below `revision`; with `physical`, wait until their space is free."""
        return await self._run(verbs.compact(revision, physical), timeout)

    # -- leases

    async def lease_grant(self, ttl_s: int, *, lease: int = 0, timeout: float | None = None) -> r.LeaseGrantResponse:
        """Grant a lease of `ttl_s` seconds or more; `lease` 0 has its id chosen."""
        return await self._run(verbs.lease_grant(ttl_s, lease), timeout)

    async def lease_revoke(self, lease: int, *, timeout: float | None = None) -> r.LeaseRevokeResponse:
        """End a lease and delete its keys. Raises `NotFound`."""
        return await self._run(verbs.lease_revoke(lease), timeout)

    async def lease_keep_alive_once(
        self, lease: int, *, ttl_s: float = 0, timeout: float | None = None
    ) -> r.LeaseKeepAliveResponse:
        """Renew a lease for its whole TTL. Raises `NotFound`.

        With `ttl_s`, its TTL, a node that is silent for a sixth of it is given up, and another one asked.
        """
        return await self._run(verbs.lease_keep_alive(lease, ttl_s), timeout)

    async def lease_time_to_live(
        self, lease: int, *, keys: bool = False, timeout: float | None = None
    ) -> r.LeaseTimeToLiveResponse:
        """Return what is left of a lease, and its keys if asked for; `ttl_s` -1: there is none."""
        return await self._run(verbs.lease_time_to_live(lease, keys), timeout)

    async def leases(self, *, timeout: float | None = None) -> list[LeaseId]:
        """Return the ids of all leases."""
        return (await self.leases_response(timeout=timeout)).leases

    async def leases_response(self, *, timeout: float | None = None) -> r.LeaseLeasesResponse:
        """Return the ids of all leases, with the header."""
        return await self._run(verbs.lease_leases(), timeout)

    def session(self, ttl: int = TTL_S_DEFAULT) -> Session:
        """Return a session, a lease of `ttl` seconds or more that is kept alive: `async with client.session() as s`.

        The shorter the TTL, the sooner others take over from a crashed holder, and the shorter an interruption that
        costs the session; from 5 s on it outlives the silent loss of the node that it talks to.
        """
        return Session(self._driver, self._nursery, self._keeper, self._lookout, self.clock, ttl)

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
    ) -> Watch:
        """Watch a key or an interval from revision `since` on, 0 from now on; to be used with `async with`.

        `no_put` and `no_delete` leave these events out; `prev_kv` adds the pair before to each; `progress_notify`
        has an idle watch told now and then, by a batch without events, how far it has come. `timeout` is for the
        creation.
        """
        start, end = interval(key, prefix, range_end)
        state = WatchState(0, start, end, since, no_put, no_delete, prev_kv, progress_notify)
        return Watch(self._driver, state, timeout)

    # -- recipes

    def observe(self, name: Key, *, timeout: float | None = None) -> Observation:
        """Observe who owns an election or a lock; to be used with `async with`, then `async for`.

        `timeout` is for entering.
        """
        return Observation(self, name, timeout)

    def discover(self, service: Key, *, random: Random | None = None, timeout: float | None = None) -> Discovery:
        """Open a live view of the instances of `service`; to be used with `async with`.

        `random` is the chance of its choices, for tests; `timeout` is for entering.
        """
        return Discovery(self, self._nursery, service, random or self._core.rotation.random, timeout)

    def barrier(self, name: Key) -> Barrier:
        """Return the barrier `name`, which is up while that key is there."""
        return Barrier(self._driver, name)

    def queue(self, name: Key) -> Queue:
        """Return the queue `name`, whose items are keys below `name/`."""
        return Queue(self._driver, name, self._core.rotation.random)

    # -- the cluster

    async def status(self, endpoint: str | None = None, *, timeout: float | None = None) -> r.StatusResponse:
        """Return how the member at `endpoint` stands; None: the one this client is connected to."""
        return await self._at(endpoint, verbs.status(), timeout)

    async def member_list(self, *, linearizable: bool = True, timeout: float | None = None) -> r.MemberListResponse:
        """Return the members."""
        return await self._run(verbs.member_list(linearizable), timeout)

    async def member_add(
        self, peer_urls: Sequence[str], *, is_learner: bool = False, timeout: float | None = None
    ) -> r.MemberAddResponse:
        """Add a member that is reached at `peer_urls`; start it afterwards, with these.

        It begins as a learner, and votes once it has caught up, unless `is_learner` keeps it one until
        `member_promote`.
        """
        return await self._run(verbs.member_add(peer_urls, is_learner), timeout)

    async def member_remove(self, *ids: int, timeout: float | None = None) -> r.MemberRemoveResponse:
        """Remove members, all in one step; their nodes end. Raises `NotFound`."""
        return await self._run(verbs.member_remove(ids), timeout)

    async def member_update(
        self, member_id: int, peer_urls: Sequence[str], *, timeout: float | None = None
    ) -> r.MemberUpdateResponse:
        """Tell the cluster that a member is reached at other peer URLs. Raises `NotFound`."""
        return await self._run(verbs.member_update(member_id, peer_urls), timeout)

    async def member_promote(self, member_id: int, *, timeout: float | None = None) -> r.MemberPromoteResponse:
        """Let a learner vote; refused until it has caught up. Raises `NotFound`."""
        return await self._run(verbs.member_promote(member_id), timeout)

    async def move_leader(self, member_id: int = 0, *, timeout: float | None = None) -> r.MoveLeaderResponse:
        """Hand the lead over to a voter; 0 lets the leader choose."""
        return await self._run(verbs.move_leader(member_id), timeout)

    async def hash_kv(
        self, endpoint: str | None = None, *, revision: int = 0, timeout: float | None = None
    ) -> r.HashKVResponse:
        """Return a member's hash of its history up to `revision`, 0: all."""
        return await self._at(endpoint, verbs.hash_kv(revision), timeout)

    async def alarms(self, *, timeout: float | None = None) -> r.AlarmResponse:
        """Return the alarms that are on."""
        return await self._run(verbs.alarm_list(), timeout)

    async def alarm_disarm(
        self,
        member_id: int = 0,
        alarm: AlarmType = AlarmType.NONE,
        *,
        timeout: float | None = None,
    ) -> r.AlarmResponse:
        """Switch alarms off, by default all; return those that were."""
        return await self._run(verbs.alarm(AlarmAction.DEACTIVATE, member_id, alarm), timeout)

    async def health(self, endpoint: str, *, timeout: float | None = None) -> r.Health:
        """Try a linearizable read and look for alarms at one endpoint."""
        started = trio.current_time()
        error = ""
        try:
            async with self._probe(endpoint, timeout) as probe:
                await probe.get("health")
                error = r.describe_alarms((await probe.alarms()).alarms)
        except CoordError as failure:
            error = str(failure)
        return r.Health(endpoint, not error, trio.current_time() - started, error)

    # -- how calls are made

    async def _run(self, verb: Verb[Answer], timeout: float | None) -> Answer:
        call = await self._driver.call(verb.is_write, verb.code, verb.arguments, timeout, verb.guard, verb.patience_s)
        return verb.parse(call.header(), call.reply[2])

    async def _at(self, endpoint: str | None, verb: Verb[Answer], timeout: float | None) -> Answer:
        if endpoint is None:
            return await self._run(verb, timeout)
        async with self._probe(endpoint, timeout) as probe:
            return await probe._run(verb, timeout)

    def _probe(self, endpoints: str | Sequence[str], timeout: float | None) -> connect:
        seconds = self._driver.timeout if timeout is None else timeout
        return connect(endpoints, timeout=seconds, name=self._name, dial=self._dial, clock=self.clock)

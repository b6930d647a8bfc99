"""One node: the actors, what connects them, and its life from recovery to an orderly end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from attrs import define, field, frozen

from coord import __version__, errors
from coord.codec import encode
from coord.errors import ApiError, DamageError
from coord.limits import CATCH_UP_ENTRIES, CLIENT_RECORDS_MAX, WATCH_PROGRESS_INTERVAL_S_DEFAULT
from coord.mvcc.applied import Applied
from coord.mvcc.machine import StateMachine
from coord.node.applier import Applier
from coord.node.compactor import AutoCompaction, Compactor, compact_body
from coord.node.consensus import Consensus, Log, Settings
from coord.node.keeper import StoreKeeper
from coord.node.leases import LeaseReaper
from coord.node.log_writer import LogWriter
from coord.node.loop import Loop
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.reads import Reader
from coord.node.requests import Requests
from coord.node.space import SpaceWatch
from coord.node.watches import Broadcaster
from coord.node.worker import Worker
from coord.protocol.entries import Member, WritesHeader, encode_entry, encode_writes
from coord.protocol.ops import EntryKind
from coord.raft.core import Raft
from coord.raft.log import RaftLog
from coord.raft.options import RaftOptions
from coord.raft.types import Configuration
from coord.store.port import StorePort
from coord.types import Role
from coord.wal.log import Wal
from coord.wal.recovery import Recovery

_SECOND_S = 1.0


@frozen
class Options:
    """What a node is told; names are those of the flags, units last."""

    name: str
    member_id: int
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    heartbeat_s: float = 0.1
    election_s: float = 1.0
    request_timeout_s: float = 5.0
    max_request_bytes: int = 1536 * 1024
    max_txn_ops: int = 128
    quota_bytes: int = 2 * 1024**3
    compaction_mode: str = "periodic"
    compaction_retention: float = 0.0
    snapshot_count: int = 10_000
    progress_interval_s: float = WATCH_PROGRESS_INTERVAL_S_DEFAULT


@frozen
class Seams:
    """What a node takes from outside (law 10): clock, chance, threads, log and measurements."""

    clock: Callable[[], float]
    new_id: Callable[[], int]
    """Draws from 1 … 2⁶³−1."""
    log: Log
    log_worker: Worker
    store_worker: Worker
    prepare_worker: Worker
    observe_sync: Callable[[float], None] = lambda took_s: None
    observe_commit: Callable[[float], None] = lambda took_s: None


@define(eq=False)
class Node:
    """The composition root. Make it with `recover`, then `run` it."""

    options: Options
    seams: Seams
    machine: StateMachine
    store: StorePort
    raft: Raft
    loop: Loop = field(init=False)
    outbox: Outbox = field(factory=Outbox)
    consensus: Consensus = field(init=False)
    log_writer: LogWriter = field(init=False)
    applier: Applier = field(init=False)
    reader: Reader = field(init=False)
    leases: LeaseReaper = field(init=False)
    watches: Broadcaster = field(init=False)
    compactor: Compactor = field(init=False)
    keeper: StoreKeeper = field(init=False)
    space: SpaceWatch = field(init=False)
    requests: Requests = field(init=False)
    auto_compaction: AutoCompaction = field(init=False)
    is_stopping: bool = False
    ready: trio.Event = field(factory=trio.Event)
    """Set when the node has led and committed in its own term, and the cluster has its id."""
    _rounds: int = 0
    _bootstrap_proposed: bool = False
    _own_rounds: list[Callable[[], None]] = field(factory=list)

    @classmethod
    def recover(
        cls,
        options: Options,
        seams: Seams,
        store: StorePort,
        machine: StateMachine,
        wal: Wal,
        recovery: Recovery,
    ) -> Node:
        """Put a node together from what its disk holds; `machine` has been loaded from `store`.

        Raises `DamageError` if log and store do not belong together: the log must reach back to what the store
        holds, and the store must not be above its own log (S3).
        """
        if not recovery.start_index <= store.applied_index <= recovery.last_index:
            raise DamageError(
                f"the log holds entries {recovery.start_index + 1} to {recovery.last_index}, but the store ends at "
                f"{store.applied_index}: they are not of one member at one time. Restore this member's data directory "
                "from a backup, or remove the member and add it anew."
            )
        log = RaftLog(base_index=store.applied_index, base_term=store.applied_term)
        log.committed = log.applied = store.applied_index
        for entry in recovery.entries:
            if entry[0] > store.applied_index:
                log.append(entry)
        noop = encode_entry(EntryKind.NOOP, None, b"")
        ticks = max(2, round(options.election_s / options.heartbeat_s))
        raft = Raft(
            options.member_id,
            RaftOptions(heartbeat_ticks=1, election_ticks=ticks),
            log,
            recovery.hard_state,
            Configuration(frozenset((options.member_id,))),
            noop,
            lambda limit: seams.new_id() % limit,
        )
        node = cls(options, seams, machine, store, raft)
        node._connect(wal)
        return node

    # What the server sees (node/ports.py).

    @property
    def cluster_id(self) -> int:
        """The cluster's id, 0 before it has one."""
        return self.machine.cluster_id

    @property
    def member_id(self) -> int:
        """This member's id."""
        return self.options.member_id

    @property
    def name(self) -> str:
        """This member's name."""
        return self.options.name

    @property
    def max_request_bytes(self) -> int:
        """`--max-request-bytes`."""
        return self.options.max_request_bytes

    @property
    def max_txn_ops(self) -> int:
        """`--max-txn-ops`."""
        return self.options.max_txn_ops

    @property
    def raft_term(self) -> int:
        """The current term."""
        return self.raft.term

    @property
    def leader_id(self) -> int:
        """The leader's member id, or 0."""
        return self.raft.leader_id

    @property
    def revision(self) -> int:
        """The store's revision as applied here."""
        return self.machine.revision

    def writes(
        self, sink: Sink, client: int, low: int, ids: list[tuple[int, int]], body: bytes, decoded: list[Any]
    ) -> None:
        """See `NodePort.writes`."""
        self.consensus.writes(sink, client, low, ids, body, decoded)

    def request(self, sink: Sink, request_id: int, method: int, timeout_ms: int, arguments: list[Any]) -> None:
        """See `NodePort.request`."""
        self.requests.take(sink, request_id, method, timeout_ms, arguments)
        self.loop.wake()

    def forget(self, sink: Sink) -> None:
        """See `NodePort.forget`."""
        self.watches.forget(sink)
        self.reader.forget(sink)
        self.consensus.forget(sink)

    def status(self) -> dict[str, Any]:
        """See `NodePort.status`."""
        return {
            "version": __version__,
            "dbSize": self.space.size_bytes,
            "dbSizeInUse": self.space.in_use_bytes,
            "dbSizeQuota": self.options.quota_bytes,
            "leader": self.raft.leader_id,
            "raftIndex": self.raft.log.committed,
            "raftTerm": self.raft.term,
            "raftAppliedIndex": self.machine.applied_index,
            "errors": self._status_errors(),
            "isLearner": False,
        }

    def health(self) -> dict[str, ApiError | None]:
        """See `NodePort.health`."""
        corrupt = any(kind == 2 for _, kind in self.machine.alarms)
        return {
            "data_corruption": errors.corrupt() if corrupt else None,
            "serializable_read": None,
            "linearizable_read": self._why_not_ready(),
            "non_learner": None,
        }

    def _why_not_ready(self) -> ApiError | None:
        if not self.raft.is_ready_to_read:
            return errors.no_leader()
        # A write that has been on the disk for so long has kept every client waiting beyond its timeout.
        is_stuck = self.log_writer.writing_for_s(self.seams.clock()) > self.options.request_timeout_s
        return errors.request_timed_out() if is_stuck else None

    # Life.

    async def run(self) -> None:
        """Run until cancelled. An error of the machine or the disk comes out (law 7)."""
        self.loop.wake()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            await self.loop.run(
                (
                    self.consensus.turn,
                    self.log_writer.turn,
                    self.applier.turn,
                    self._lead,
                    self.reader.turn,
                    self.compactor.turn,
                    self.keeper.turn,
                    self.watches.turn,
                    self.outbox.turn,
                )
            )

    async def stop(self) -> None:
        """End in order: take nothing new, finish what was taken, flush and sync the store.

        The caller bounds the time; whatever this does not reach, a restart recovers from the log.
        """
        self.is_stopping = self.consensus.is_stopping = self.reader.is_stopping = True
        self.watches.cancel_all("etcdserver: server stopped")
        while self.consensus.waiters or not self.log_writer.is_idle or self.applier.lag:
            self.loop.wake()
            await trio.sleep(0.005)
        self.reader.fail_all(errors.server_stopped())
        synced = trio.Event()
        self.keeper.sync(synced.set)
        await synced.wait()

    def _connect(self, wal: Wal) -> None:
        options, seams = self.options, self.seams
        self.loop = Loop(seams.clock, self._on_stall)
        wake = self.loop.wake
        self.reader = Reader(self.machine, self.outbox, seams.clock, wake, self._new_round)
        self.consensus = Consensus(
            raft=self.raft,
            settings=self._settings(),
            clock=seams.clock,
            new_lease_id=self._new_lease_id,
            log=seams.log,
            wake=wake,
            to_log=lambda entries, state: self.log_writer.append(entries, state),
            to_applier=lambda entries: self.applier.commit(entries),
            to_reader=self.reader.confirmed,
            wants_round=self.reader.wants_round,
            has_space=self._has_space,
            outbox=self.outbox,
        )
        self.log_writer = LogWriter(
            wal,
            seams.log_worker,
            seams.prepare_worker,
            seams.clock,
            seams.log,
            wake,
            self.consensus.persisted,
            seams.observe_sync,
        )
        self.keeper = StoreKeeper(
            store=self.store,
            machine=self.machine,
            raft_log=self.raft.log,
            worker=seams.store_worker,
            clock=seams.clock,
            log=seams.log,
            wake=wake,
            release_wal=self.log_writer.release,
            observe_commit=seams.observe_commit,
            is_log_full=lambda: self.log_writer.is_disk_full,
            log_bytes=lambda: self.log_writer.written_bytes,
            on_flushed=lambda: self.space.measure(),
            sync_every_entries=max(1, min(options.snapshot_count, CATCH_UP_ENTRIES)),
        )
        self.compactor = Compactor(self.machine, self.store, seams.clock, seams.log, wake, self.keeper.flush)
        self.applier = Applier(
            self.machine,
            self.store,
            self.consensus,
            seams.clock,
            self._on_applied,
            self.compactor.after_removal,
            self.outbox,
        )
        self._connect_observers()

    def _settings(self) -> Settings:
        options = self.options
        return Settings(
            options.member_id,
            options.max_request_bytes,
            options.max_txn_ops,
            # etcd's floor: a lease must outlive one election, or every leader change would end it.
            -int(-1.5 * options.election_s // 1),
            options.request_timeout_s,
        )

    def _connect_observers(self) -> None:
        options, seams = self.options, self.seams
        self.leases = LeaseReaper(
            machine=self.machine,
            clock=seams.clock,
            log=seams.log,
            propose=self.consensus.propose_internal,
            start_round=self._after_round,
            term=lambda: self.raft.term,
            interval_s=options.heartbeat_s,
        )
        self.watches = Broadcaster(
            self.machine, self.outbox, seams.clock, seams.log, self.loop.wake, options.progress_interval_s
        )
        self.space = SpaceWatch(
            machine=self.machine,
            store=self.store,
            quota_bytes=options.quota_bytes,
            member_id=options.member_id,
            log=seams.log,
            propose=self.consensus.propose_internal,
            is_leader=lambda: self.raft.role is Role.LEADER,
            is_disk_full=lambda: self.keeper.is_disk_full or self.log_writer.is_disk_full,
        )
        self.auto_compaction = AutoCompaction(
            options.compaction_mode, options.compaction_retention, lambda: self.machine.revision
        )
        self.requests = Requests(
            self.machine,
            self.reader,
            self.leases,
            self.watches,
            self.outbox,
            seams.clock,
            options.request_timeout_s,
            options.max_txn_ops,
            lambda: list(self.status().values()),
        )
        self.space.check()

    def _lead(self) -> bool:
        """Become the leader, and do once what a new leader owes when it has committed in its own term."""
        if self.raft.role is Role.FOLLOWER and self.machine.applied_index == self.raft.log.committed:
            # S12: a single voter waits for nobody, but first applies what it had committed.
            self.raft.campaign("the only voter needs nobody else's vote")
            self.loop.wake()
        if self.ready.is_set() or not self.raft.is_ready_to_read:
            return False
        if self.machine.applied_index < self.raft.log.committed:
            return False
        if not self.machine.cluster_id:
            self._bootstrap()
            return False
        self.leases.lead()
        self.ready.set()
        return False

    def _bootstrap(self) -> None:
        """Propose the first entry of a new cluster: its random id and its members (S1)."""
        if self._bootstrap_proposed:
            return
        self._bootstrap_proposed = True
        options = self.options
        member = Member(options.member_id, options.name, options.peer_urls, options.client_urls)
        cluster = self.seams.new_id()
        body = encode([cluster, CLIENT_RECORDS_MAX, [member.to_wire()]])
        self.consensus.propose_internal(encode_entry(EntryKind.CLUSTER, None, body))
        self.seams.log("cluster.identity.created", members=[options.member_id])

    def _on_applied(self, applied: Applied) -> None:
        if applied.events:
            self.watches.on_events(applied.events)
        if applied.leases_granted or applied.leases_revoked:
            self.leases.on_applied(applied)
        if applied.compacted:
            self.compactor.compacted(applied.compacted)
        if applied.alarms_changed:
            self.space.alarms_changed()
        for name, fields in applied.notes:
            self.seams.log(name, **fields)

    async def _tick(self) -> None:
        next_second = self.seams.clock()
        while True:
            await trio.sleep(self.options.heartbeat_s)
            now = self.seams.clock()
            self.consensus.tick()
            self.reader.expire(now)
            self.leases.tick()
            if now >= next_second:
                next_second = now + _SECOND_S
                self._each_second(now)

    def _each_second(self, now: float) -> None:
        self.space.check()
        self.watches.sweep()
        if self.raft.role is Role.LEADER and (revision := self.auto_compaction.due(now)):
            self.seams.log("compaction.automatic.proposed", mode=self.options.compaction_mode, revision=revision)
            header = WritesHeader(self.member_id, 0, 0, 0, "", self.options.max_txn_ops, {})
            self.consensus.propose_internal(encode_writes(header, compact_body(revision)))

    def _has_space(self, growth_bytes: int) -> bool:
        if self.space.has_space(growth_bytes):
            return True
        self.space.refused()
        return False

    def _on_stall(self, turn: str, took_s: float) -> None:
        self.seams.log("loop.turn.stalled", task=turn, ms=round(took_s * 1000, 1))

    def _new_round(self) -> int:
        self._rounds += 1
        return self._rounds

    def _after_round(self, resume: Callable[[], None]) -> None:
        self.reader.after_round(resume, self.seams.clock() + self.options.request_timeout_s)

    def _new_lease_id(self) -> int:
        while self.machine.lease_ttl(lease := self.seams.new_id()):
            pass
        return lease

    def _status_errors(self) -> list[str]:
        found = [] if self.raft.leader_id else ["etcdserver: no leader"]
        names = {1: "NOSPACE", 2: "CORRUPT"}
        found.extend(f"memberID:{member} alarm:{names[kind]} " for member, kind in sorted(self.machine.alarms))
        return found

"""One node: its actors, what its clients and its peers see of it, and its life from recovery to an orderly end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import trio
from attrs import define, evolve, field

from coord import __version__, errors
from coord.errors import ApiError
from coord.mvcc.applied import Applied
from coord.mvcc.machine import StateMachine
from coord.node.applier import Applier
from coord.node.calls import Calls
from coord.node.changes import Changes
from coord.node.compactor import AutoCompaction, Compactor, compact_frame
from coord.node.compose import connect, turns
from coord.node.consensus import Consensus
from coord.node.forwarding import Forwarder
from coord.node.installation import Installation
from coord.node.keeper import StoreKeeper
from coord.node.leading import Leadership
from coord.node.leases import LeaseReaper
from coord.node.log_writer import LogWriter
from coord.node.loop import Loop
from coord.node.membership import Membership, configuration_of, is_member
from coord.node.options import TICKS_PER_HEARTBEAT, Options, Seams
from coord.node.outbox import Outbox
from coord.node.peer_side import PeerSide
from coord.node.peers import Peers
from coord.node.ports import Sink
from coord.node.publication import Publication
from coord.node.reads import Reader
from coord.node.recovery import recovered_log
from coord.node.refusals import Refusals
from coord.node.requests import Requests
from coord.node.snapshots import Snapshotter
from coord.node.space import SpaceWatch
from coord.node.standing import Standing
from coord.node.waiters import Waiters
from coord.node.watches import Broadcaster
from coord.protocol.entries import Member, WritesHeader, encode_entry, encode_writes
from coord.protocol.id_run import Ids
from coord.protocol.ops import EntryKind
from coord.raft.core import Raft
from coord.raft.options import RaftOptions
from coord.raft.types import Configuration
from coord.store.port import StorePort
from coord.types import Role
from coord.wal.log import Wal
from coord.wal.recovery import Recovery

_SECOND_S = 1.0
PARTING_S = 1.0
"""How long links to a member that was removed are kept, at least: an answer may be on its way to it."""
_STALL_PASSES = 5
"""After a stall, the scheduler's passes in which readers take what lies in the sockets, before a tick (S11)."""
_STOP_POLL_S = 0.005


@define(eq=False, repr=False)
class Node:
    """The composition root. Make it with `recover`, then `run` it."""

    options: Options
    seams: Seams
    machine: StateMachine
    store: StorePort
    raft: Raft
    loop: Loop = field(init=False)
    outbox: Outbox = field(factory=Outbox)
    waiters: Waiters = field(init=False)
    forwarder: Forwarder = field(init=False)
    consensus: Consensus = field(init=False)
    log_writer: LogWriter = field(init=False)
    applier: Applier = field(init=False)
    leadership: Leadership = field(init=False)
    membership: Membership = field(init=False)
    changes: Changes = field(init=False)
    reader: Reader = field(init=False)
    leases: LeaseReaper = field(init=False)
    watches: Broadcaster = field(init=False)
    compactor: Compactor = field(init=False)
    keeper: StoreKeeper = field(init=False)
    space: SpaceWatch = field(init=False)
    standing: Standing = field(init=False)
    calls: Calls = field(init=False)
    requests: Requests = field(init=False)
    auto_compaction: AutoCompaction = field(init=False)
    peers: Peers = field(init=False)
    peer_side: PeerSide = field(init=False)
    publication: Publication = field(init=False)
    refusals: Refusals = field(init=False)
    snapshotter: Snapshotter = field(init=False)
    installation: Installation = field(init=False)
    ready: trio.Event = field(factory=trio.Event)
    """Set when clients may be served: the log is replayed, and a member that needs nobody else leads."""
    caught_up: trio.Event = field(factory=trio.Event)
    """Set when a leader has once confirmed that what is applied here is current (S29)."""
    removed: trio.Event = field(factory=trio.Event)
    """Set when this member is no longer one of the cluster: its node should end."""
    _met: dict[int, Member] = field(factory=dict)
    _dialled: dict[int, Member] = field(factory=dict)
    _part_at: float = 0.0
    _replay_to: int = 0
    _nursery: trio.Nursery | None = None
    _last_number: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._last_number = self.options.first_number
        self._replay_to = self.raft.log.committed

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

        Raises `DamageError` if log and store do not belong together.
        """
        raft = Raft(
            options.member_id,
            RaftOptions(
                heartbeat_ticks=TICKS_PER_HEARTBEAT,
                election_ticks=max(2, round(options.election_s / options.tick_s)),
            ),
            recovered_log(store, recovery, options.catch_up_entries),
            recovery.hard_state,
            configuration_of(machine, options.initial_configuration, options.member_id),
            encode_entry(EntryKind.NOOP, None, b""),
            seams.chance.randrange,
        )
        node = cls(options, seams, machine, store, raft)
        connect(node, wal)
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
    def context(self) -> tuple[int, int, int]:
        """The cluster's id, the current term, and the leader's member id, or 0."""
        raft = self.raft
        return self.machine.cluster_id, raft.term, raft.leader_id

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

    def writes(self, sink: Sink, client: int, low: int, ids: Ids, body: bytes, decoded: list[Any]) -> None:
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
        self.calls.forget(sink)
        self.changes.forget(sink)
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
            "isLearner": self.raft.role is Role.LEARNER,
        }

    def health(self) -> dict[str, ApiError | None]:
        """See `NodePort.health`."""
        corrupt = any(kind == 2 for _, kind in self.machine.alarms)
        return {
            "data_corruption": errors.corrupt() if corrupt else None,
            "serializable_read": None,
            "linearizable_read": self._why_not_ready(),
            "non_learner": errors.not_for_learner() if self.raft.role is Role.LEARNER else None,
            "joined": None if self._is_joined else errors.not_joined(),
        }

    @property
    def _is_joined(self) -> bool:
        """True once its vote counts: before, another member's end may cost the cluster its quorum."""
        return bool(self.machine.cluster_id) and not self.publication.is_blank

    def _why_not_ready(self) -> ApiError | None:
        if (why := self.standing.why_not_ready()) is not None:
            return why
        # A write that has been on the disk for so long has kept every client waiting beyond its timeout.
        is_stuck = self.log_writer.writing_for_s(self.seams.clock()) > self.options.request_timeout_s
        return errors.request_timed_out() if is_stuck else None

    def _status_errors(self) -> list[str]:
        found = []
        if not self.raft.leader_id:
            found.append(str(self.standing.no_leader().text))
        elif not self._is_joined:
            found.append(str(errors.not_joined().text))
        names = {1: "NOSPACE", 2: "CORRUPT"}
        found.extend(f"memberID:{member} alarm:{names[kind]} " for member, kind in sorted(self.machine.alarms))
        return found

    # Life.

    async def run(self) -> None:
        """Run until cancelled. An error of the machine or the disk comes out (law 7)."""
        self.loop.wake()
        self.reader.after_round(self._on_caught_up, float("inf"))
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._tick)
            nursery.start_soon(self.peers.run)
            nursery.start_soon(self.snapshotter.run)
            nursery.start_soon(self.publication.run)
            await self.loop.run(turns(self))

    async def stop(self) -> None:
        """End in order: hand the lead over, take nothing new, finish what was taken, flush and sync the store.

        The caller bounds the time; whatever this does not reach, a restart recovers from the log.
        """
        self.leadership.is_stopping = True
        self.raft.stand_back()
        await self._hand_over()
        self.consensus.is_stopping = self.reader.is_stopping = True
        self.watches.cancel_all("etcdserver: server stopped")
        # Without a leader these might wait for one until their deadlines, and nothing of them was proposed.
        self.forwarder.refuse_all(errors.server_stopped())
        with trio.move_on_after(2 * self.options.election_s):
            # A member that was removed hears so by the entry, which may come before the answer to who asked for it.
            while not self.consensus.is_idle or self.applier.lag or not self.calls.is_idle:
                await self._pass()
        while not self.log_writer.is_idle or not self.installation.is_idle:
            await self._pass()
        self.calls.fail_all(errors.server_stopped())
        self.reader.fail_all(errors.server_stopped())
        synced = trio.Event()
        self.keeper.sync(synced.set)
        await synced.wait()

    async def _hand_over(self) -> None:
        """S12: make another voter lead, lest clients wait for an election. After a stall one has to be heard first."""
        with trio.move_on_after(self.options.election_s):
            while self.raft.role is Role.LEADER and not self.leadership.is_lone:
                if not self.raft.transferee and not self.raft.transfer():
                    await trio.sleep(self.options.heartbeat_s)
                await self._pass()
            # The new leader is known here, so that what clients still wait for can be forwarded to it.
            while not self.raft.leader_id:
                await self._pass()

    async def _pass(self) -> None:
        self.loop.wake()
        await trio.sleep(_STOP_POLL_S)

    def settle(self) -> bool:
        """Look whether clients can be served by now, or never: that ends the node."""
        self.refusals.check()
        if not self.ready.is_set():
            is_lone = self.leadership.is_lone
            if self.leadership.is_leading or (not is_lone and self.machine.applied_index >= self._replay_to):
                self.ready.set()
        return False

    def _on_caught_up(self) -> None:
        self.standing.caught_up()
        self.caught_up.set()

    async def _tick(self) -> None:
        tick_s = self.options.tick_s
        next_second = last = self.seams.clock()
        local_reads = 0
        for ticks in count(1):
            await trio.sleep(tick_s)
            now = self.seams.clock()
            if now - last > 2 * tick_s:
                for _ in range(_STALL_PASSES):
                    await trio.lowlevel.checkpoint()
            last = now
            self.consensus.tick()
            self.reader.expire(now)
            self.calls.expire()
            self.changes.expire()
            self.standing.tick()
            self.compactor.tick()
            if ticks % TICKS_PER_HEARTBEAT == 0:
                self.loop.wake()  # for all who look at the clock in their turns
                self.consensus.expire(now)
                self.raft.is_watched = self.watches.watch_count > 0 or self.reader.local_reads != local_reads
                local_reads = self.reader.local_reads
                if self.leadership.is_leading:
                    self.leases.tick()
            if now >= next_second:
                next_second = now + _SECOND_S
                self._each_second(now)

    def _each_second(self, now: float) -> None:
        if now >= self._part_at and self._dialled.keys() - self.members().keys():
            self.dial_members()
        self.space.check()
        self.watches.sweep()
        # Every member looks back, so that a new leader needs no window of its own before it goes on.
        revision = self.auto_compaction.due(now)
        if revision and self.leadership.is_leading:
            self.seams.log("compaction.automatic.proposed", mode=self.options.compaction_mode, revision=revision)
            header = WritesHeader(self.member_id, 0, self.options.max_txn_ops)
            self.consensus.propose_internal(encode_writes(header, [compact_frame(revision)]))

    # What the actors tell the node.

    def on_applied(self, applied: Applied) -> None:
        """Pass on what an entry changed."""
        if self.watches.watch_count and applied.changes:
            self.watches.on_events(applied.events)
        if applied.leases_granted or applied.leases_revoked or applied.leases_checkpointed:
            self.leases.on_applied(applied)
        if applied.compacted:
            self.compactor.compacted(applied.compacted)
        if applied.members_changed:
            self.membership.on_applied(applied)
        if applied.alarms_changed:
            self.space.alarms_changed()
        for name, fields in applied.notes:
            self.seams.log(name, **fields)

    def on_members(self) -> None:
        """Follow a change of members: who votes, who is dialled, and whether this one still belongs to them."""
        self.raft.apply_configuration(self.configuration())
        self._follow_members()

    def _follow_members(self) -> None:
        # Who was removed may be the one that asked for it, and is still to hear the answer, on a link that stands.
        self._part_at = self.seams.clock() + PARTING_S
        self.dial_members(self._dialled)
        if not is_member(self.machine, self.member_id, self.options.incarnation):
            self.end_membership()

    def end_membership(self) -> None:
        """Learn that this member was removed: it must not disturb the others, and its node should end."""
        if not self.removed.is_set():
            self.seams.log("node.membership.ended", member=self.member_id, name=self.name)
            self.raft.stand_back()
            self.removed.set()

    def configuration(self) -> Configuration:
        """Return who votes, by what is applied; before there is a cluster by the flags."""
        found = configuration_of(self.machine, self.options.initial_configuration, self.member_id)
        return evolve(found, blank=found.blank - {self.member_id}) if self.publication.is_known else found

    def members(self) -> dict[int, Member]:
        """Return the members by id, before there is a cluster those of the flags."""
        if self.machine.cluster_id:
            return self.machine.members
        return {**{member.id: member for member in self.options.members}, **self._met}

    def meet(self, member: Member) -> None:
        """Learn of a member; one that joins a cluster has no other way to know whom to dial."""
        if not self.machine.cluster_id and member.id not in self.members():
            self._met[member.id] = member
            self.dial_members()

    def dial_members(self, parting: Mapping[int, Member] | None = None) -> None:
        """Have a link dialled to each of the others, and to those that part, for another `PARTING_S`."""
        others = {**(parting or {}), **self.members()}
        others.pop(self.member_id, None)
        self._dialled = others
        self.peers.set_members(
            {other: member.peer_urls for other, member in others.items()},
            {other: member.name for other, member in others.items()},
            {other: member.incarnation for other, member in others.items() if member.incarnation},
        )

    def on_lead(self) -> None:
        """Begin what only a leader does."""
        self.leases.lead()
        self.space.lead()

    def on_unlead(self) -> None:
        """Leave it to another."""
        self.leases.unlead()
        self.snapshotter.stop_sending()

    def on_leaderless(self, reason: str) -> None:
        """Send clients elsewhere: there has been no leader for an election timeout (S30)."""
        self.watches.cancel_all(reason)
        self.reader.leaderless(self.seams.clock(), self.options.election_s)

    def hold(self) -> None:
        """Rest all who look at the state, which a snapshot is about to replace."""
        self.reader.hold()
        self.watches.hold()
        self.compactor.hold()

    def go_on(self, revision_before: int) -> None:
        """Go on with the state of a snapshot."""
        self._follow_members()
        self.reader.go_on()
        self.watches.after_install(revision_before)
        self.compactor.restart()
        self.space.alarms_changed()

    def needed_index(self) -> int:
        """Return the last entry that every member which is being brought up to date has, or will have soon."""
        needed = [match for match, is_active, _ in self.raft.progress().values() if is_active and match]
        if (held := self.snapshotter.held_index) is not None:
            needed.append(held)
        return min(needed, default=self.raft.log.committed)

    def has_space(self, growth_bytes: int) -> bool:
        """Tell whether a write that grows the store may be proposed."""
        if self.space.has_space(growth_bytes):
            return True
        self.space.refused()
        return False

    def on_stall(self, turn: str, took_s: float) -> None:
        """Tell that a turn held everything up."""
        self.seams.log("loop.turn.stalled", task=turn, ms=round(took_s * 1000, 1))

    def wake_after(self, seconds: float) -> None:
        """Have the loop run when so long has passed."""
        assert self._nursery is not None

        async def wake() -> None:
            await trio.sleep(seconds)
            self.loop.wake()

        self._nursery.start_soon(wake)

    def new_number(self) -> int:
        """Return a number that this member gives once in all its boots: for read rounds and calls."""
        self._last_number += 1
        return self._last_number

    def after_round(self, resume: Callable[[], None]) -> None:
        """Call `resume` when a read round that starts from now on is confirmed, if that is soon."""
        self.reader.after_round(resume, self.seams.clock() + self.options.request_timeout_s)

    def new_lease_id(self) -> int:
        """Return an id that no lease has."""
        while self.machine.lease_ttl(lease := self.seams.new_id()):
            pass
        return lease

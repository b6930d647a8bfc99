"""How the actors of a node are put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coord.limits import LOG_BYTES_OPEN_MAX, STORE_SYNC_ENTRIES_MAX
from coord.node.applier import Applier
from coord.node.calls import Calls
from coord.node.changes import Changes
from coord.node.compactor import AutoCompaction, Compactor
from coord.node.consensus import Consensus, Outlets, Settings
from coord.node.forwarding import Forwarder
from coord.node.installation import Installation
from coord.node.keeper import StoreKeeper
from coord.node.leading import Leadership
from coord.node.leases import LeaseReaper
from coord.node.log_writer import LogWriter
from coord.node.loop import Loop, Turn
from coord.node.membership import Membership
from coord.node.peer_side import PeerSide
from coord.node.peers import Peers
from coord.node.publication import Publication
from coord.node.reads import Reader
from coord.node.refusals import Refusals
from coord.node.requests import Requests
from coord.node.snapshots import Snapshotter
from coord.node.space import SpaceWatch
from coord.node.standing import Standing
from coord.node.waiters import Waiters
from coord.node.watches import Broadcaster
from coord.types import Role
from coord.wal.log import Wal

if TYPE_CHECKING:
    from coord.node.node import Node


def connect(node: Node, wal: Wal) -> None:
    """Make the actors of `node`, and tell each whom it gives its work to."""
    node.loop = Loop(node.seams.clock, node.on_stall)
    node.peer_side = PeerSide(node)
    node.refusals = Refusals(node.member_id, lambda: node.raft.configuration)
    node.peers = Peers(node.seams.network, node.peer_side, node.seams.log, node.seams.clock, node.seams.chance)
    node.publication = Publication(
        node.raft,
        node.options.incarnation,
        node.peers,
        lambda: [url for member in node.members().values() if member.id != node.member_id for url in member.peer_urls],
        lambda: node.raft.apply_configuration(node.configuration()),
        node.options.election_s,
    )
    _connect_waiting(node)
    _connect_consensus(node)
    _connect_storage(node, wal)
    _connect_snapshots(node)
    _connect_clients(node)
    _connect_leader(node)
    node.space.measure()
    node.dial_members()


def turns(node: Node) -> Sequence[Turn]:
    """Return the turns of a pass, in order: what somebody waits for comes first, and leaves before the rest is done."""

    def settle_late() -> bool:
        """Hand on what a late write brings about; True if it committed something, which the next pass applies."""
        before = node.applier.lag
        node.consensus.settle()
        return node.applier.lag > before

    return (
        node.consensus.turn,
        # The appends leave before the own write begins, whose thread would want the interpreter meanwhile.
        node.peers.turn,
        node.log_writer.turn,
        node.consensus.settle,
        # An acknowledgement leaves before what was committed is applied.
        node.peers.turn,
        node.applier.turn,
        node.reader.turn,
        node.watches.turn,
        node.outbox.turn,
        node.log_writer.turn_late,
        settle_late,
        node.installation.turn,
        node.leadership.turn,
        node.membership.turn,
        node.settle,
        node.calls.turn,
        node.leases.turn,
        node.compactor.turn,
        node.keeper.turn,
        node.peers.turn,
        node.outbox.turn,
    )


def _connect_waiting(node: Node) -> None:
    """Those who wait for a leader, a round or an entry."""
    options, seams, raft, machine = node.options, node.seams, node.raft, node.machine
    node.standing = Standing(
        name=options.name,
        leader_id=lambda: raft.leader_id,
        others=lambda: {
            member.id: member.name
            for member in node.members().values()
            if member.id != options.member_id and not member.is_learner
        },
        is_linked=lambda member: node.peers.is_linked(member),
        clock=seams.clock,
        log=seams.log,
        election_s=options.election_s,
        on_leaderless=node.on_leaderless,
    )
    node.reader = Reader(
        machine,
        node.outbox,
        seams.clock,
        node.loop.wake,
        node.new_number,
        has_leader=lambda: raft.leader_id != 0,
        no_leader=node.standing.no_leader,
    )
    node.waiters = Waiters(node.outbox)
    node.forwarder = Forwarder(
        raft=raft,
        waiters=node.waiters,
        clock=seams.clock,
        send=lambda messages: node.peers.send(messages),
        is_linked=lambda member: node.peers.is_linked(member),
        no_leader=node.standing.no_leader,
        patience_s=2 * options.heartbeat_s,
        retry_s=options.tick_s,
        max_txn_ops=options.max_txn_ops,
        has_room=lambda: raft.log.bytes_above(min(raft.log.persisted_index, raft.log.applied)) < LOG_BYTES_OPEN_MAX,
        is_leaving=lambda member: node.membership.is_leaving(member),
    )
    node.calls = Calls(
        member_id=options.member_id,
        leader_id=lambda: raft.leader_id,
        is_linked=lambda member: node.peers.is_linked(member),
        send=lambda messages: node.peers.send(messages),
        serve=lambda *request: node.requests.take(*request),
        clock=seams.clock,
        wake=node.loop.wake,
        new_id=node.new_number,
        no_leader=node.standing.no_leader,
        outbox=node.outbox,
    )


def _connect_consensus(node: Node) -> None:
    options, seams, reader = node.options, node.seams, node.reader
    node.consensus = Consensus(
        raft=node.raft,
        settings=Settings(
            first_number=options.first_number,
            max_request_bytes=options.max_request_bytes,
            max_txn_ops=options.max_txn_ops,
            # etcd's floor: a lease must outlive one election, or every leader change would end it.
            lease_ttl_s_min=-int(-1.5 * options.election_s // 1),
            request_timeout_s=options.request_timeout_s,
        ),
        clock=seams.clock,
        new_lease_id=node.new_lease_id,
        log=seams.log,
        wake=node.loop.wake,
        outlets=Outlets(
            send=lambda messages: node.peers.send(messages),
            to_log=lambda entries, state, messages: node.log_writer.append(entries, state, messages),
            hold=lambda messages: node.log_writer.hold(messages),
            to_applier=lambda entries: node.applier.commit(entries),
            to_reader=reader.confirmed,
            lost_reads=reader.lost,
            to_snapshotter=lambda member: node.snapshotter.wanted(member),
        ),
        wants_round=reader.wants_round,
        has_space=node.has_space,
        outbox=node.outbox,
        waiters=node.waiters,
        forwarder=node.forwarder,
    )


def _connect_storage(node: Node, wal: Wal) -> None:
    options, seams, wake = node.options, node.seams, node.loop.wake
    node.log_writer = LogWriter(
        wal,
        seams.log_worker,
        seams.prepare_worker,
        seams.clock,
        seams.log,
        wake,
        node.consensus.persisted,
        lambda messages: node.peers.send(messages),
        seams.observe_sync,
        is_answer_due=lambda: node.applier.lag > 0 and node.raft.role is Role.LEADER,
    )
    log_writer = node.log_writer
    node.keeper = StoreKeeper(
        store=node.store,
        machine=node.machine,
        raft_log=node.raft.log,
        worker=seams.store_worker,
        clock=seams.clock,
        log=seams.log,
        wake=wake,
        release_wal=log_writer.release,
        observe_commit=seams.observe_commit,
        is_log_full=lambda: log_writer.is_disk_full,
        log_bytes=lambda: log_writer.written_bytes,
        needed_index=node.needed_index,
        on_flushed=lambda: node.space.measure(),
        sync_every_entries=max(1, min(options.snapshot_count, options.catch_up_entries, STORE_SYNC_ENTRIES_MAX)),
        catch_up_entries=options.catch_up_entries,
        catch_up_entries_max=options.catch_up_entries_max,
    )
    node.compactor = Compactor(
        machine=node.machine,
        store=node.store,
        clock=seams.clock,
        log=seams.log,
        wake=wake,
        flush=node.keeper.flush,
        work_done=lambda: node.applier.applied_entries + node.reader.ranges_served,
        is_level=node.caught_up.is_set,
    )
    node.applier = Applier(
        machine=node.machine,
        store=node.store,
        raft=node.raft,
        member_id=options.member_id,
        waiters=node.waiters,
        clock=seams.clock,
        on_applied=node.on_applied,
        on_members=node.on_members,
        hold_physical=node.compactor.after_removal,
        outbox=node.outbox,
    )


def _connect_snapshots(node: Node) -> None:
    """What a member's state travels with, and how it takes another's place."""
    seams = node.seams
    node.snapshotter = Snapshotter(
        node=node.peer_side,
        links=node.peers,
        store=node.store,
        disk=seams.disk,
        directory=seams.snapshots,
        worker=seams.snapshot_worker,
        store_worker=seams.store_worker,
        clock=seams.clock,
        log=seams.log,
    )
    node.peers.snapshots = node.snapshotter
    node.installation = Installation(
        raft=node.raft,
        machine=node.machine,
        store=node.store,
        log_writer=node.log_writer,
        keeper=node.keeper,
        applier=node.applier,
        clock=seams.clock,
        log=seams.log,
        wake=node.loop.wake,
        wake_after=node.wake_after,
        owed_s=seams.owed_s,
        configuration=node.configuration,
        hold=node.hold,
        go_on=node.go_on,
    )


def _connect_clients(node: Node) -> None:
    options, seams, machine = node.options, node.seams, node.machine
    node.leases = LeaseReaper(
        machine=machine,
        clock=seams.clock,
        log=seams.log,
        propose=node.consensus.propose_internal,
        start_round=node.after_round,
        term=lambda: node.raft.term,
        interval_s=options.heartbeat_s,
    )
    node.watches = Broadcaster(
        machine, node.outbox, seams.clock, seams.log, node.loop.wake, options.progress_interval_s
    )
    node.membership = Membership(
        member_id=options.member_id,
        own=(options.incarnation, options.name, options.client_urls),
        machine=machine,
        raft=node.raft,
        clock=seams.clock,
        log=seams.log,
        wake=node.loop.wake,
        new_id=seams.new_id,
        election_s=options.election_s,
    )
    node.changes = Changes(
        node.membership.change, seams.clock, node.outbox, lambda: machine.revision, node.calls.forward
    )
    node.auto_compaction = AutoCompaction(
        options.compaction_mode, options.compaction_retention, lambda: machine.revision
    )
    node.requests = Requests(
        machine,
        node.reader,
        node.leases,
        node.watches,
        node.outbox,
        seams.clock,
        options.request_timeout_s,
        options.max_txn_ops,
        lambda: list(node.status().values()),
        calls=node.calls,
        changes=node.changes,
    )


def _connect_leader(node: Node) -> None:
    options, seams = node.options, node.seams
    node.space = SpaceWatch(
        machine=node.machine,
        store=node.store,
        quota_bytes=options.quota_bytes,
        member_id=options.member_id,
        log=seams.log,
        clock=seams.clock,
        propose=node.consensus.propose_internal,
        is_leader=lambda: node.leadership.is_leading,
        leader_id=lambda: node.raft.leader_id,
        send=lambda reports: node.peers.send(reports),
        is_disk_full=lambda: node.keeper.is_disk_full or node.log_writer.is_disk_full,
    )
    node.leadership = Leadership(
        raft=node.raft,
        machine=node.machine,
        log=seams.log,
        wake=node.loop.wake,
        propose=node.consensus.propose_internal,
        new_id=seams.new_id,
        founders=lambda: node.membership.founders(options.members),
        on_lead=node.on_lead,
        on_unlead=node.on_unlead,
        writing_for_s=lambda: node.log_writer.writing_for_s(seams.clock()),
        patience_s=options.election_s,
        client_records_max=options.client_records_max,
    )

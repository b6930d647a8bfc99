"""Fills the gauges of a node when someone asks for them."""

from __future__ import annotations

from coord import __version__
from coord.node.node import Node
from coord.observe.metrics import Metrics
from coord.protocol.ops import Op
from coord.types import AlarmType, Role


def collect(metrics: Metrics, node: Node) -> None:
    """Copy the node's figures into `metrics`."""
    raft, machine, store = node.raft, node.machine, node.store
    metrics.server_has_leader = int(raft.leader_id != 0)
    metrics.server_is_leader = int(raft.role is Role.LEADER)
    metrics.server_is_learner = int(raft.role is Role.LEARNER)
    others = [member for member in node.members() if member != node.member_id]
    metrics.network_active_peers = {f"{member:x}": int(node.peers.is_linked(member)) for member in others}
    traffic = node.peers.traffic()
    metrics.network_peer_sent_bytes_total = {f"{member:x}": sent for member, (sent, _) in traffic.items()}
    metrics.network_peer_received_bytes_total = {f"{member:x}": came for member, (_, came) in traffic.items()}
    last_index = raft.log.last_index
    metrics.raft_follower_lag_entries = {
        f"{member:x}": last_index - match for member, (match, _, _) in raft.progress().items()
    }
    metrics.server_leader_changes_seen_total = node.consensus.leader_changes
    metrics.server_proposals_committed_total = raft.log.committed
    metrics.server_proposals_applied_total = machine.applied_index
    metrics.server_proposals_pending = node.consensus.pending_count
    metrics.server_proposals_failed_total = node.consensus.refused
    metrics.server_raft_term = raft.term
    metrics.server_quota_backend_bytes = node.options.quota_bytes or -1
    metrics.server_id = {f"{node.member_id:x}": 1}
    metrics.server_version = {__version__: 1}
    metrics.server_alarms = {AlarmType(kind).name: 1 for _, kind in machine.alarms}
    wal = node.log_writer.wal.statistics()
    metrics.disk_wal_size_bytes = wal.bytes
    metrics.disk_wal_batches_total = wal.batches
    metrics.disk_wal_entries_total = node.log_writer.written_entries
    metrics.mvcc_db_total_size_in_bytes = node.space.size_bytes
    metrics.mvcc_db_total_size_in_use_in_bytes = node.space.in_use_bytes
    metrics.mvcc_current_revision = machine.revision
    metrics.mvcc_compact_revision = machine.compact_revision
    metrics.mvcc_keys_total = machine.key_count
    metrics.mvcc_put_total = machine.applied_by_op[Op.PUT]
    metrics.mvcc_delete_total = machine.applied_by_op[Op.DELETE_RANGE]
    metrics.mvcc_txn_total = machine.applied_by_op[Op.TXN]
    metrics.mvcc_range_total = node.reader.ranges_served
    metrics.mvcc_events_total = node.watches.events_sent
    metrics.mvcc_watcher_total = node.watches.watch_count
    metrics.mvcc_slow_watcher_total = node.watches.late_count
    metrics.mvcc_db_compaction_keys_total = node.compactor.removed
    metrics.mvcc_overlay_bytes = store.overlay_bytes
    metrics.lease_granted_total = machine.applied_by_op[Op.LEASE_GRANT]
    metrics.lease_revoked_total = machine.applied_by_op[Op.LEASE_REVOKE]
    metrics.lease_renewed_total = node.leases.renewed
    metrics.lease_expired_total = node.leases.expired
    metrics.lease_checkpointed_total = node.leases.checkpointed
    metrics.lease_active = node.leases.active
    metrics.loop_passes_total = node.loop.passes
    metrics.loop_stalls_total = node.loop.stalls

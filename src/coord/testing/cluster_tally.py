"""What happened in runs of the simulator: a harness in which something never happens says nothing about it."""

from __future__ import annotations

from collections import Counter
from typing import Final

from coord.protocol.ops import Op
from coord.testing.cluster import Cluster
from coord.testing.history import History, Kind, WatchEnd
from coord.testing.history_ledger import Replay
from coord.testing.lease_check import check_lasting

EVENTS: Final = {
    "raft.election.won": "elections",
    "raft.quorum.lost": "leaders that stepped down for want of a quorum",
    "raft.transfer.finished": "leads handed over",
    "raft.log.truncated": "logs cut",
    "snapshot.state.installed": "snapshots installed",
    "node.arrival.joined": "members that joined a cluster that was there",
    "node.membership.ended": "members that learned of their removal",
    "cluster.member.added": "members added",
    "cluster.member.promoted": "learners promoted",
    "cluster.member.removed": "members removed",
    "peer.hello.refused": "hellos refused",
    "watch.client.lagging": "slow watchers",
    "watch.stream.ended": "watches ended for want of a leader",
    "store.compaction.finished": "compactions",
    "lease.checkpoint.proposed": "checkpoints of leases",
    "lease.checkpoint.cleared": "checkpoints cleared",
}
"""What nodes tell of, counted once for every node that does."""
SEEN: Final = (
    "writes that were given up with their link",
    "writes whose place another entry took",
    "numbered writes that stand in the log twice",
    "watches resumed",
    "watches ended by compaction",
    "leases expired",
    "leases expired in a later term than they were granted in",
    "leases renewed in two terms",
    "leases that a leader change lengthened",
)
"""What follows from the history and the ledger."""
MUST_HAPPEN: Final = (*EVENTS.values(), *SEEN)


def tally(cluster: Cluster, history: History, played: Replay) -> Counter[str]:
    """Count what happened in a run."""
    counts = Counter({name: cluster.happened[event] for event, name in EVENTS.items()})
    _count_writes(counts, history, played)
    _count_watches(counts, history)
    _count_leases(counts, cluster, history, played)
    return counts


def _count_writes(counts: Counter[str], history: History, played: Replay) -> None:
    for operation in history.operations:
        _, text = operation.error
        if operation.kind is Kind.WRITE:
            counts["writes that were given up with their link"] += "the link to the leader broke" in text
            counts["writes whose place another entry took"] += "another entry took" in text
    sent = Counter((judged.client, judged.number) for judged in played.writes if judged.client and judged.number)
    counts["numbered writes that stand in the log twice"] += sum(count > 1 for count in sent.values())


def _count_watches(counts: Counter[str], history: History) -> None:
    for record in history.watches:
        counts["watches resumed"] += bool(record.asked and record.start)
        counts["watches ended by compaction"] += any(
            isinstance(item, WatchEnd) and item.compact_revision > 0 for item in record.told
        )


def _count_leases(counts: Counter[str], cluster: Cluster, history: History, played: Replay) -> None:
    entries = cluster.ledger.entries
    granted = {
        judged.answer.result[0]: entries[judged.index][0]
        for judged in played.writes
        if judged.op == Op.LEASE_GRANT and judged.answer.ok
    }
    counts["leases that a leader change lengthened"] += check_lasting(history, played, cluster.ledger).lengthened
    for end in played.lease_ends:
        if end.is_expiry:
            counts["leases expired"] += 1
            counts["leases expired in a later term than they were granted in"] += entries[end.index][0] > granted.get(
                end.lease, entries[end.index][0]
            )
    elections = sorted({term: index for index, (term, _) in sorted(entries.items(), reverse=True)}.values())
    begun = [cluster.ledger.committed_at[index] for index in elections]
    renewed: dict[int, set[int]] = {}
    for operation in history.operations:
        if operation.kind is Kind.RENEWAL and operation.is_done:
            for lease, ttl_s in operation.result:
                if ttl_s:
                    renewed.setdefault(lease, set()).add(sum(at <= operation.returned_at for at in begun))
    counts["leases renewed in two terms"] += sum(len(terms) > 1 for terms in renewed.values())

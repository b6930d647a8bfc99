"""The catalogue of log events: every event that a node can log, its level, its fields and what it means.

Names are `area.object.verb` and stable: people search and alert by them, so an event is never renamed and a
field never changes its meaning. Every decision is an event (a role, a vote, a refusal, a slowness); what
happens for each request is a counter of `metrics` instead. Events that a client can cause at will are
*limited*: at most `LIMITED_PER_S` a second are written, and the next one says how many were left out.

Pure cores give events out as data, `(name, fields)`; they may add `term` and `role` to any event, as they
were at the moment of the decision. Everything else that a line carries is added by `log.Log`. `docs/logs.md`
is made from this catalogue.
"""

from __future__ import annotations

from typing import Any, Final

from coord.observe.kinds import Collector, EventSpec, Kind
from coord.observe.peer_events import PEER_EVENTS

INT, FLOAT, BOOL, TEXT, TEXTS, ID, IDS, KEY = Kind

_COLLECTED: Final = Collector()
_debug, _info, _warn, _error = _COLLECTED.debug, _COLLECTED.info, _COLLECTED.warn, _COLLECTED.error

# The process and the node.
_info("node.process.started", "The process begins to serve.", version=TEXT, python=TEXT, pid=INT, data_dir=TEXT)
_info("node.identity.created", "An empty data directory got its identity.", member=ID, incarnation=ID)
_info(
    "node.identity.loaded",
    "This is who the node is, and its how-manieth start.",
    member=ID,
    incarnation=ID,
    boot=INT,
)
_info(
    "node.service.ready",
    "The log is replayed and the ports are open: clients are served.",
    client_urls=TEXTS,
    peer_urls=TEXTS,
    revision=INT,
    ms=FLOAT,
)
_error(
    "node.process.failed",
    "The node ends, because it can no longer keep its promises; systemd starts it again.",
    actor=TEXT,
    error=TEXT,
)
_info(
    "node.arrival.waiting",
    "This member is to join a cluster, and asks its peers until one lets it in.",
    urls=TEXTS,
    reasons=TEXTS,
)
_info(
    "node.arrival.joined",
    "Its peers have a cluster: this member joins it, and counts in no quorum until the cluster has taken note of it.",
    member=ID,
    cluster_id=ID,
    answered=ID,
)
_info("node.shutdown.started", "The node was asked to stop and takes no new work.", reason=TEXT)
_warn(
    "node.shutdown.forced",
    "Phases of the shutdown were cut short; nothing acknowledged is lost.",
    reason=TEXT,
)
_info("node.shutdown.finished", "All that was acknowledged is on disk, and the process ends.", ms=FLOAT)

# Configuration and the log itself.
_info(
    "config.options.loaded",
    "Which options were set, and where; the others have their defaults.",
    flags=TEXTS,
    environment=TEXTS,
    file=TEXTS,
)
_warn(
    "config.variable.unrecognized",
    "An environment variable COORD_… is no option: perhaps a typing error.",
    name=TEXT,
)
_warn("config.bind.exposed", "Whoever reaches this address can read and write everything.", url=TEXT)
_warn("log.lines.dropped", "Stderr took no more lines for a while, and these many are lost.", lines=INT)
_warn("log.library.warned", "A library logged this.", limited=True, library=TEXT, text=TEXT)

# The cluster.
_info("cluster.identity.created", "A new cluster begins, with this random id.", members=IDS)
_info(
    "cluster.member.added",
    "The cluster has one member more; it receives the log, and a learner has no vote yet.",
    member=ID,
    name=TEXT,
    peer_urls=TEXTS,
    learner=BOOL,
)
_info(
    "cluster.member.published",
    "A member has joined with this data directory, and counts from now on; or its name or client URLs changed.",
    member=ID,
    name=TEXT,
    incarnation=ID,
    client_urls=TEXTS,
)
_info("cluster.member.promoted", "A learner has caught up, and votes.", member=ID, name=TEXT)
_info("cluster.member.updated", "A member is reached under other URLs.", member=ID, peer_urls=TEXTS)
_info("cluster.member.removed", "A member left the cluster; its id never returns.", member=ID, name=TEXT)
_warn("cluster.member.refused", "A change of the members was not begun, and why.", change=TEXT, reason=TEXT)

_warn(
    "cluster.leader.missing",
    "This member has had no leader for an election timeout or more, and reaches none of the missing; told again every "
    "30 s.",
    ms=FLOAT,
    missing=TEXTS,
)

_warn(
    "node.membership.ended",
    "This member was taken out of the cluster: its node ends, and its data directory is of no more use.",
    member=ID,
    name=TEXT,
)

# The write-ahead log.
_info(
    "wal.log.recovered",
    "What the log holds after a start.",
    segments=INT,
    first_index=INT,
    last_index=INT,
    commit=INT,
    vote=ID,
    ms=FLOAT,
)
_warn(
    "wal.tail.torn",
    "The last write before a crash was incomplete; it was never acknowledged and is zeroed.",
    file=TEXT,
    offset=INT,
    bytes=INT,
)
_info("wal.segment.rolled", "The log goes on in a new file.", segment=INT, index=INT)
_info("wal.segment.released", "Files that are no longer needed wait to be used again.", segments=INT, index=INT)
_warn("wal.sync.slow", "Writes wait for this disk.", limited=True, ms=FLOAT, bytes=INT, entries=INT)
_error("wal.sync.failed", "It is not known what the disk holds, and the node ends.", error=TEXT)
_warn("wal.disk.full", "The log cannot grow: writes wait for space.", limited=True, error=TEXT)

# Consensus.
_info(
    "raft.state.restored",
    "What this member remembers of before.",
    vote=ID,
    commit=INT,
    last_index=INT,
    applied=INT,
    voters=IDS,
)
_info(
    "raft.role.changed",
    "This member has another role now, and why.",
    from_role=TEXT,
    to_role=TEXT,
    reason=TEXT,
)
_info("raft.term.advanced", "A higher term was seen, and why.", from_term=INT, to_term=INT, peer=ID, reason=TEXT)
_info("raft.leader.found", "This member follows a leader from now on.", leader=ID)
_warn("raft.leader.lost", "This member knows no leader any more, and why.", leader=ID, reason=TEXT)
_info(
    "raft.campaign.planned",
    "This member will ask for votes soon, without waiting for its election timeout; its rank keeps it from others.",
    reason=TEXT,
    rank=INT,
    ticks=INT,
)
_info(
    "raft.election.started",
    "This member asks for votes, and why. A pre-vote asks without disturbing a leader.",
    pre=BOOL,
    reason=TEXT,
    last_index=INT,
    last_term=INT,
    voters=IDS,
)
_info("raft.election.won", "A quorum gave its votes.", votes=INT, quorum=INT)
_info(
    "raft.election.lost",
    "A quorum of votes can no longer be reached.",
    pre=BOOL,
    votes=INT,
    refusals=INT,
    quorum=INT,
)
_info("raft.election.postponed", "This member would ask for votes, but must not yet.", reason=TEXT)
_info("raft.vote.granted", "This member gave its vote.", pre=BOOL, candidate=ID, last_index=INT, last_term=INT)
_info("raft.vote.refused", "This member refused its vote, and why.", pre=BOOL, candidate=ID, reason=TEXT)
_info(
    "raft.vote.received",
    "A voter answered, and why not.",
    pre=BOOL,
    voter=ID,
    granted=BOOL,
    reason=TEXT,
    votes=INT,
    quorum=INT,
)
_warn(
    "raft.quorum.lost",
    "The leader heard too few voters for an election timeout and steps down.",
    heard=IDS,
    quorum=INT,
)
_info(
    "raft.transfer.started",
    "The leader hands over to a member, once its log is as long.",
    to=ID,
    match=INT,
    last_index=INT,
)
_warn("raft.leader.stuck", "One write keeps the leader's disk busy for too long, and it hands over.", ms=FLOAT)
_info("raft.transfer.finished", "That member stands for election, as it was told to.", to=ID)
_warn("raft.transfer.failed", "The leadership was not handed over, and why.", to=ID, reason=TEXT)
_info(
    "raft.configuration.applied",
    "Quorums are counted among these voters; outgoing ones count beside them while two configurations are joint.",
    voters=IDS,
    outgoing=IDS,
    learners=IDS,
    blank=IDS,
)
_warn("raft.configuration.refused", "A change of the members was not begun, and why.", limited=True, reason=TEXT)
_info(
    "raft.peer.probing",
    "The leader looks for where a follower's log agrees with its own.",
    peer=ID,
    match=INT,
    reason=TEXT,
)
_info("raft.peer.replicating", "A follower's log agrees, and it is sent entries as they come.", peer=ID, match=INT)
_warn(
    "raft.peer.snapshot",
    "What a follower needs next has left the log: it needs a snapshot.",
    peer=ID,
    match=INT,
    first_index=INT,
)
_info(
    "raft.append.refused",
    "Entries do not follow on this member's log; the leader goes back.",
    limited=True,
    peer=ID,
    index=INT,
    hint=INT,
)
_warn("raft.log.truncated", "Entries that were never committed gave way to a new leader's.", first=INT, last=INT)
_info("raft.snapshot.accepted", "A snapshot takes the place of the log.", peer=ID, index=INT, last_index=INT)
_info("raft.snapshot.ignored", "A snapshot holds nothing that the log does not.", peer=ID, index=INT, committed=INT)

# The state machine and its store.
_info("store.environment.opened", "The store, as it was left.", applied=INT, size_bytes=INT, ms=FLOAT)
_info("store.state.loaded", "The index is in memory.", keys=INT, revision=INT, applied=INT, ms=FLOAT)
_warn("store.flush.slow", "Writing applied records to disk takes long.", limited=True, ms=FLOAT, overlay_bytes=INT)
_error("store.flush.failed", "The store could not be written, and the node ends.", error=TEXT)
_warn("store.disk.full", "Applied records wait in memory for space on the disk.", limited=True, error=TEXT)
_info("store.compaction.started", "History up to this revision is going to be removed.", revision=INT)
_info("store.compaction.finished", "Its space can be used again.", revision=INT, records=INT, ms=FLOAT)
_error(
    "apply.write.raised",
    "A write met a mistake in coord's code: it changed nothing, on all members alike. Please report it.",
    limited=True,
    index=INT,
    position=INT,
    error=TEXT,
)
_info("compaction.automatic.proposed", "Automatic compaction asks to forget history.", mode=TEXT, revision=INT)
_warn("alarm.state.raised", "An alarm restricts what the cluster takes.", alarm=TEXT, member=ID, reason=TEXT)
_info("alarm.state.cleared", "The alarm is over.", alarm=TEXT, member=ID, reason=TEXT)

# Snapshots between members.
_info(
    "snapshot.state.installed",
    "A snapshot took the place of this member's state; it goes on from there.",
    index=INT,
    log_term=INT,
    revision=INT,
    ms=FLOAT,
)
_info(
    "snapshot.state.outdated",
    "A snapshot came whole, but this member had got further meanwhile, and does not need it.",
    index=INT,
    applied=INT,
)

# Leases and watches.
_info(
    "lease.clock.started",
    "This leader counts the time of all leases from now: their full TTLs, or what is left of those that were "
    "checkpointed.",
    leases=INT,
    checkpointed=INT,
)
_debug(
    "lease.checkpoint.proposed",
    "Leases missed a renewal: what is left of them is written down, for a new leader to count from.",
    leases=INT,
)
_debug(
    "lease.checkpoint.cleared",
    "Leases were renewed after a checkpoint; the entry that clears it is proposed, and their holders wait for it.",
    leases=INT,
)
_info("lease.batch.expired", "Leases ran out; the entry that deletes their keys is proposed.", leases=INT)
_warn("lease.clock.delayed", "The node stalled; no lease is charged for that time.", limited=True, ms=FLOAT)
_warn(
    "watch.client.lagging",
    "A client reads slowly: its watches go on from history.",
    limited=True,
    watches=INT,
    revision=INT,
)
_warn(
    "watch.stream.canceled",
    "What a watch wanted next was compacted away.",
    limited=True,
    watch=INT,
    compact_revision=INT,
)
_info("watch.stream.ended", "This node cannot serve watches now, and ends them all.", watches=INT, reason=TEXT)

# Clients.
_info("client.listener.opened", "Clients can connect here.", url=TEXT)
_warn(
    "client.listener.paused",
    "No connection can be taken for a moment.",
    limited=True,
    url=TEXT,
    error=TEXT,
    ms=FLOAT,
)
_debug("client.connection.opened", "A client connected.", peer=TEXT, connections=INT)
_debug("client.connection.closed", "A client went.", peer=TEXT, connections=INT, reason=TEXT)
_warn("client.connection.refused", "Not let in, and why.", limited=True, peer=TEXT, status=INT, reason=TEXT)
_warn(
    "client.connection.dropped",
    "A connection was ended by the node, and why.",
    limited=True,
    peer=TEXT,
    reason=TEXT,
)
_error(
    "client.connection.failed",
    "A mistake in coord's code ended a connection: please report it.",
    limited=True,
    peer=TEXT,
    error=TEXT,
)
_warn("client.message.refused", "A client sent what the protocol forbids.", limited=True, peer=TEXT, error=TEXT)
_debug("http.request.served", "A plain HTTP request was answered.", peer=TEXT, path=TEXT, status=INT)
_warn("http.check.failed", "A health check does not pass.", limited=True, check=TEXT, reason=TEXT)

# The loop.
_warn("loop.turn.stalled", "One step held everything up.", limited=True, task=TEXT, ms=FLOAT)
_warn(
    "loop.wake.delayed",
    "The process did not run for a while: paused, or short of processor time.",
    limited=True,
    ms=FLOAT,
)
_error(
    "loop.watchdog.withheld",
    "systemd is not told that all is well, because it is not.",
    limited=True,
    reason=TEXT,
)

_ALL: Final = [*_COLLECTED.specs, *PEER_EVENTS.specs]
CATALOGUE: Final[dict[str, EventSpec]] = {spec.name: spec for spec in _ALL}
"""Every event by its name."""
assert len(CATALOGUE) == len(_ALL)


class MalformedEventError(ValueError):
    """An event that is not in the catalogue, or whose fields are not as catalogued: a mistake in the code."""


_TYPES: Final[dict[Kind, tuple[type, ...]]] = {
    Kind.INT: (int,),
    Kind.FLOAT: (int, float),
    Kind.BOOL: (bool,),
    Kind.TEXT: (str, BaseException),
    Kind.TEXTS: (list, tuple),
    Kind.ID: (int,),
    Kind.IDS: (list, tuple),
    Kind.KEY: (bytes,),
}


def check_event(name: str, fields: dict[str, Any]) -> EventSpec:
    """Return the event's spec; raise `MalformedEventError` unless name, fields and types are as catalogued.

    `term` and `role` may be added to any event. Tests log through this, so that a mistake is found before a
    node runs into it.
    """
    spec = CATALOGUE.get(name)
    if spec is None:
        raise MalformedEventError(f"{name} is not in the catalogue of coord.observe.events")
    given = fields.keys() - {"term", "role"}
    if given != spec.fields.keys():
        odd = ", ".join(sorted(given ^ spec.fields.keys()))
        raise MalformedEventError(f"{name} has the fields {', '.join(spec.fields)}; missing or unknown: {odd}")
    for field, kind in spec.fields.items():
        value = fields[field]
        if value is None:
            continue
        if not isinstance(value, _TYPES[kind]) or (kind is not Kind.BOOL and isinstance(value, bool)):
            raise MalformedEventError(f"{name}: {field} is a {kind.value}, not {value!r}")
    return spec

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

from coord.observe.kinds import EventSpec, Kind, Level

INT, FLOAT, BOOL, TEXT, TEXTS, ID, IDS, KEY = Kind

_COLLECTED: list[EventSpec] = []


def _add(level: Level, limited: bool, name: str, meaning: str, fields: dict[str, Kind]) -> None:
    _COLLECTED.append(EventSpec(name, level, meaning, fields, limited))


def _debug(name: str, meaning: str, /, **fields: Kind) -> None:
    _add(Level.DEBUG, False, name, meaning, fields)


def _info(name: str, meaning: str, /, **fields: Kind) -> None:
    _add(Level.INFO, False, name, meaning, fields)


def _warn(name: str, meaning: str, /, *, limited: bool = False, **fields: Kind) -> None:
    _add(Level.WARN, limited, name, meaning, fields)


def _error(name: str, meaning: str, /, *, limited: bool = False, **fields: Kind) -> None:
    _add(Level.ERROR, limited, name, meaning, fields)


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
_warn("node.actor.failed", "A part that can be started anew failed and will be.", actor=TEXT, error=TEXT)
_error(
    "node.process.failed",
    "The node ends, because it can no longer keep its promises; systemd starts it again.",
    actor=TEXT,
    error=TEXT,
)
_info("node.shutdown.started", "The node was asked to stop and takes no new work.", reason=TEXT)
_info("node.shutdown.advanced", "A phase of the shutdown is done.", phase=TEXT, ms=FLOAT)
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
_info("cluster.members.changed", "The members, as applied here.", members=IDS, learners=IDS, index=INT)
_info(
    "cluster.version.raised",
    "Entries and answers of this cluster version are in use from now on.",
    version=INT,
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
_error("wal.log.damaged", "Stored bytes are not what was written; the node refuses to start.", error=TEXT)
_info("wal.segment.rolled", "The log goes on in a new file.", segment=INT, index=INT)
_debug(
    "wal.segment.prepared",
    "The next file is ready, so that the roll will not wait for it.",
    recycled=BOOL,
    ms=FLOAT,
)
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
    "raft.election.started",
    "This member asks for votes, and why. A pre-vote asks without disturbing a leader.",
    pre=BOOL,
    reason=TEXT,
    last_index=INT,
    last_term=INT,
    voters=IDS,
)
_info("raft.election.won", "A quorum gave its votes.", pre=BOOL, votes=INT, quorum=INT)
_info(
    "raft.election.lost",
    "A quorum of votes can no longer be reached.",
    pre=BOOL,
    votes=INT,
    rejections=INT,
    quorum=INT,
)
_info("raft.election.postponed", "This member would ask for votes, but must not yet.", reason=TEXT)
_info("raft.vote.granted", "This member gave its vote.", pre=BOOL, candidate=ID, last_index=INT, last_term=INT)
_info("raft.vote.rejected", "This member refused its vote, and why.", pre=BOOL, candidate=ID, reason=TEXT)
_info("raft.vote.received", "A voter answered.", pre=BOOL, voter=ID, granted=BOOL, votes=INT, quorum=INT)
_warn(
    "raft.quorum.lost",
    "The leader heard too few voters for an election timeout and steps down.",
    heard=IDS,
    quorum=INT,
)
_warn(
    "raft.proposal.dropped",
    "Proposals were refused; nothing of them was kept.",
    limited=True,
    count=INT,
    reason=TEXT,
)
_info(
    "raft.append.rejected",
    "Entries do not follow on this member's log; the leader goes back.",
    peer=ID,
    index=INT,
    hint=INT,
)
_warn("raft.log.truncated", "Entries that were never committed gave way to a new leader's.", first=INT, last=INT)
_info(
    "raft.configuration.applied",
    "Quorums are counted among these voters.",
    voters=IDS,
    learners=IDS,
    index=INT,
)
_warn("raft.configuration.refused", "A change of the members was not begun, and why.", reason=TEXT)

# The state machine and its store.
_info("store.environment.opened", "The store, as it was left.", applied=INT, size_bytes=INT, ms=FLOAT)
_info("store.state.loaded", "The index is in memory.", keys=INT, revision=INT, applied=INT, ms=FLOAT)
_warn(
    "store.flush.slow",
    "Writing applied records to disk takes long.",
    limited=True,
    ms=FLOAT,
    records=INT,
    bytes=INT,
)
_error("store.flush.failed", "The store could not be written, and the node ends.", error=TEXT)
_warn("store.disk.full", "Applied records wait in memory for space on the disk.", limited=True, error=TEXT)
_warn(
    "store.reserve.released",
    "The space kept for bad times is in use now, so that deletes stay possible.",
    bytes=INT,
)
_debug(
    "store.sync.finished",
    "The store is on disk up to here, and the log may be released.",
    index=INT,
    ms=FLOAT,
)
_info("store.compaction.started", "History up to this revision is going to be removed.", revision=INT)
_info("store.compaction.finished", "Its space can be used again.", revision=INT, records=INT, ms=FLOAT)
_info("store.snapshot.created", "A snapshot file was written.", index=INT, bytes=INT, ms=FLOAT)
_info("store.snapshot.installed", "The state was replaced by a snapshot.", index=INT, bytes=INT, ms=FLOAT)
_warn("store.snapshot.failed", "A snapshot could not be written or read.", error=TEXT)
_error("store.record.damaged", "A stored record is not what was written.", error=TEXT)
_warn(
    "apply.batch.slow",
    "Applying committed entries takes long.",
    limited=True,
    ms=FLOAT,
    entries=INT,
    index=INT,
)
_error(
    "apply.write.raised",
    "A write met a mistake in coord's code: it changed nothing, on all members alike. Please report it.",
    limited=True,
    index=INT,
    position=INT,
    error=TEXT,
)
_error("apply.entry.unknown", "An entry that this release cannot read: upgrade first.", index=INT, error=TEXT)
_debug("apply.store.awaited", "So much waits to be written that apply waits for the store.", overlay_bytes=INT)
_info("compaction.automatic.proposed", "Automatic compaction asks to forget history.", mode=TEXT, revision=INT)
_warn(
    "compaction.automatic.failed",
    "Automatic compaction will be tried again.",
    mode=TEXT,
    revision=INT,
    error=TEXT,
)
_warn("alarm.state.raised", "An alarm restricts what the cluster takes.", alarm=TEXT, member=ID, reason=TEXT)
_info("alarm.state.cleared", "The alarm is over.", alarm=TEXT, member=ID, reason=TEXT)

# Leases and watches.
_info(
    "lease.clock.started",
    "This leader counts the time of all leases from now, with their full TTLs.",
    leases=INT,
)
_info("lease.batch.expired", "Leases ran out, and their keys are deleted.", leases=INT, keys=INT, revision=INT)
_warn("lease.clock.delayed", "The node stalled; no lease is charged for that time.", limited=True, ms=FLOAT)
_info(
    "watch.client.lagging",
    "A client reads slowly: its watches go on from history.",
    peer=TEXT,
    watches=INT,
    revision=INT,
)
_info("watch.client.recovered", "Its watches are up to date again.", peer=TEXT, watches=INT, revision=INT)
_warn(
    "watch.stream.canceled",
    "A watch ended although its client did not ask for it.",
    limited=True,
    peer=TEXT,
    watch=INT,
    compact_revision=INT,
    reason=TEXT,
)

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
_warn("client.request.slow", "A request took long.", limited=True, method=TEXT, key=KEY, ms=FLOAT)
_error(
    "client.request.failed",
    "A mistake in coord's code failed a request: please report it.",
    limited=True,
    method=TEXT,
    error=TEXT,
)
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

CATALOGUE: Final[dict[str, EventSpec]] = {spec.name: spec for spec in _COLLECTED}
"""Every event by its name."""
assert len(CATALOGUE) == len(_COLLECTED)


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

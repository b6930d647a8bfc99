"""The part of the catalogue that is about other members: links, and snapshots on their way. See `events`."""

from __future__ import annotations

from typing import Final

from coord.observe.kinds import Collector, Kind

INT, FLOAT, BOOL, TEXT, TEXTS, ID, IDS, KEY = Kind

PEER_EVENTS: Final = Collector()
_debug, _info, _warn, _error = PEER_EVENTS.debug, PEER_EVENTS.info, PEER_EVENTS.warn, PEER_EVENTS.error

# Links between members.
_info("peer.link.opened", "This node's link to a member stands.", member=ID, name=TEXT, url=TEXT, boot=INT)
_info("peer.link.accepted", "A member's own link was let in.", member=ID, name=TEXT, peer=TEXT, boot=INT)
_warn(
    "peer.link.lost",
    "A link with a member ended: `out` is this node's own, `in` the member's.",
    member=ID,
    name=TEXT,
    direction=TEXT,
    end=TEXT,
    reason=TEXT,
)
_warn(
    "peer.link.failed",
    "A member cannot be reached; said at the first try, and then ever more rarely.",
    member=ID,
    name=TEXT,
    error=TEXT,
    is_refused=BOOL,
    attempts=INT,
    ms=FLOAT,
)
_warn(
    "peer.process.gone",
    "A member's link broke and its port refuses another: its process has died.",
    member=ID,
    name=TEXT,
    error=TEXT,
)
_error(
    "peer.link.refused",
    "A member does not let this node in; the text says what to do.",
    member=ID,
    name=TEXT,
    code=TEXT,
    reason=TEXT,
)
_warn(
    "peer.hello.refused",
    "Somebody who said hello on the members' port is not let in, and why.",
    limited=True,
    peer=TEXT,
    member=ID,
    name=TEXT,
    code=TEXT,
    reason=TEXT,
)
_debug(
    "peer.hello.missing",
    "A connection to the members' port ended before anything was said: somebody looked whether it is open, or was cut "
    "off.",
    limited=True,
    peer=TEXT,
    reason=TEXT,
)
_warn(
    "peer.message.refused",
    "A member sent what the protocol forbids, and its link was ended.",
    limited=True,
    member=ID,
    peer=TEXT,
    error=TEXT,
)
_warn(
    "peer.link.congested",
    "A member takes its messages slowly: entries are dropped, and sent again later.",
    limited=True,
    member=ID,
    name=TEXT,
    dropped=INT,
    buffered_bytes=INT,
)
_error(
    "peer.task.failed",
    "A mistake in coord's code ended a link between members: please report it.",
    limited=True,
    member=ID,
    name=TEXT,
    error=TEXT,
)

_info("peer.listener.opened", "Members can connect here.", url=TEXT)
_warn(
    "peer.listener.paused",
    "No link of a member can be taken for a moment.",
    limited=True,
    url=TEXT,
    error=TEXT,
    ms=FLOAT,
)
_warn(
    "peer.connection.refused",
    "Not let in at the members' port, and why.",
    limited=True,
    peer=TEXT,
    status=INT,
    reason=TEXT,
)

# Snapshots on their way to other members.
_info("snapshot.file.started", "The state is being copied into a file for a member that lags.")
_info(
    "snapshot.file.finished",
    "The file holds the state as it was after this entry.",
    index=INT,
    log_term=INT,
    bytes=INT,
    ms=FLOAT,
)
_warn("snapshot.file.failed", "The state could not be copied.", error=TEXT)
_info(
    "snapshot.transfer.started",
    "A member's next entry has left the log: it is sent the whole state.",
    member=ID,
    index=INT,
    bytes=INT,
)
_info("snapshot.transfer.finished", "The member has installed it.", member=ID, index=INT, bytes=INT, ms=FLOAT)
_warn("snapshot.transfer.failed", "The member did not get the state; it is tried again.", member=ID, error=TEXT)
_info("snapshot.receipt.started", "The leader sends this member the whole state.", member=ID, index=INT, bytes=INT)
_info("snapshot.receipt.finished", "It is here, and verified.", member=ID, index=INT, bytes=INT, ms=FLOAT)
_warn("snapshot.receipt.refused", "A snapshot that a member offers is not taken.", member=ID, index=INT, reason=TEXT)
_warn("snapshot.receipt.failed", "It did not become this member's state.", member=ID, index=INT, error=TEXT)

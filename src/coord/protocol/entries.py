"""Entries of the replicated log: `[format, kind, header, body]` (coord.cddl).

The body of a write entry holds frames of one or many clients. What a client wrote stands there as the byte string that
it sent, spliced and never encoded again: the WAL, every follower and the digest of a retry see the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from attrs import frozen

from coord.codec import array_head, bytes_head, decode, encode, uint
from coord.errors import DecodeError
from coord.protocol.ops import ENTRY_FORMAT, EntryKind

_PREFIX: Final = {kind: b"\x84" + encode(ENTRY_FORMAT) + encode(int(kind)) for kind in EntryKind}
_FRAME_PREFIX: Final = b"\x85"
_NONE: Final = encode([])

Settling = Mapping[int, tuple[Any, ...]]
"""By a write's position in its frame, what the node settled there: `(Settled.REFUSED, [code, text, details])` or
`(Settled.LEASE, lease_id, ttl_s)`."""

NOTHING: Final[Settling] = {}
"""Of most frames nothing has to be settled."""


@frozen
class Member:
    """A member of the cluster, as it stands in entries and in the store.

    `incarnation` is that of its data directory, 0 until the member has joined and the leader has published it (S1);
    until then its name and client URLs may be unknown too. A learner with `becomes_voter` is promoted by the leader
    as soon as it has caught up.
    """

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool = False
    incarnation: int = 0
    becomes_voter: bool = False

    def to_wire(self) -> list[Any]:
        """Return the positional array of coord.cddl's `member`."""
        return [
            self.id,
            self.name,
            list(self.peer_urls),
            list(self.client_urls),
            self.is_learner,
            self.incarnation,
            self.becomes_voter,
        ]

    @staticmethod
    def from_wire(wire: Sequence[Any]) -> Member:
        """Return the member that the positional array tells of; the last two items may be missing."""
        return Member(wire[0], wire[1], tuple(wire[2]), tuple(wire[3]), *wire[4:7])


@frozen
class Roster:
    """All that is replicated about who belongs to the cluster: it changes as a whole (S15).

    `outgoing` holds the old voters while two configurations are joint (thesis §4.3), else nothing. `removed` holds
    the ids that never return (S1); a member that is in it too is leaving: it votes among the outgoing alone.
    """

    members: tuple[Member, ...] = ()
    outgoing: frozenset[int] = frozenset()
    removed: frozenset[int] = frozenset()

    def to_wire(self) -> list[Any]:
        """Return coord.cddl's `members-body`."""
        members = sorted(self.members, key=lambda member: member.id)
        return [[member.to_wire() for member in members], sorted(self.outgoing), sorted(self.removed)]

    @staticmethod
    def from_wire(wire: Sequence[Any]) -> Roster:
        """Return what a `members-body` tells."""
        return Roster(tuple(Member.from_wire(member) for member in wire[0]), frozenset(wire[1]), frozenset(wire[2]))


@frozen
class WritesHeader:
    """What the member that took clients' frames says of the entry that holds them.

    `number` is the entry's among all that this member ever proposed, over all its boots (S14).
    """

    origin: int
    number: int
    max_txn_ops: int


class Frame(NamedTuple):
    """A client's writes, as they came in one frame; nothing of the rest comes from the client but `client` and `low`.

    `decoded` is `body` decoded; None where it cannot be read, which refuses all of it, on all members alike (S15).
    `is_checked` if this member has checked its writes, and has settled that those which failed are refused.
    """

    client: int
    low: int
    principal: str
    settled: Settling
    body: bytes
    decoded: Any = None
    is_checked: bool = False


def initial_member_id(token: str, name: str, peer_urls: Sequence[str]) -> int:
    """Return the id of a member that the flags name: equal flags give equal ids on all nodes (S1).

    The first 8 bytes of SHA-256 over token, name and sorted peer URLs, each with its length before it.
    """
    digest = hashlib.sha256()
    for text in (token, name, *sorted(peer_urls)):
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return int.from_bytes(digest.digest()[:8], "big") or 1


def encode_entry(kind: EntryKind, header: Any, body: bytes) -> bytes:
    """Return an entry with `body` spliced in."""
    return b"".join((_PREFIX[kind], encode(header), bytes_head(len(body)), body))


def encode_writes(header: WritesHeader, frames: Sequence[Frame]) -> bytes:
    """Return the entry that carries clients' writes, in the order of `frames`."""
    parts = [
        _PREFIX[EntryKind.WRITES],
        encode([header.origin, header.number, [header.max_txn_ops]]),
        array_head(len(frames)),
    ]
    for client, low, principal, settled, body, *_ in frames:
        told = encode([[position, *what] for position, what in settled.items()]) if settled else _NONE
        parts += (_FRAME_PREFIX, uint(client), uint(low), encode(principal), told, bytes_head(len(body)), body)
    return b"".join(parts)


def encode_members(roster: Roster) -> bytes:
    """Return the entry that makes `roster` the cluster's."""
    return encode_entry(EntryKind.MEMBERS, None, encode(roster.to_wire()))


def encode_cluster(cluster_id: int, max_client_records: int, members: Sequence[Member]) -> bytes:
    """Return the first entry of a new cluster (S1)."""
    body = [cluster_id, max_client_records, [member.to_wire() for member in members]]
    return encode_entry(EntryKind.CLUSTER, None, encode(body))


def decode_entry(data: bytes) -> tuple[int, Any, Any]:
    """Return `(kind, header, body)`; the body of writes is an array of frames, every other is a byte string.

    Raises `DecodeError` if the bytes are no entry of this format: an entry that cannot be read must stop the node
    ("upgrade first"), since skipping it would make this member differ from the others.
    """
    # How large a frame may be was judged where it came in: in the log it stands, and is applied.
    entry = decode(data, is_counted=False)
    if type(entry) is not list or len(entry) < 4 or type(entry[1]) is not int:
        raise DecodeError("not an entry of the replicated log")
    if entry[0] != ENTRY_FORMAT:
        raise DecodeError(f"entry format {entry[0]!r} is newer than this release knows: upgrade first")
    if type(entry[3]) is not (list if entry[1] == EntryKind.WRITES else bytes):
        raise DecodeError("not an entry of the replicated log")
    return entry[1], entry[2], entry[3]


def read_writes(header: Sequence[Any], body: Sequence[Any]) -> tuple[WritesHeader, list[Frame]]:
    """Return what `decode_entry` found in a write entry."""
    origin, number, (max_txn_ops, *_) = header
    frames = [
        Frame(client, low, principal, _read_settled(settled) if settled else NOTHING, data, _read_body(data))
        for client, low, principal, settled, data in body
    ]
    return WritesHeader(origin, number, max_txn_ops), frames


def _read_settled(wire: Sequence[Any]) -> Settling:
    return {item[0]: tuple(item[1:]) for item in wire}


def _read_body(body: bytes) -> Any:
    try:
        return decode(body, is_counted=False)
    except DecodeError:
        return None

"""The first two messages of a link between members (S2): who dials, and whom it reached.

Their first items are the kind and the protocol version; what follows may grow at the end, so that members of two
releases understand each other.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any, Final

from attrs import frozen

from coord.codec import decode, encode
from coord.errors import DecodeError
from coord.protocol.entries import Member
from coord.protocol.ops import PEER_PROTOCOL_VERSION, PeerFrame
from coord.protocol.shapes import BOOL, LIST, TEXT, UINT, Field, name_of, read_fields

_MEMBERS_MAX: Final = 1_000


class Purpose(IntEnum):
    """What a link is for: Raft's and forwarded messages, one snapshot, or only to learn who is there."""

    MESSAGES = 0
    SNAPSHOT = 1
    PROBE = 2


class RefusalCode(StrEnum):
    """Why a hello is refused; the text beside it says what to do."""

    OTHER_CLUSTER = "other-cluster"
    OTHER_FLAGS = "other-flags"
    FLAGS_DIFFER = "flags-differ"
    OTHER_NAME = "other-name"
    SAME_NAME = "same-name"
    REMOVED = "removed"
    OTHER_INCARNATION = "other-incarnation"
    OLD_BOOT = "old-boot"
    COPIED = "copied"
    LOST_ENTRIES = "lost-entries"
    UNKNOWN_MEMBER = "unknown-member"
    NOT_ADDED = "not-added"
    ALREADY_JOINED = "already-joined"
    NOT_READY = "not-ready"

    @property
    def is_final(self) -> bool:
        """True if waiting does not help: somebody has to do what the text says."""
        return self not in _PASSING


_PASSING: Final = {
    RefusalCode.NOT_READY,
    RefusalCode.FLAGS_DIFFER,
    RefusalCode.UNKNOWN_MEMBER,
    RefusalCode.NOT_ADDED,
}


@frozen
class Hello:
    """What a dialler says of itself.

    `bootstrap_id` proves equal flags; it is 0 for a member that joined a cluster that was there. `cluster_id` is 0
    for one that has none yet, `member` for one that waits to be told its id, and `to` if it does not know whom it
    will reach. `incarnation`, `boot` and `nonce` tell one life of one data directory (S1); `last_index` is that of
    its log.
    """

    bootstrap_id: int
    cluster_id: int
    member: int
    peer_urls: tuple[str, ...]
    incarnation: int
    boot: int
    nonce: int
    to: int
    name: str
    client_urls: tuple[str, ...]
    last_index: int
    purpose: Purpose = Purpose.MESSAGES
    version: int = PEER_PROTOCOL_VERSION


@frozen
class Welcome:
    """The answer: who was reached, and how it knows the dialler (`your_member`).

    `members` are those that the answerer has applied; none if `cluster_id` is 0. `leader` is 0 if it knows none.
    """

    cluster_id: int
    member: int
    your_member: int
    members: tuple[Member, ...]
    incarnation: int
    boot: int
    nonce: int
    leader: int
    version: int = PEER_PROTOCOL_VERSION


@frozen
class Refusal:
    """The other answer; `text` is for the operator of whoever is refused and says what to do."""

    code: RefusalCode
    text: str


_HELLO: Final = (
    Field("kind", UINT),
    Field("version", UINT),
    Field("bootstrap id", UINT),
    Field("cluster id", UINT),
    Field("member", UINT),
    Field("peer URLs", LIST),
    Field("incarnation", UINT),
    Field("boot", UINT),
    Field("nonce", UINT),
    Field("receiver", UINT),
    Field("name", TEXT),
    Field("client URLs", LIST),
    Field("last index", UINT),
    Field("purpose", UINT),
)
_WELCOME: Final = (
    Field("kind", UINT),
    Field("version", UINT),
    Field("cluster id", UINT),
    Field("member", UINT),
    Field("your member", UINT),
    Field("members", LIST),
    Field("incarnation", UINT),
    Field("boot", UINT),
    Field("nonce", UINT),
    Field("leader", UINT),
)
_REFUSAL: Final = (Field("kind", UINT), Field("version", UINT), Field("code", TEXT), Field("text", TEXT))
_MEMBER: Final = (
    Field("id", UINT),
    Field("name", TEXT),
    Field("peer URLs", LIST),
    Field("client URLs", LIST),
    Field("learner", BOOL),
    Field("incarnation", UINT),
    Field("becomes-voter", BOOL),
)


def encode_hello(hello: Hello) -> bytes:
    """Return the first message of a link."""
    return encode(
        [
            int(PeerFrame.HELLO),
            hello.version,
            hello.bootstrap_id,
            hello.cluster_id,
            hello.member,
            list(hello.peer_urls),
            hello.incarnation,
            hello.boot,
            hello.nonce,
            hello.to,
            hello.name,
            list(hello.client_urls),
            hello.last_index,
            int(hello.purpose),
        ]
    )


def decode_hello(data: bytes) -> Hello:
    """Return the hello that `data` holds; raises `DecodeError`, which says what is wrong."""
    items = read_fields("the hello", decode(data), _HELLO)
    if items[0] != PeerFrame.HELLO or not items[1]:
        raise DecodeError(f"a link begins with a hello, not with kind {items[0]} of version {items[1]}")
    try:
        purpose = Purpose(items[13])
    except ValueError:
        raise DecodeError(f"this release knows no link for purpose {items[13]}") from None
    return Hello(
        version=items[1],
        bootstrap_id=items[2],
        cluster_id=items[3],
        member=items[4],
        peer_urls=_texts("the hello", items[5]),
        incarnation=items[6],
        boot=items[7],
        nonce=items[8],
        to=items[9],
        name=items[10],
        client_urls=_texts("the hello", items[11]),
        last_index=items[12],
        purpose=purpose,
    )


def encode_answer(answer: Welcome | Refusal) -> bytes:
    """Return the answer to a hello."""
    if isinstance(answer, Refusal):
        return encode([int(PeerFrame.REFUSAL), PEER_PROTOCOL_VERSION, str(answer.code), answer.text])
    return encode(
        [
            int(PeerFrame.WELCOME),
            answer.version,
            answer.cluster_id,
            answer.member,
            answer.your_member,
            [member.to_wire() for member in answer.members],
            answer.incarnation,
            answer.boot,
            answer.nonce,
            answer.leader,
        ]
    )


def decode_answer(data: bytes) -> Welcome | Refusal:
    """Return the answer that `data` holds; raises `DecodeError`, which says what is wrong."""
    items = decode(data)
    if type(items) is list and items and items[0] == PeerFrame.REFUSAL:
        _, _, code, text = read_fields("the refusal", items, _REFUSAL)
        try:
            return Refusal(RefusalCode(code), text)
        except ValueError:
            # A newer release has reasons that this one does not know; they may pass.
            return Refusal(RefusalCode.NOT_READY, text)
    items = read_fields("the welcome", items, _WELCOME)
    if items[0] != PeerFrame.WELCOME or not items[1]:
        raise DecodeError(f"a hello is answered by a welcome, not by kind {items[0]} of version {items[1]}")
    _, version, cluster_id, member, your_member, members, incarnation, boot, nonce, leader = items
    if len(members) > _MEMBERS_MAX:
        raise DecodeError(f"the welcome has {len(members)} members")
    return Welcome(
        cluster_id,
        member,
        your_member,
        tuple(_member(item) for item in members),
        incarnation,
        boot,
        nonce,
        leader,
        version,
    )


def _member(item: Any) -> Member:
    member_id, name, peer_urls, client_urls, *rest = read_fields("a member", item, _MEMBER)
    return Member(member_id, name, _texts("a member", peer_urls), _texts("a member", client_urls), *rest)


def _texts(what: str, items: list[Any]) -> tuple[str, ...]:
    for item in items:
        if type(item) is not str:
            raise DecodeError(f"a URL of {what} must be text, not {name_of(item)}")
    return tuple(items)

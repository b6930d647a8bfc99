"""What members of a cluster say to each other, as values; `peer_protocol` turns them into bytes and back.

The first group is Raft's (thesis §3, §4, §6, §9.6); the second carries clients' requests from the member that took
them to the leader (S14). Every message names its sender and its receiver: S2 has a link refuse a message that is not
its peer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen

VOTE_GRANTED: Final = ""
"""`VoteReply.refusal` of a granted vote; otherwise it says in words why not, for the candidate's log."""


@frozen
class VoteRequest:
    """A candidate asks for a vote (thesis §3.4), or with `is_pre` whether it would get one (§9.6).

    `term` of a pre-vote is the term that the candidate would have. `is_transfer` tells that the leader itself asked
    for this election (§3.10), so that having heard a leader is no reason to refuse.
    """

    sender: int
    to: int
    term: int
    last_index: int
    last_term: int
    is_pre: bool = False
    is_transfer: bool = False


@frozen
class VoteReply:
    """The answer. `term` is the request's if granted, else the voter's own."""

    sender: int
    to: int
    term: int
    is_pre: bool
    refusal: str = VOTE_GRANTED


@frozen
class Append:
    """Entries behind (`previous_index`, `previous_term`), with the leader's commit index (thesis §3.5).

    `entries` are `(index, term, data)`, without gaps.
    """

    sender: int
    to: int
    term: int
    previous_index: int
    previous_term: int
    commit: int
    entries: Sequence[tuple[int, int, bytes]]


@frozen
class AppendReply:
    """The follower's log is durable and equal to the leader's up to `index`; or, if `is_rejected`, it is not.

    A rejection names the refused `index` (the request's `previous_index`) and a hint: the greatest index, and its
    term, at which the logs may agree (thesis §3.5, the faster backtracking).
    """

    sender: int
    to: int
    term: int
    index: int
    is_rejected: bool = False
    hint_index: int = 0
    hint_term: int = 0


@frozen
class Heartbeat:
    """The leader lives; `commit` is never above what it knows the follower to hold.

    `round` is the newest read round of the leader's term (thesis §6.4); the reply names it (S8).
    """

    sender: int
    to: int
    term: int
    commit: int
    round: int


@frozen
class HeartbeatReply:
    """The follower heard round `round` of `term` and follows.

    `is_watched`: watches, or reads of what it has, look at its state, so that it wants to hear of each commit at once.
    """

    sender: int
    to: int
    term: int
    round: int
    is_watched: bool


@frozen
class ReadRequest:
    """A follower asks for the index at which its reads are current. `round` is unique over boots (S8)."""

    sender: int
    to: int
    term: int
    round: int


@frozen
class ReadReply:
    """The follower's round `round` is confirmed at `index`; index 0: this member cannot tell, ask again."""

    sender: int
    to: int
    term: int
    round: int
    index: int


@frozen
class CampaignNow:
    """The leader asks a voter to campaign at once (thesis §3.10, TimeoutNow)."""

    sender: int
    to: int
    term: int


@frozen
class SnapshotReceived:
    """A whole snapshot of the leader's lies here as a file, verified; it never crosses the wire as a message.

    `index` and `log_term` are the snapshot's, `term` the leader's when it began to send.
    """

    sender: int
    to: int
    term: int
    index: int
    log_term: int


RaftMessage = (
    VoteRequest
    | VoteReply
    | Append
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | ReadRequest
    | ReadReply
    | CampaignNow
    | SnapshotReceived
)


@frozen
class Propose:
    """Entries that the sender settled for its clients, for the leader to append (S14).

    `entries` are `(number, entry bytes)`; the number is in the entry's header too, and unique over boots.
    """

    sender: int
    to: int
    entries: Sequence[tuple[int, bytes]]


@frozen
class Proposed:
    """What became of forwarded entries: `(number, term, index)`; term and index 0: nothing was proposed.

    `leader` is a hint: whom to ask instead, or 0.
    """

    sender: int
    to: int
    results: Sequence[tuple[int, int, int]]
    leader: int


@frozen
class Call:
    """Any other request that only the leader answers: a keep-alive, a time to live, a change of members.

    `method` and `arguments` are those of coord.cddl's `request`.
    """

    sender: int
    to: int
    id: int
    method: int
    timeout_ms: int
    arguments: list[Any]


@frozen
class CallReply:
    """The answer to `Call` `id`: an encoded result, or an error `[code, text, details]`.

    `is_unhandled` with an error tells that the receiver was no leader and did nothing.
    """

    sender: int
    to: int
    id: int
    result: bytes | None
    error: Sequence[Any] | None = None
    is_unhandled: bool = False


@frozen
class SpaceReport:
    """What the sender's store takes on its disk, for the leader to judge (S16).

    `is_full` tells that nothing more can be written there, whatever the quota.
    """

    sender: int
    to: int
    in_use_bytes: int
    quota_bytes: int
    is_full: bool


PeerMessage = RaftMessage | Propose | Proposed | Call | CallReply | SpaceReport

"""Messages between members as bytes: one frame carries all that one member has for another (peer.cddl).

An entry's bytes are spliced into the frame, and come out of it as they went in: the log of every member holds what
the first one encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, Final

from coord.codec import array_head, bytes_head, decode, encode, uint
from coord.errors import DecodeError
from coord.protocol.messages import (
    Append,
    AppendReply,
    Call,
    CallReply,
    CampaignNow,
    Heartbeat,
    HeartbeatReply,
    PeerMessage,
    Propose,
    Proposed,
    ReadReply,
    ReadRequest,
    SpaceReport,
    VoteReply,
    VoteRequest,
)
from coord.protocol.ops import PeerFrame, PeerKind
from coord.protocol.shapes import BOOL, LIST, TEXT, UINT, Field, name_of, read_fields

_UINT64: Final = 1 << 64
_KIND: Final = Field("kind", UINT)
_FRAME: Final = (_KIND, Field("sender", UINT), Field("receiver", UINT), Field("messages", LIST))

_PLAIN: Final[dict[PeerKind, tuple[type[Any], tuple[Field, ...]]]] = {
    PeerKind.VOTE_REQUEST: (
        VoteRequest,
        (
            _KIND,
            Field("term", UINT),
            Field("last_index", UINT),
            Field("last_term", UINT),
            Field("is_pre", BOOL),
            Field("is_transfer", BOOL),
        ),
    ),
    PeerKind.VOTE_REPLY: (
        VoteReply,
        (_KIND, Field("term", UINT), Field("is_pre", BOOL), Field("refusal", TEXT)),
    ),
    PeerKind.APPEND_REPLY: (
        AppendReply,
        (
            _KIND,
            Field("term", UINT),
            Field("index", UINT),
            Field("is_rejected", BOOL),
            Field("hint_index", UINT),
            Field("hint_term", UINT),
        ),
    ),
    PeerKind.HEARTBEAT: (Heartbeat, (_KIND, Field("term", UINT), Field("commit", UINT), Field("round", UINT))),
    PeerKind.HEARTBEAT_REPLY: (
        HeartbeatReply,
        (_KIND, Field("term", UINT), Field("round", UINT), Field("is_watched", BOOL)),
    ),
    PeerKind.READ_REQUEST: (ReadRequest, (_KIND, Field("term", UINT), Field("round", UINT))),
    PeerKind.READ_REPLY: (ReadReply, (_KIND, Field("term", UINT), Field("round", UINT), Field("index", UINT))),
    PeerKind.CAMPAIGN_NOW: (CampaignNow, (_KIND, Field("term", UINT))),
    PeerKind.SPACE_REPORT: (
        SpaceReport,
        (_KIND, Field("in_use_bytes", UINT), Field("quota_bytes", UINT), Field("is_full", BOOL)),
    ),
}
"""Messages that are nothing but numbers and words: their items are their fields, in this order."""

_APPEND: Final = (
    _KIND,
    Field("term", UINT),
    Field("previous_index", UINT),
    Field("previous_term", UINT),
    Field("commit", UINT),
    Field("terms", LIST),
    Field("entries", LIST),
)
_PROPOSE: Final = (_KIND, Field("numbers", LIST), Field("entries", LIST))
_PROPOSED: Final = (_KIND, Field("leader", UINT), Field("results", LIST))
_CALL: Final = (_KIND, Field("id", UINT), Field("method", UINT), Field("timeout_ms", UINT), Field("arguments", LIST))
_CALL_REPLY: Final = (_KIND, Field("id", UINT), Field("is_unhandled", BOOL))
_ERROR: Final = (Field("code", TEXT), Field("text", TEXT), Field("details", LIST))


@lru_cache(maxsize=64)
def _frame_head(sender: int, to: int) -> bytes:
    return b"\x84" + uint(PeerFrame.MESSAGES) + uint(sender) + uint(to)


def encode_frame(messages: Sequence[PeerMessage]) -> bytes:
    """Return the frame that carries `messages`: at least one, all of one sender to one receiver."""
    first = messages[0]
    parts = [_frame_head(first.sender, first.to), array_head(len(messages))]
    for message in messages:
        assert (message.sender, message.to) == (first.sender, first.to), message
        _ENCODERS[type(message)](message, parts)
    return b"".join(parts)


def decode_frame(data: bytes) -> list[PeerMessage]:
    """Return the messages of a frame, in order.

    Who the sender claims to be is the caller's to check (S2). Raises `DecodeError`, which says what is wrong.
    """
    kind, sender, to, items = read_fields("a frame", decode(data), _FRAME)
    if kind != PeerFrame.MESSAGES:
        raise DecodeError(f"messages come in frames of kind {int(PeerFrame.MESSAGES)}, not {kind}")
    if not items:
        raise DecodeError("a frame without messages")
    messages = []
    for item in items:
        if type(item) is not list or not item:
            raise DecodeError(f"a message must be an array that begins with its kind, not {name_of(item)}")
        decoder = _DECODERS.get(item[0]) if type(item[0]) is int else None
        if decoder is None:
            raise DecodeError(f"this release knows no message of kind {item[0]!r}")
        messages.append(decoder(item, sender, to))
    return messages


def _encode_plain(kind: PeerKind, names: Sequence[str]) -> Callable[[Any, list[bytes]], None]:
    def encode_message(message: Any, parts: list[bytes]) -> None:
        parts.append(encode([int(kind), *[getattr(message, name) for name in names]]))

    return encode_message


def _encode_append(message: Append, parts: list[bytes]) -> None:
    runs: list[int] = []
    last_term = -1
    for _, term, _ in message.entries:
        if term != last_term:
            runs += (term, 0)
            last_term = term
        runs[-1] += 1
    head = (PeerKind.APPEND, message.term, message.previous_index, message.previous_term, message.commit)
    parts.append(b"\x87")
    parts += map(uint, head)
    parts.append(encode(runs))
    _splice([data for _, _, data in message.entries], parts)


def _encode_propose(message: Propose, parts: list[bytes]) -> None:
    parts += (b"\x83", uint(PeerKind.PROPOSE), encode([number for number, _ in message.entries]))
    _splice([data for _, data in message.entries], parts)


def _splice(entries: list[bytes], parts: list[bytes]) -> None:
    parts.append(array_head(len(entries)))
    for data in entries:
        parts += (bytes_head(len(data)), data)


def _encode_proposed(message: Proposed, parts: list[bytes]) -> None:
    parts.append(encode([int(PeerKind.PROPOSED), message.leader, [list(result) for result in message.results]]))


def _encode_call(message: Call, parts: list[bytes]) -> None:
    parts.append(encode([int(PeerKind.CALL), message.id, message.method, message.timeout_ms, message.arguments]))


def _encode_call_reply(message: CallReply, parts: list[bytes]) -> None:
    error = None if message.error is None else list(message.error)
    parts.append(encode([int(PeerKind.CALL_REPLY), message.id, message.is_unhandled, message.result, error]))


def _decode_plain(kind: PeerKind, make: type[Any], fields: tuple[Field, ...]) -> Callable[[Any, int, int], PeerMessage]:
    what = kind.name.lower()

    def decode_message(item: list[Any], sender: int, to: int) -> PeerMessage:
        message: PeerMessage = make(sender, to, *read_fields(what, item, fields)[1:])
        return message

    return decode_message


def _decode_append(item: list[Any], sender: int, to: int) -> Append:
    _, term, previous_index, previous_term, commit, runs, datas = read_fields("append", item, _APPEND)
    _check_all("append's entries", datas, bytes)
    _check_all("append's terms", runs, int)
    if len(runs) % 2 or sum(runs[1::2]) != len(datas):
        raise DecodeError(f"append's terms must be pairs of term and count, for {len(datas)} entries together")
    if previous_index + len(datas) >= _UINT64:
        raise DecodeError("append's entries go beyond the last index")
    entries: list[tuple[int, int, bytes]] = []
    last_term = previous_term
    for entry_term, count in zip(runs[::2], runs[1::2], strict=True):
        if count < 1 or not last_term <= entry_term <= term:
            raise DecodeError(f"append's terms must rise from {previous_term} to {term} at most, each with a count")
        place = len(entries)
        first = previous_index + 1 + place
        # `repeat` has no end; the other two are `count` long.
        entries += zip(range(first, first + count), repeat(entry_term), datas[place : place + count], strict=False)
        last_term = entry_term
    return Append(sender, to, term, previous_index, previous_term, commit, entries)


def _decode_propose(item: list[Any], sender: int, to: int) -> Propose:
    _, numbers, datas = read_fields("propose", item, _PROPOSE)
    _check_all("propose's entries", datas, bytes)
    _check_all("propose's numbers", numbers, int)
    if len(numbers) != len(datas):
        raise DecodeError(f"propose has {len(numbers)} numbers for {len(datas)} entries")
    return Propose(sender, to, list(zip(numbers, datas, strict=True)))


def _decode_proposed(item: list[Any], sender: int, to: int) -> Proposed:
    _, leader, results = read_fields("proposed", item, _PROPOSED)
    for result in results:
        if type(result) is not list or len(result) < 3:
            raise DecodeError(f"a result of proposed must be an array of 3 items, not {name_of(result)}")
        _check_all("a result of proposed", result[:3], int)
    return Proposed(sender, to, [(number, term, index) for number, term, index, *_ in results], leader)


def _decode_call(item: list[Any], sender: int, to: int) -> Call:
    return Call(sender, to, *read_fields("call", item, _CALL)[1:])


def _decode_call_reply(item: list[Any], sender: int, to: int) -> CallReply:
    _, call_id, is_unhandled = read_fields("call-reply", item, _CALL_REPLY)
    if len(item) < 5:
        raise DecodeError("call-reply lacks its result or its error")
    result, error = item[3:5]
    if (result is None) == (error is None):
        raise DecodeError("call-reply must have either a result or an error")
    if result is not None and type(result) is not bytes:
        raise DecodeError(f"result of call-reply must be a byte string, not {name_of(result)}")
    if error is not None:
        error = read_fields("the error of call-reply", error, _ERROR)
    return CallReply(sender, to, call_id, result, error, is_unhandled)


def _check_all(what: str, items: list[Any], kind: type[Any]) -> None:
    """Check that all items are byte strings, or unsigned integers of 64 bits."""
    if kinds := set(map(type, items)) - {kind}:
        raise DecodeError(f"{what} must be of type {kind.__name__}, not {kinds.pop().__name__}")
    if kind is int and items and not (min(items) >= 0 and max(items) < _UINT64):
        raise DecodeError(f"{what} must be 0 … 2^64-1")


_ENCODERS: Final[dict[type[Any], Callable[[Any, list[bytes]], None]]] = {
    make: _encode_plain(kind, [field.name for field in fields[1:]]) for kind, (make, fields) in _PLAIN.items()
} | {
    Append: _encode_append,
    Propose: _encode_propose,
    Proposed: _encode_proposed,
    Call: _encode_call,
    CallReply: _encode_call_reply,
}
_DECODERS: Final[dict[int, Callable[[list[Any], int, int], PeerMessage]]] = {
    int(kind): _decode_plain(kind, make, fields) for kind, (make, fields) in _PLAIN.items()
} | {
    int(PeerKind.APPEND): _decode_append,
    int(PeerKind.PROPOSE): _decode_propose,
    int(PeerKind.PROPOSED): _decode_proposed,
    int(PeerKind.CALL): _decode_call,
    int(PeerKind.CALL_REPLY): _decode_call_reply,
}

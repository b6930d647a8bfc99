"""What members say comes out as it went in, is as peer.cddl says, and hostile bytes give `DecodeError` alone."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coord.codec import decode, encode
from coord.errors import DecodeError
from coord.limits import PEER_FRAME_BYTES_MAX
from coord.protocol.entries import Member
from coord.protocol.hello import (
    Hello,
    Purpose,
    Refusal,
    RefusalCode,
    Welcome,
    decode_answer,
    decode_hello,
    encode_answer,
    encode_hello,
)
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
from coord.protocol.peer_protocol import decode_frame, encode_frame
from coord.protocol.snapshot_protocol import (
    SnapshotChunk,
    SnapshotFrame,
    SnapshotHead,
    SnapshotResult,
    decode_snapshot_frame,
    encode_snapshot_frame,
)

from .cddl import Schema

SCHEMA = Schema.of_peers()
MAX = 2**64 - 1
UINTS = st.integers(0, MAX)
IDS = st.integers(1, MAX)
TEXTS = st.text(max_size=8)

MESSAGES: list[PeerMessage] = [
    VoteRequest(7, 8, 3, 10, 2, is_pre=True),
    VoteReply(7, 8, 3, True, "the leader was heard 40 ms ago"),
    VoteReply(7, 8, 3, False),
    Append(7, 8, 4, 0, 0, 0, []),
    Append(7, 8, 9, 10, 2, 5, [(11, 2, b"a"), (12, 2, b""), (13, 9, b"x" * 5_000)]),
    Append(7, 8, MAX, MAX - 1, MAX, MAX, [(MAX, MAX, b"the last")]),
    AppendReply(7, 8, 4, 12, is_rejected=True, hint_index=3, hint_term=1),
    Heartbeat(7, 8, 4, 12, MAX),
    HeartbeatReply(7, 8, 4, 5, True),
    ReadRequest(7, 8, 4, 1 << 41),
    ReadReply(7, 8, 4, 1 << 41, 12),
    CampaignNow(7, 8, 4),
    Propose(7, 8, [(1 << 40, b"one"), (2, b"two")]),
    Proposed(7, 8, [(1, 4, 13), (2, 0, 0)], 8),
    Call(7, 8, 6, 53, 5_000, [9, b"k", None, [True]]),
    CallReply(7, 8, 6, b"\x01"),
    CallReply(7, 8, 6, None, ["NotFound", "etcdserver: member not found", []], is_unhandled=True),
    SpaceReport(7, 8, 5_000_000, MAX, True),
]
MEMBER = Member(9, "n3", ("http://n3:7380",), (), True, 0, True)
HELLO = Hello(5, 0, 7, ("http://n1:7380",), 11, 1, 12, 8, "n1", ("http://n1:7379",), 100)
WELCOME = Welcome(99, 8, 7, (MEMBER, Member(8, "", (), (), incarnation=4)), 21, 3, 22, 0)
SNAPSHOT: list[SnapshotFrame] = [
    SnapshotHead(7, 8, 4, 100, 3, 5_000_000),
    SnapshotChunk(4096, b"x"),
    SnapshotChunk(1 << 40, bytes(70_000)),
    SnapshotResult(""),
]


def test_schema_defines_every_name_it_uses() -> None:
    assert SCHEMA.undefined() == set()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_out_as_it_went_in(message: PeerMessage) -> None:
    frame = encode_frame([message])
    assert SCHEMA.allows("messages", decode(frame))
    assert decode_frame(frame) == [message]


def test_a_frame_carries_messages_in_order() -> None:
    frame = encode_frame(MESSAGES)
    assert SCHEMA.allows("peer-message", decode(frame))
    assert decode_frame(frame) == MESSAGES
    assert encode(decode(frame)) == frame, "what members send is deterministic"


entries = st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=20)), max_size=20)


@given(previous=st.integers(0, 1 << 40), term=st.integers(3, MAX), items=entries)
def test_entries_keep_place_term_and_bytes(previous: int, term: int, items: list[tuple[int, bytes]]) -> None:
    terms = sorted(entry_term for entry_term, _ in items)
    placed = [(previous + 1 + place, terms[place], data) for place, (_, data) in enumerate(items)]
    message = Append(1, 2, term, previous, 0, previous, placed)
    assert decode_frame(encode_frame([message])) == [message]


def test_items_of_a_newer_release_are_ignored() -> None:
    frame = decode(encode_frame(MESSAGES))
    frame.append("more")
    for item in frame[3]:
        item.append({"more": 1})
    assert decode_frame(encode(frame)) == MESSAGES
    assert decode_hello(encode([*decode(encode_hello(HELLO)), 1])) == HELLO
    assert decode_answer(encode([*decode(encode_answer(WELCOME)), 1])) == WELCOME


def frame_of(*items: Any) -> bytes:
    return encode([3, 7, 8, list(items)])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "malformed CBOR"),
        (encode(1), "a frame must be an array, not the integer 1"),
        (encode([3, 7]), "a frame lacks receiver"),
        (encode([3, -1, 8, []]), "sender of a frame must be 0 … 2.64-1"),
        (encode([3, True, 8, []]), "sender of a frame must be an unsigned integer, not a boolean"),
        (encode([9, 7, 8, [[8, 1]]]), "messages come in frames of kind 3, not 9"),
        (frame_of(), "a frame without messages"),
        (frame_of(7), "a message must be an array"),
        (frame_of([]), "a message must be an array"),
        (frame_of([14]), "no message of kind 14"),
        (frame_of([[]]), r"no message of kind \[\]"),
        (frame_of([4, 1, 2]), "heartbeat lacks round"),
        (frame_of([4, 1, 2, 3.0]), "round of heartbeat must be an unsigned integer, not a float"),
        (frame_of([2, 4, 10, 2, 5, [2], [b"a"]]), "pairs of term and count"),
        (frame_of([2, 4, 10, 2, 5, [2, 2], [b"a"]]), "for 1 entries together"),
        (frame_of([2, 4, 10, 2, 5, [2, 1, 3, 0], [b"a"]]), "each with a count"),
        (frame_of([2, 4, 10, 3, 5, [2, 1], [b"a"]]), "must rise from 3 to 4"),
        (frame_of([2, 4, 10, 2, 5, [5, 1], [b"a"]]), "must rise from 2 to 4"),
        (frame_of([2, 4, 10, 2, 5, [4, 1, 3, 1], [b"a", b"b"]]), "must rise"),
        (frame_of([2, 4, 10, 2, 5, [2, 1], ["a"]]), "append's entries must be of type bytes, not str"),
        (frame_of([2, 4, 10, 2, 5, [2, -1], []]), "append's terms must be 0"),
        (frame_of([2, MAX, MAX, 2, 5, [2, 1], [b""]]), "beyond the last index"),
        (frame_of([9, [1], []]), "1 numbers for 0 entries"),
        (frame_of([9, [None], [b""]]), "propose's numbers must be of type int, not NoneType"),
        (frame_of([10, 0, [[1, 2]]]), "must be an array of 3 items"),
        (frame_of([10, 0, [[1, 2, MAX], [1, 2, b""]]]), "must be of type int, not bytes"),
        (frame_of([11, 1, 50, 0, b""]), "arguments of call must be an array"),
        (frame_of([12, 1, False]), "lacks its result or its error"),
        (frame_of([12, 1, False, None, None]), "either a result or an error"),
        (frame_of([12, 1, False, b"", ["a", "b", []]]), "either a result or an error"),
        (frame_of([12, 1, False, "x", None]), "must be a byte string"),
        (frame_of([12, 1, False, None, ["a", 1, []]]), "text of the error of call-reply must be text"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, text: str) -> None:
    with pytest.raises(DecodeError, match=text):
        decode_frame(data)


hellos = st.builds(
    Hello, UINTS, UINTS, UINTS, st.lists(TEXTS, max_size=3).map(tuple), IDS, UINTS, IDS, UINTS, TEXTS,
    st.lists(TEXTS, max_size=3).map(tuple), UINTS, st.sampled_from(Purpose),
)  # fmt: skip


@given(hellos)
def test_a_hello_comes_out_as_it_went_in(hello: Hello) -> None:
    data = encode_hello(hello)
    assert SCHEMA.allows("hello", decode(data))
    assert decode_hello(data) == hello


@pytest.mark.parametrize("answer", [WELCOME, *(Refusal(code, "do this") for code in RefusalCode)], ids=str)
def test_an_answer_comes_out_as_it_went_in(answer: Welcome | Refusal) -> None:
    data = encode_answer(answer)
    assert SCHEMA.allows("peer-message", decode(data))
    assert decode_answer(data) == answer


def test_a_refusal_for_an_unknown_reason_may_pass() -> None:
    answer = decode_answer(encode([2, 2, "too-young", "wait"]))
    assert answer == Refusal(RefusalCode.NOT_READY, "wait")
    assert not answer.code.is_final


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([1, *range(13)], "peer URLs of the hello must be an array"),
        ([3, 1, 0, 0, 0, [], 1, 1, 1, 0, "", [], 0, 0], "a link begins with a hello, not with kind 3 of version 1"),
        ([0, 0, 0, 0, 0, [], 1, 1, 1, 0, "", [], 0, 0], "not with kind 0 of version 0"),
        ([0, 1, 0, 0, 0, [], 1, 1, 1, 0, "", [], 0, 9], "no link for purpose 9"),
        ([0, 1, 0, 0, 0, [7], 1, 1, 1, 0, "", [], 0, 0], "a URL of the hello must be text, not the integer 7"),
    ],
)
def test_what_is_wrong_with_a_hello_is_said(items: list[Any], text: str) -> None:
    with pytest.raises(DecodeError, match=text):
        decode_hello(encode(items))


@pytest.mark.parametrize(
    ("items", "text"),
    [
        (7, "the welcome must be an array"),
        ([], "the welcome lacks kind"),
        ([2, 1, "x"], "the refusal lacks text"),
        ([0, 1, 0, 0, 0, [], 1, 1, 1, 0], "answered by a welcome, not by kind 0"),
        ([1, 1, 0, 0, 0, [[1]], 1, 1, 1, 0], "a member lacks name"),
        ([1, 1, 0, 0, 0, [0] * 1_001, 1, 1, 1, 0], "has 1001 members"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(items: Any, text: str) -> None:
    with pytest.raises(DecodeError, match=text):
        decode_answer(encode(items))


@pytest.mark.parametrize("frame", SNAPSHOT, ids=lambda frame: type(frame).__name__)
def test_a_snapshot_frame_comes_out_as_it_went_in(frame: SnapshotFrame) -> None:
    data = encode_snapshot_frame(frame)
    assert data == encode(decode(data)), "it is deterministic"
    assert SCHEMA.allows("peer-message", decode(data))
    assert decode_snapshot_frame(data) == frame


@pytest.mark.parametrize(
    ("items", "text"),
    [
        (7, "no frame of kind the integer 7"),
        ([3], "no frame of kind the integer 3"),
        ([None], "no frame of kind null"),
        ([5, 1], "a frame of kind 5 lacks data"),
        ([5, 1, "x"], "data of a frame of kind 5 must be a byte string"),
    ],
)
def test_what_is_wrong_with_a_snapshot_is_said(items: Any, text: str) -> None:
    with pytest.raises(DecodeError, match=text):
        decode_snapshot_frame(encode(items))


DECODERS = (decode_frame, decode_hello, decode_answer, decode_snapshot_frame)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_hostile_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    for decoder in DECODERS:
        with pytest.raises(DecodeError):
            decoder(data)


items = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX, MAX) | st.floats() | st.binary(max_size=3) | TEXTS,
    lambda inner: st.lists(inner, max_size=7),
    max_leaves=20,
)


@settings(max_examples=300)
@given(st.integers(-1, 14), st.lists(items, max_size=7))
def test_hostile_items_are_refused_or_mean_something(kind: int, rest: list[Any]) -> None:
    try:
        (message,) = decode_frame(frame_of([kind, *rest]))
    except DecodeError:
        return
    assert decode_frame(encode_frame([message])) == [message]


def test_changed_frames_are_refused_or_mean_something() -> None:
    chance = random.Random(5)
    frames = [(decode_frame, encode_frame(MESSAGES)), (decode_hello, encode_hello(HELLO))]
    frames += [(decode_answer, encode_answer(WELCOME)), (decode_snapshot_frame, encode_snapshot_frame(SNAPSHOT[0]))]
    for decoder, frame in frames:
        for _ in range(400):
            changed = bytearray(frame)
            for _ in range(chance.randint(1, 3)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            try:
                decoder(bytes(changed[: chance.randint(1, len(changed))]))
            except DecodeError:
                continue


def test_a_frame_of_nothing_much_costs_no_memory() -> None:
    """A frame of the largest size could hold fifty million arrays, which would be gigabytes of objects."""
    bomb = b"\x84\x03\x07\x08" + b"\x9a\x02\x00\x00\x00" + b"\x80" * (1 << 25)
    assert len(bomb) < PEER_FRAME_BYTES_MAX
    with pytest.raises(DecodeError, match="more than 262144 items"):
        decode_frame(bomb)


def test_an_entry_costs_little_to_send_and_to_take() -> None:
    count = 1_000
    message = Append(1, 2, 3, 0, 0, 5, [(index, 3, b"x" * 300) for index in range(1, count + 1)])
    best = 1.0
    for _ in range(10):
        started = time.perf_counter()
        decode_frame(encode_frame([message]))
        best = min(best, time.perf_counter() - started)
    assert best / count < 10e-6, f"{best / count * 1e6:.1f} µs an entry"

"""What clients send is checked and answered, never punished; what nodes send is as coord.cddl says."""

from __future__ import annotations

import time
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coord.codec import decode, encode
from coord.errors import ApiError, Code, FenceLost
from coord.limits import CBOR_DEPTH_MAX, FRAME_BYTES_MAX
from coord.node.replies import reply_error, reply_ok, reply_value
from coord.protocol.bodies import is_run, writes_of
from coord.protocol.server_protocol import (
    ClientHello,
    FrameHeads,
    Refused,
    Requests,
    Writes,
    decode_message,
    goodbye,
    hello,
    reply_id,
)

from .cddl import Schema

SCHEMA = Schema.of_coord()
PUT = [1, 1, None, [b"k", b"v"]]
UINT64 = 2**64 - 1


def writes(*items: Any, ids: Any = None, client: Any = 0, low: Any = 0) -> bytes:
    ids = [[n + 1, 0] for n in range(len(items))] if ids is None else ids
    return encode([2, client, low, ids, encode(list(items))])


def error_of(message: Any) -> ApiError:
    assert isinstance(message, Refused), message
    return message.error


def test_schema_defines_every_name_it_uses() -> None:
    assert SCHEMA.undefined() == set()


def test_writes_come_out_with_body_and_ids() -> None:
    data = writes(PUT, [2, 2, [b"f", 9], [b"k"]], client=77, low=1)
    assert SCHEMA.allows("client-message", decode(data))

    message = decode_message(data)

    body = encode([PUT, [2, 2, [b"f", 9], [b"k"]]])
    assert message == Writes(77, 1, [(1, 0), (2, 0)], body, decode(body))


def test_a_run_of_puts_comes_out_as_it_was_sent() -> None:
    run = [7, b"k", b"v", b"l", b""]
    data = encode([2, 77, 1, [[1, 0], [2, 0]], encode(run)])
    assert SCHEMA.allows("client-message", decode(data))
    assert decode_message(data) == Writes(77, 1, [(1, 0), (2, 0)], encode(run), run)
    three = encode([2, 77, 1, [[1, 0], [2, 0], [3, 0]], encode(run)])
    assert error_of(decode_message(three)).text == "coord: 3 ids for 2 writes"


def test_requests_come_out_in_order() -> None:
    data = encode([1, [[7, 20, 100, [b"k"]], [8, 41, 0, []]]])
    assert SCHEMA.allows("client-message", decode(data))
    assert decode_message(data) == Requests([(7, 20, 100, [b"k"]), (8, 41, 0, [])], [])


@pytest.mark.parametrize(
    ("wire", "message"),
    [([0, 1, "me"], ClientHello(1, "me", 0)), ([0, 2, "me", 5], ClientHello(2, "me", 5))],
)
def test_hello(wire: list[Any], message: ClientHello) -> None:
    assert SCHEMA.allows("client-message", wire)
    assert decode_message(encode(wire)) == message


@pytest.mark.parametrize(
    ("data", "code", "part"),
    [
        (b"", Code.INVALID_ARGUMENT, "malformed CBOR"),
        (b"\xff", Code.INVALID_ARGUMENT, "malformed CBOR"),
        (encode([1, []]) + b"\0", Code.INVALID_ARGUMENT, "bytes follow"),
        (b"\x9f\x01\xff", Code.INVALID_ARGUMENT, "malformed CBOR"),
        (b"\xc1\x01", Code.INVALID_ARGUMENT, "malformed CBOR"),
        (b"\x81" * (CBOR_DEPTH_MAX + 1) + b"\x01", Code.INVALID_ARGUMENT, "malformed CBOR"),
        (encode(7), Code.INVALID_ARGUMENT, "must be an array, not the integer 7"),
        (encode([]), Code.INVALID_ARGUMENT, "must be an array"),
        (cbor2.dumps({"a": 1}), Code.INVALID_ARGUMENT, "must be an array, not a dict"),
        (encode([9]), Code.UNIMPLEMENTED, "no message of kind 9"),
        (encode(["1", []]), Code.INVALID_ARGUMENT, "must be an integer, not a text string"),
        (cbor2.dumps([1.0, []]), Code.INVALID_ARGUMENT, "a float (1.0): send an integer"),
        (encode([True, []]), Code.INVALID_ARGUMENT, "must be an integer, not a boolean"),
        (encode([1]), Code.INVALID_ARGUMENT, "a requests message must be"),
        (encode([1, []]), Code.INVALID_ARGUMENT, "a requests message must be"),
        (encode([2, 0, 0]), Code.INVALID_ARGUMENT, "a writes message must be"),
        (encode([2, 0, 0, [], encode([])]), Code.INVALID_ARGUMENT, "a writes message must be"),
        (encode([2, 0, 0, [[1]], encode([PUT])]), Code.INVALID_ARGUMENT, "a writes message must be"),
        (encode([2, 0, 0, [[-1, 0]], encode([PUT])]), Code.INVALID_ARGUMENT, "a writes message must be"),
        (encode([0, 1]), Code.INVALID_ARGUMENT, "hello must have"),
        (encode([0, 0, "x"]), Code.INVALID_ARGUMENT, "versions begin with 1"),
        (encode([0, 1, b"x"]), Code.INVALID_ARGUMENT, "must be text, not a byte string"),
        (encode([0, 1, "x", 0, 0]), Code.UNIMPLEMENTED, "no item 5 of hello"),
    ],
)
def test_message_without_readable_ids_is_answered_by_id_0(data: bytes, code: Code, part: str) -> None:
    message = decode_message(data)

    assert isinstance(message, Refused)
    assert message.ids == []
    assert message.error.code == code
    assert part in message.error.text


@pytest.mark.parametrize(
    ("data", "code", "part"),
    [
        (writes(PUT, client=-1), Code.INVALID_ARGUMENT, "client must be an unsigned integer"),
        (writes(PUT, low="1"), Code.INVALID_ARGUMENT, "low must be an unsigned integer"),
        (encode([2, 0, 0, [[1, 0]]]), Code.INVALID_ARGUMENT, "writes must have 5 items"),
        (encode([2, 0, 0, [[1, 0]], encode([PUT]), 1]), Code.UNIMPLEMENTED, "no item 6 of writes"),
        (encode([2, 0, 0, [[1, 0]], [PUT]]), Code.INVALID_ARGUMENT, "must be a byte string, not an array"),
        (encode([2, 0, 0, [[1, 0]], b"\xff"]), Code.INVALID_ARGUMENT, "the body of writes: malformed CBOR"),
        (encode([2, 0, 0, [[1, 0]], b""]), Code.INVALID_ARGUMENT, "the body of writes: malformed CBOR"),
        (writes(PUT, PUT, ids=[[1, 0]]), Code.INVALID_ARGUMENT, "1 ids for 2 writes"),
        (writes([1, 1, None], ids=[[1, 0]]), Code.INVALID_ARGUMENT, "a write must be an array"),
        (writes([1, 1, None, [], 0], ids=[[1, 0]]), Code.UNIMPLEMENTED, "no item 5 of a write"),
    ],
)
def test_broken_writes_are_answered_by_their_ids(data: bytes, code: Code, part: str) -> None:
    message = decode_message(data)

    assert isinstance(message, Refused)
    assert message.ids == [1]
    assert message.error.code == code
    assert part in message.error.text


@pytest.mark.parametrize(
    ("request_", "request_id", "code", "part"),
    [
        ("x", 0, Code.INVALID_ARGUMENT, "a request must be an array"),
        ([], 0, Code.INVALID_ARGUMENT, "a request must be an array"),
        (["a", 20, 0, []], 0, Code.INVALID_ARGUMENT, "the id of a request"),
        ([-1, 20, 0, []], 0, Code.INVALID_ARGUMENT, "the id of a request"),
        ([5, 20, 0], 5, Code.INVALID_ARGUMENT, "must have 4 items"),
        ([5, 20, 0, [], 1], 5, Code.UNIMPLEMENTED, "no item 5 of a request"),
        ([5, "get", 0, []], 5, Code.INVALID_ARGUMENT, "method must be"),
        ([5, 20, -1, []], 5, Code.INVALID_ARGUMENT, "timeout_ms must be"),
        ([5, 20, 0, b""], 5, Code.INVALID_ARGUMENT, "the arguments of a request must be an array"),
    ],
)
def test_broken_request_does_not_hurt_its_neighbours(request_: Any, request_id: int, code: Code, part: str) -> None:
    message = decode_message(encode([1, [[1, 20, 0, [b"a"]], request_, [2, 20, 0, [b"b"]]]]))

    assert isinstance(message, Requests)
    assert message.requests == [(1, 20, 0, [b"a"]), (2, 20, 0, [b"b"])]
    [(refused_id, error)] = message.refused
    assert (refused_id, error.code) == (request_id, code)
    assert part in error.text


def test_longer_integers_are_accepted() -> None:
    """JavaScript's encoders send every large number in eight bytes."""
    data = b"\x82\x01\x81\x84\x1b" + (5).to_bytes(8, "big") + b"\x18\x14\x19\0\0\x81\x41k"
    assert decode_message(data) == Requests([(5, 20, 0, [b"k"])], [])


# ---- fuzz: whatever comes, a message or a refusal comes out, soon

_ITEMS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=12)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=25,
)
_VALID = [
    writes(PUT, [2, 3, None, [[[0, 0, b"a", 1]], [[1, [b"k", b"v"]]], [[20, [b"k"]]]]]),
    encode([2, 3, 1, [[1, 0], [2, 0]], encode([1, b"k", b"v", b"l", b""])]),
    encode([1, [[7, 20, 100, [b"k"]], [8, 30, 0, [b"a", b"b", 5]]]]),
    encode([0, 1, "fuzz", 9]),
]


def check_total(data: bytes) -> None:
    message = decode_message(data)
    if isinstance(message, Refused):
        replies = [reply_error(one, 1, message.error) for one in message.ids or [0]]
    elif isinstance(message, Requests):
        replies = [reply_error(one, 1, error) for one, error in message.refused]
        assert all(SCHEMA.allows("request", list(one)) for one in message.requests)
    elif isinstance(message, Writes):
        assert len(writes_of(message.decoded)) == len(message.ids)
        assert not is_run(message.decoded) or SCHEMA.allows("run", message.decoded)
        replies = []
    else:
        replies = []
    for reply in replies:
        assert SCHEMA.allows("reply", decode(reply)), decode(reply)


@settings(max_examples=300, deadline=None)
@given(_ITEMS)
def test_any_tree(item: Any) -> None:
    check_total(cbor2.dumps(item))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([0, 1, 2]), st.lists(_ITEMS, max_size=6))
def test_any_tree_behind_a_known_kind(kind: int, items: list[Any]) -> None:
    check_total(cbor2.dumps([kind, *items]))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(_VALID), st.data())
def test_mutated_bytes(data: bytes, draw: st.DataObject) -> None:
    mutated = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        place = draw.draw(st.integers(0, len(mutated) - 1))
        mutated[place] = draw.draw(st.integers(0, 255))
    check_total(bytes(mutated[: draw.draw(st.integers(1, len(mutated)))]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes(data: bytes) -> None:
    check_total(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x9a\x00\x1f\xff\xff" + b"\x80" * 2_000_000,
        b"\x81" * 2_000_000,
        b"\x82\x01\x9a\x00\x06\x00\x00" + b"\x80" * 400_000,
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
        encode([2, 0, 0, [[1, 0]], b"\x9a\x00\x1f\xff\xff" + b"\x80" * 1_500_000]),
    ],
    ids=["wide", "deep", "many requests", "lying string", "lying array", "wide body"],
)
def test_bombs_are_refused_soon(data: bytes) -> None:
    assert len(data) <= FRAME_BYTES_MAX
    began = time.process_time()
    assert error_of(decode_message(data)).code == Code.INVALID_ARGUMENT
    assert time.process_time() - began < 2.0


# ---- what a node sends


def test_hello_and_goodbye() -> None:
    wire = decode(hello(5, 7, "n1", "0.1.0", 1_572_864, 128))
    assert wire == [0, 1, 5, 7, "n1", "0.1.0", 1_572_864, 128, 1024]
    assert SCHEMA.allows("server-message", wire)
    wire = decode(goodbye("upgrade"))
    assert wire == [3, "upgrade"]
    assert SCHEMA.allows("server-message", wire)


def test_frames_are_spliced_and_carry_where_consensus_stands() -> None:
    heads = FrameHeads(7)
    heads.renew((UINT64, 3, 0))
    replies = [
        reply_ok(1, 10, b"\xf6"),
        reply_value(UINT64, 11, [[[b"k", 1, 2, 1, 0, b"v"]], False, 1]),
        reply_error(2**32, 12, FenceLost("the fence is gone")),
    ]

    wire = decode(heads.replies(replies))

    assert wire[:5] == [1, UINT64, 7, 3, 0]
    assert wire[5] == [decode(reply) for reply in replies]
    assert wire[5][2] == [2**32, 12, None, ["Aborted", "the fence is gone", ["FenceLost"]]]
    assert SCHEMA.allows("server-message", wire)
    heads.renew((UINT64, 4, 9))
    assert decode(heads.replies(replies))[3:5] == [4, 9]
    heads.renew((8, 4, 9))
    assert decode(heads.replies(replies))[1] == 8
    heads.renew((UINT64, 4, 9))
    notifications = [
        encode([0, [5, 6], 12, [[0, [b"k", 1, 2, 1, 0, b"v"], None]]]),
        encode([1, [5], 12]),
        encode([2, [5], 9, "compacted"]),
    ]
    wire = decode(heads.notifications(notifications))
    assert wire == [2, UINT64, 7, 4, 9, [decode(one) for one in notifications]]
    assert SCHEMA.allows("server-message", wire)


def test_frame_of_many_replies() -> None:
    heads = FrameHeads(7)
    heads.renew((1, 1, 1))
    for count in (23, 24, 255, 256, 70_000):
        frame = heads.replies([reply_ok(1, 2, b"\xf6")] * count)
        assert len(decode(frame, is_counted=False)[5]) == count


@given(st.integers(0, UINT64))
def test_reply_id(request_id: int) -> None:
    assert reply_id(reply_ok(request_id, 1, b"\xf6")) == request_id
    assert reply_id(reply_error(request_id, 1, ApiError("x"))) == request_id

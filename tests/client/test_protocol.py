"""The client's frames, and what it understands of a node's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coord
from coord.client.responses import event, key_values
from coord.client.txn import Compare, txn_arguments
from coord.client.verbs import range_arguments
from coord.codec import decode, encode
from coord.errors import InvalidArgument, ProtocolViolation
from coord.protocol import client_protocol as protocol
from coord.protocol.bodies import encode_body
from coord.protocol.ops import ServerMessage
from coord.types import CompareResult, CompareTarget, Event, EventType, KeyValue, LeaseId, Revision


def test_writes_travel_as_one_byte_string() -> None:
    writes = [(0, 1, None, (b"k", b"v")), (0, 4, None, (7,))]
    frame = protocol.writes_frame([(5, 100), (6, 200)], writes, client=9, low=3)
    kind, client, low, ids, body = decode(frame)
    assert (kind, client, low, ids) == (2, 9, 3, [[5, 100], [6, 200]])
    assert body == encode(writes)
    together = protocol.writes_frame([(5, 100), (6, 100)], writes, client=9, low=3)
    assert decode(together) == [2, 9, 3, [5, 100, 2], body]


def test_hello_tells_the_cluster_once_it_is_known() -> None:
    assert decode(protocol.hello("me", 0)) == [0, 1, "me"]
    assert decode(protocol.hello("me", 77)) == [0, 1, "me", 77]


def test_a_frame_that_no_node_would_take_is_not_made() -> None:
    with pytest.raises(InvalidArgument, match="too large"):
        protocol.writes_frame([(1, 1)], [(0, 1, None, (b"k", bytes(2_200_000)))])
    with pytest.raises(InvalidArgument, match="too large"):
        protocol.requests_frame([(1, 20, 1, (bytes(2_200_000),))])


UINT = st.integers(0, 2**64 - 1)
KEYS = st.binary(max_size=300) | st.just(bytes(70_000))
PUTS = st.tuples(UINT, st.just(1), st.none(), st.lists(KEYS, min_size=2, max_size=2))
WRITES = st.tuples(
    UINT, st.integers(0, 9), st.none() | st.lists(UINT), st.lists(st.binary(max_size=9) | UINT, min_size=3)
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(PUTS | PUTS | WRITES, UINT, UINT), min_size=1, max_size=40), UINT, UINT)
def test_writes_are_the_bytes_of_the_codec(writes: list[Any], client: int, low: int) -> None:
    ids = [(request_id, timeout_ms) for _, request_id, timeout_ms in writes]
    body = encode_body([write for write, _, _ in writes])
    sent = [write for write, _, _ in writes]
    first, timeout_ms = ids[0]
    run = [(first + place, timeout_ms) for place in range(len(ids))]
    stated = ids if ids != run or len(ids) == 1 else [first, timeout_ms, len(ids)]
    assert protocol.writes_frame(ids, sent, client, low) == encode([2, client, low, stated, body])
    together = encode([2, client, low, [first, timeout_ms, len(ids)], body])
    assert len(ids) == 1 or protocol.writes_frame(run, sent, client, low) == together


def test_timeouts_are_whole_milliseconds_that_a_node_takes() -> None:
    seconds = [-1, 0, 0.0001, 0.0039, 0.1, 1, 2.5, 5, 1e6, float("inf")]
    told_ms = [protocol.milliseconds(one) for one in seconds]
    assert told_ms == [1, 1, 1, 1, 50, 800, 2250, 4700, 600_000, 600_000]


def test_items_of_later_releases_are_ignored() -> None:
    hello = protocol.decode_message(encode([0, 1, 2, 3, "n", "0.2", 4, 5, 6, "new"]))
    assert hello == protocol.ServerHello(1, 2, 3, "n", "0.2", 4, 5, 6)
    frame = protocol.decode_message(encode([1, 2, 3, 4, 5, [[1, 2, None]], "new"]))
    assert frame == protocol.Frame(ServerMessage.REPLIES, 2, 3, 4, 5, [[1, 2, None]])
    assert protocol.decode_message(encode([3, "bye", "new"])) == protocol.Goodbye("bye")
    assert protocol.decode_message(encode([99, "new"])) is None
    pair = KeyValue(b"k", Revision(2), Revision(3), 2, LeaseId(0), b"v")
    as_now = [b"k", 2, 3, 2, 0, b"v"]
    for wire in ([as_now], [[*as_now, "new"]], [as_now, [*as_now, "new"]], []):
        found = key_values(wire)
        assert found == [pair] * len(wire)
        assert all(type(one) is KeyValue for one in found)
    assert event([0, [b"k", 2, 3, 2, 0, b"v", "new"], None, "new"]) == Event(EventType.PUT, pair)


def test_a_large_reply_is_not_refused_for_its_items() -> None:
    items = [[number, 1, [[], False, 0]] for number in range(100_000)]
    frame = protocol.decode_message(encode([1, 2, 3, 4, 5, items]))
    assert isinstance(frame, protocol.Frame)
    assert len(frame.items) == 100_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=20,
)


@given(st.binary(max_size=60) | JSON.map(encode))
def test_rubbish_is_a_protocol_violation_and_nothing_else(data: bytes) -> None:
    try:
        protocol.decode_message(data)
    except ProtocolViolation:
        return


def test_compares_read_like_comparisons() -> None:
    made = [
        (coord.version("k") == 3).to_wire(),
        (coord.create_revision(b"k") != 0).to_wire(),
        (coord.mod_revision("k") > 5).to_wire(),
        (coord.value("k") < b"x").to_wire(),
        (coord.lease_of("a/", prefix=True) == 0).to_wire(),
        (coord.value("a", range_end="b") == b"").to_wire(),
    ]
    assert made == [
        [0, 0, b"k", 3],
        [1, 3, b"k", 0],
        [2, 1, b"k", 5],
        [3, 2, b"k", b"x"],
        [4, 0, b"a/", 0, b"a0"],
        [3, 0, b"a", b"", b"b"],
    ]


def test_a_compare_is_no_truth_value_and_takes_its_own_kind_only() -> None:
    with pytest.raises(TypeError, match="judged by the cluster"):
        bool(coord.version("k") == 1)
    for wrong in (
        lambda: coord.value("k") == "text",
        lambda: coord.version("k") == b"1",
        lambda: coord.version("k") > True,
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(ValueError, match="64 bits"):
        _ = coord.version("k") == 2**63
    with pytest.raises(ValueError, match="not both"):
        coord.version("k", prefix=True, range_end="z")


def test_operations_are_the_schemas() -> None:
    compare = Compare(CompareTarget.VERSION, CompareResult.EQUAL, b"k", 0)
    then = [coord.op.put("k", b"v"), coord.op.put("k", b"v", lease=7, prev_kv=True), coord.op.delete("k", prefix=True)]
    orelse = [coord.op.get("k"), coord.op.get("k", limit=2), coord.op.txn(when=[compare])]
    assert txn_arguments([compare], then, orelse) == [
        [[0, 0, b"k", 0]],
        [[1, [b"k", b"v"]], [1, [b"k", b"v", 7, True]], [2, [b"k", b"l", False]]],
        [
            [20, [b"k"]],
            [20, [b"k", b"", 2]],
            [3, [[[0, 0, b"k", 0]], [], []]],
        ],
    ]


def test_intervals_are_said_by_prefix_or_by_end() -> None:
    assert range_arguments("", {"prefix": True}, 0) == [b"\0", b"\0"]
    assert range_arguments(b"\xff", {"prefix": True}, 0) == [b"\xff", b"\0"]
    assert range_arguments("a", {"range_end": b"\0"}, 0) == [b"a", b"\0"]
    assert range_arguments("a", {"serializable": True}, 9)[-1] == 9

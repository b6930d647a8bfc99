"""A run of ids says what each would say, and so does the reply to it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.codec import decode, encode
from coord.errors import InvalidArgument, ProtocolViolation
from coord.limits import REQUESTS_OPEN_PER_CONNECTION
from coord.protocol import client_protocol
from coord.protocol.id_run import REPLY_RUN_HEAD, IdRun, each_reply, reply_run
from coord.protocol.server_protocol import Refused, Writes, decode_message

from .cddl import Schema

SCHEMA = Schema.of_coord()
UINT64 = 2**64 - 1
DELETE = [0, 2, None, [b"k"]]


def message(ids: Any, count: int) -> Any:
    return decode_message(encode([2, 0, 0, ids, encode([DELETE] * count)]))


def test_a_run_of_ids_comes_out_as_ids_with_their_timeout() -> None:
    ids = [1000, 250, 3]
    assert SCHEMA.allows("write-ids", ids)
    writes = message(ids, 3)
    assert isinstance(writes, Writes)
    assert writes.ids == IdRun(range(1000, 1003), 250)
    assert list(writes.ids) == [(1000, 250), (1001, 250), (1002, 250)]
    assert len(writes.ids) == 3
    assert message([UINT64, 0, 1], 1).ids == IdRun(range(UINT64, UINT64 + 1), 0)


def test_a_run_of_ids_for_other_writes_is_refused_by_each_of_its_ids() -> None:
    refused = message([7, 0, 3], 2)
    assert isinstance(refused, Refused)
    assert (refused.ids, refused.error.text) == ([7, 8, 9], "coord: 3 ids for 2 writes")


def test_a_few_bytes_are_not_answered_by_many_refusals() -> None:
    for message in ([2, 0, 0, [7, 0, 30_000], encode([DELETE])], [2, 0, 0, [7, 0, 30_000], None], [2, 0, 0, [7, 0, 9]]):
        refused = decode_message(encode(message))
        assert isinstance(refused, Refused)
        assert refused.ids == []
        assert "needs a body of as many writes" in refused.error.text


@pytest.mark.parametrize(
    "ids",
    [
        [1, 2],
        [1, 2, 0],
        [1, 2, 3, 4],
        [1, None, 1],
        [1, 2, True],
        [1, 2, [1]],
        [-1, 2, 1],
        [1, -2, 1],
        [UINT64, 0, 2],
        [1, 0, UINT64],
        [1, 0, 3 * REQUESTS_OPEN_PER_CONNECTION],
    ],
)
def test_what_is_no_run_of_ids_is_refused_without_ids(ids: list[Any]) -> None:
    refused = message(ids, 1)
    assert isinstance(refused, Refused)
    assert refused.ids == []
    assert isinstance(refused.error, InvalidArgument)


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(1, 300))
def test_one_reply_stands_for_each(first: int, revision: int, count: int) -> None:
    encoded = reply_run(range(first, first + count), revision)
    assert encoded[0] == REPLY_RUN_HEAD
    reply = decode(encoded)
    assert encode(reply) == encoded
    assert SCHEMA.allows("reply", reply)
    alone = [5, 6, None, ["NotFound", "", []]]
    each = each_reply([alone, reply, alone])
    assert each[0] == each[-1] == alone
    assert each[1:-1] == [[first + place, revision + place, None] for place in range(count)]
    # Items of later releases are ignored.
    assert each_reply([[*reply, "new"]]) == each[1:-1]
    assert each_reply([[*alone, 7], reply]) == [[*alone, 7], *each[1:-1]]


def test_a_reply_to_more_than_can_be_open_is_no_message() -> None:
    frame = [1, 2, 3, 4, 5, [[1, 2, None, None, REQUESTS_OPEN_PER_CONNECTION]]]
    told = client_protocol.decode_message(encode(frame))
    assert isinstance(told, client_protocol.Frame)
    assert len(told.items) == REQUESTS_OPEN_PER_CONNECTION
    frame[5] = [[1, 2, None, None, REQUESTS_OPEN_PER_CONNECTION + 1]]
    with pytest.raises(ProtocolViolation, match="can be open"):
        client_protocol.decode_message(encode(frame))
    frame[5] = [[1, 2, None, None, REQUESTS_OPEN_PER_CONNECTION // 2 + 1]] * 2
    with pytest.raises(ProtocolViolation, match="can be open"):
        client_protocol.decode_message(encode(frame))
    for count in (None, b"", [], 1.5):
        with pytest.raises(ProtocolViolation):
            client_protocol.decode_message(encode([1, 2, 3, 4, 5, [[1, 2, None, None, count]]]))

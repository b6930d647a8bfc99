"""A body holds writes, or a run of plain puts, and both forms say the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coord.codec import decode, encode
from coord.errors import ApiError, Code
from coord.protocol.bodies import check_body, encode_body, is_run, registers, writes_of
from coord.protocol.check import check_write
from coord.testing import operations as ops

from .cddl import Schema

SCHEMA = Schema.of_coord()
PUT = 1
K, V = b"k", b"v"
LAST = 2**64 - 1
PLAIN = st.tuples(ops.keys, ops.values).map(lambda pair: [0, 1, None, list(pair)])


@st.composite
def bodies(draw: st.DrawFn) -> list[Any]:
    """Writes of one client: mostly plain puts, mostly with numbers that follow each other."""
    writes = draw(st.lists(st.one_of(PLAIN, PLAIN, PLAIN, PLAIN, ops.writes()), min_size=1, max_size=5))
    number = draw(st.sampled_from((0, 0, 1, 23, 2**32, LAST - 9)))
    is_numbered = number > 0 or draw(st.integers(0, 9)) == 0
    for write in writes:
        write[0] = number
        number += is_numbered and draw(st.sampled_from((1,) * 9 + (0,)))
    return writes


@settings(max_examples=300, deadline=None, derandomize=True)
@given(bodies())
def test_whatever_the_form_the_writes_are_the_same(writes: list[Any]) -> None:
    body = decode(encode_body(writes))
    assert check_body(body) == len(writes)
    assert writes_of(body) == writes
    assert registers(body) is (writes[0][1] == 7)
    if is_run(body):
        assert SCHEMA.allows("body", body)
        assert all(check_write(write, 128) is None for write in writes)
        assert encode_body(writes) == encode(body)
    else:
        assert encode_body(writes) == encode(writes)
    # Whose arguments are encoded already is not asked for a run.
    encoded = [[number, op, guard, encode(arguments)] for number, op, guard, arguments in writes if op != PUT]
    if encoded:
        assert encode_body(encoded) == encode([write for write in writes if write[1] != PUT])


@pytest.mark.parametrize(
    ("writes", "run"),
    [
        ([[0, 1, None, [K, V]]], [0, K, V]),
        ([[0, 1, None, [K, V]], [0, 1, None, [b"l", b""]]], [0, K, V, b"l", b""]),
        ([[7, 1, None, [K, V]], [8, 1, None, [K, V]]], [7, K, V, K, V]),
        ([[7, 1, None, [K, V]], [9, 1, None, [K, V]]], None),
        ([[7, 1, None, [K, V]], [7, 1, None, [K, V]]], None),
        ([[7, 1, None, [K, V]], [0, 1, None, [K, V]]], None),
        ([[0, 1, None, [K, V]], [1, 1, None, [K, V]]], None),
        ([[1, 1, None, [K, V]], [2, 1, None, [b"", V]]], None),
        ([[1, 1, None, [K, V, 0]]], None),
        ([[1, 1, [K, 5], [K, V]]], None),
        ([[1, 2, None, [K, V]]], None),
    ],
)
def test_what_is_a_run(writes: list[Any], run: list[Any] | None) -> None:
    assert decode(encode_body(writes)) == (run or writes)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (None, Code.INVALID_ARGUMENT),
        ([], Code.INVALID_ARGUMENT),
        ([[0, 1, None]], Code.INVALID_ARGUMENT),
        ([[0, 1, None, [K, V], 1]], Code.UNIMPLEMENTED),
        ([[-1, 1, None, [K, V]]], Code.INVALID_ARGUMENT),
        ([[1.0, 1, None, [K, V]]], Code.INVALID_ARGUMENT),
        ([[True, 1, None, [K, V]]], Code.INVALID_ARGUMENT),
        ([[2**64, 1, None, [K, V]]], Code.INVALID_ARGUMENT),
        ([[0, 7, None, []], [0, 1, None, [K, V]]], Code.INVALID_ARGUMENT),
        ([[0, 1, None, [K, V]], 5], Code.INVALID_ARGUMENT),
        ([5], Code.INVALID_ARGUMENT),
        ([5, K], Code.INVALID_ARGUMENT),
        ([5, K, V, K], Code.INVALID_ARGUMENT),
        ([5, b"", V], Code.INVALID_ARGUMENT),
        ([5, K, V, b"", V], Code.INVALID_ARGUMENT),
        ([5, K, "v"], Code.INVALID_ARGUMENT),
        ([5, K, V, 6, V], Code.INVALID_ARGUMENT),
        ([5, K, V, [6, 1, None, [K, V]], V], Code.INVALID_ARGUMENT),
        ([True, K, V], Code.INVALID_ARGUMENT),
        ([5.0, K, V], Code.INVALID_ARGUMENT),
        ([-1, K, V], Code.INVALID_ARGUMENT),
        ([LAST, K, V, K, V], Code.INVALID_ARGUMENT),
    ],
)
def test_what_is_no_body(body: Any, code: Code) -> None:
    with pytest.raises(ApiError) as caught:
        check_body(body)
    assert caught.value.code is code


def test_the_last_number_can_end_a_run() -> None:
    assert check_body([LAST - 1, K, V, K, V]) == 2


TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**64), 2**64), st.floats(), st.binary(max_size=3), st.text()),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.one_of(st.lists(st.integers(-1, 1) | TREES | st.just(K), max_size=7), TREES))
def test_rubbish_is_refused_and_never_raises(body: Any) -> None:
    try:
        count = check_body(body)
    except ApiError:
        return
    assert len(writes_of(body)) == count
    assert SCHEMA.allows("run" if is_run(body) else "body", body) or not is_run(body)

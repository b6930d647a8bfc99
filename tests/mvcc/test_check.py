"""The check of a write: types, bounds and rules that hold whatever the state is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coord.errors import ApiError
from coord.protocol.check import check_write
from coord.protocol.ranges import RangeRequest, parse_range
from coord.testing import operations as ops

K, V = b"k", b"v"


def refusal(op: Any, arguments: Any, guard: Any = None, max_txn_ops: int = 128) -> tuple[str, str] | None:
    error = check_write([0, op, guard, arguments], max_txn_ops)
    return None if error is None else (str(error.code), error.text)


def txn(*success: list[Any]) -> list[Any]:
    return [[], list(success), []]


def nested(levels: int) -> list[Any]:
    inner = txn([1, [K, V]])
    for _ in range(levels - 1):
        inner = txn([3, inner])
    return inner


ACCEPTED = [
    (1, [K, V]),
    (1, [K, V, 0, True, False, False]),
    (1, [K, b"", 2**63 - 1, False, True]),
    (2, [K]),
    (2, [K, b"\0", True]),
    (3, [[], [], []]),
    (3, [[[0, 4, K, 1], [3, 2**64 - 1, K, V]], [], []]),
    (3, [[[3, 3, K, V, b"\0"], [4, 1, K, 2**63 - 1]], [[20, [K]]], []]),
    (3, nested(128)),
    (4, [-1]),
    (5, [-5]),
    (5, [9_000_000_000, 2**63 - 1]),
    (6, [1]),
    (7, []),
    (8, [1, 5, 1]),
    (8, [2, 0, 0]),
]


@pytest.mark.parametrize(("op", "arguments"), ACCEPTED)
def test_accepted(op: int, arguments: list[Any]) -> None:
    assert refusal(op, arguments) is None


EMPTY = ("InvalidArgument", "etcdserver: key is not provided")
NO_LEASE = ("NotFound", "etcdserver: requested lease not found")
TOO_MANY = ("InvalidArgument", "etcdserver: too many operations in txn request")
DUPLICATE = ("InvalidArgument", "etcdserver: duplicate key given in txn request")
SORT = ("InvalidArgument", "etcdserver: invalid sort option")

REFUSED = [
    (1, [b"", V], EMPTY),
    (2, [b""], EMPTY),
    (3, txn([1, [b"", V]]), EMPTY),
    (3, [[[0, 0, b"", 1]], [], []], EMPTY),
    (3, txn([20, [b""]]), EMPTY),
    (1, [K, V, 0, False, True], ("InvalidArgument", "etcdserver: value is provided")),
    (1, [K, V, 5, False, False, True], ("InvalidArgument", "etcdserver: lease is provided")),
    (1, [K, V, -1], NO_LEASE),
    (1, [K, V, 2**63], ("InvalidArgument", "coord: lease of put must fit in 64 bits")),
    (6, [0], NO_LEASE),
    (6, [-3], NO_LEASE),
    (5, [9_000_000_001], ("OutOfRange", "etcdserver: too large lease TTL")),
    (5, [1, -1], ("InvalidArgument", f"coord: a lease id must be 1 … {2**63 - 1}, or 0 to have one chosen")),
    (3, txn(), None),
    (3, txn([3, txn([1, [K, V]])], [1, [K, V]]), DUPLICATE),
    (3, txn([3, txn([1, [b"k", V]], [1, [b"k", V]])]), DUPLICATE),
    (3, txn([1, [K, V]], [1, [K, V]]), DUPLICATE),
    (3, txn([1, [K, V]], [2, [b"a", b"z"]]), DUPLICATE),
    (3, txn([2, [K]], [3, txn([1, [K, V]])]), DUPLICATE),
    (3, txn([3, txn([2, [K]])], [3, txn([1, [K, V]])]), DUPLICATE),
    (3, txn([3, txn([1, [K, V]])], [3, txn([2, [K]])]), None),
    (3, txn([2, [b"a", b"\0"]], [1, [K, V]]), None),
    (3, [[], [[1, [K, V]]], [[1, [K, V]]]], None),
    (3, txn([3, [[], [[1, [K, V]]], [[1, [K, V]]]]]), None),
    (3, txn([20, [K, b"", 0, 0, 3]]), SORT),
    (3, txn([20, [K, b"", 0, 0, 0, 5]]), SORT),
    (3, txn([]), ("InvalidArgument", "etcdserver: key not found")),
    (3, txn([9, []]), ("Unimplemented", "coord: this release knows no operation 9 in a txn")),
    (3, txn([1, [K, V], 1]), ("Unimplemented", "coord: this release knows no item 3 of an operation")),
    (3, [[], []], ("InvalidArgument", "coord: a txn must be an array [compares, success, failure]")),
    (3, [[], [], [], 1], ("Unimplemented", "coord: this release knows no item 4 of txn")),
    (3, nested(129), TOO_MANY),
    (3, [[[5, 0, K, 1]], [], []], ("InvalidArgument", "coord: unknown compare target 5")),
    (
        3,
        [[[3, 0, K, 1]], [], []],
        ("InvalidArgument", "coord: operand of compare must be a byte string, not the integer 1"),
    ),
    (
        3,
        [[[0, 0, K, V]], [], []],
        ("InvalidArgument", "coord: operand of compare must be an integer, not a byte string"),
    ),
    (7, [1], ("Unimplemented", "coord: this release knows no item 1 of register")),
    (1, [K, V, 0, False, False, False, 1], ("Unimplemented", "coord: this release knows no item 7 of put")),
    (1, [K], ("InvalidArgument", "coord: put lacks value")),
    (1, ["k", V], ("InvalidArgument", "coord: key of put must be a byte string, not a text string")),
    (1, [K, V, 1.0], ("InvalidArgument", "coord: lease of put must be an integer, not a float (1.0): send an integer")),
    (1, [K, V, True], ("InvalidArgument", "coord: lease of put must be an integer, not a boolean")),
    (1, [K, V, 0, 1], ("InvalidArgument", "coord: prev_kv of put must be a boolean, not the integer 1")),
    (1, {}, ("InvalidArgument", "coord: the arguments of put must be an array, not a dict")),
    (4, [2**63], ("InvalidArgument", "coord: revision of compact must fit in 64 bits")),
    (8, [3, 1, 1], ("InvalidArgument", "coord: unknown alarm action 3")),
    (8, [1, 1, 3], ("InvalidArgument", "coord: unknown alarm 3")),
    (8, [1, 0, 1], ("InvalidArgument", "coord: activating an alarm needs a member and an alarm")),
    (99, [], ("Unimplemented", "coord: this release knows no write with op 99")),
    (20, [K], ("Unimplemented", "coord: this release knows no write with op 20")),
    (True, [K, V], ("InvalidArgument", "coord: op must be an integer, not a boolean")),
    (1.0, [K, V], ("InvalidArgument", "coord: op must be an integer, not a float (1.0): send an integer")),
]


@pytest.mark.parametrize(("op", "arguments", "expected"), REFUSED)
def test_refused(op: Any, arguments: Any, expected: Any) -> None:
    assert refusal(op, arguments) == expected


def test_nested_transactions_get_the_remainder() -> None:
    inner = txn(*([1, [b"%d" % number, V]] for number in range(3)))
    assert refusal(3, txn([3, inner], [20, [K]]), max_txn_ops=5) is None
    assert refusal(3, txn([3, inner], [20, [K]]), max_txn_ops=4) == TOO_MANY


@pytest.mark.parametrize(
    ("guard", "expected"),
    [
        ([K, 5], None),
        ([b"", 5], EMPTY),
        ([K], ("InvalidArgument", "coord: guard lacks create_revision")),
        ([K, 0], ("InvalidArgument", "coord: the create_revision of a guard must be above 0")),
        ([K, -1], ("InvalidArgument", "coord: create_revision of guard must be 0 … 2^64-1")),
        ([K, 5, 1], ("Unimplemented", "coord: this release knows no item 3 of guard")),
        (5, ("InvalidArgument", "coord: the arguments of guard must be an array, not the integer 5")),
    ],
)
def test_guards(guard: Any, expected: Any) -> None:
    assert refusal(1, [K, V], guard) == expected


def test_register_takes_no_guard() -> None:
    assert refusal(7, [], [K, 5]) == ("InvalidArgument", "coord: register takes no guard")


trees = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**64), 2**64), st.floats(), st.binary(max_size=3), st.text(max_size=3)
    ),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    op=st.one_of(st.integers(0, 9), trees), guard=st.one_of(st.none(), trees), arguments=trees, place=st.integers(0, 9)
)
def test_rubbish_is_refused_and_never_raises(op: Any, guard: Any, arguments: Any, place: int) -> None:
    error = check_write([0, op, guard, arguments], 128)
    assert error is None or isinstance(error, ApiError)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(write=ops.writes(), rubbish=trees, path=st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_one_wrong_item_anywhere_never_raises(write: list[Any], rubbish: Any, path: list[int]) -> None:
    place: Any = write
    for step in path[:-1]:
        if not isinstance(place, list) or step >= len(place):
            break
        place = place[step]
    if isinstance(place, list) and place and place is not write:
        place[path[-1] % len(place)] = rubbish
    error = check_write(write, 128)
    assert error is None or isinstance(error, ApiError)


def test_ranges_are_parsed() -> None:
    assert parse_range([K]) == RangeRequest(K)
    assert parse_range([K, b"z", 5, 3, 1, 2, True, True, False, 1, 2, 3, 4, 9]).min_revision == 9
    assert parse_range([K, b"", 0, 0, 2, 4, True]).is_plain_get
    for arguments in (
        [K, b"z"],
        [K, b"", 0, 5],
        [K, b"", 0, 0, 0, 0, False, True],
        [K, b"", 0, 0, 0, 0, False, False, True],
    ):
        assert not parse_range(arguments).is_plain_get
    assert not parse_range([K, b"", 0, 0, 0, 0, False, False, False, 0, 0, 1]).is_plain_get


@pytest.mark.parametrize("arguments", [[], [b""], None, [K, 5], [K, b"", 1.5], [K, b"", 0, 0, 3], [K, *[0] * 14]])
def test_bad_ranges_are_refused(arguments: Any) -> None:
    with pytest.raises(ApiError):
        parse_range(arguments)

"""The rule that a transaction changes no key twice, and what judging it costs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coord.errors import ApiError
from coord.protocol.intervals import Union, check_intervals

KEYS = st.binary(min_size=0, max_size=2).map(lambda key: bytes(byte % 4 for byte in key))
INTERVALS = st.lists(st.tuples(KEYS, st.none() | KEYS), max_size=12)


@given(INTERVALS, INTERVALS, st.lists(KEYS))
def test_union_holds_what_any_of_its_intervals_holds(first: list, second: list, keys: list[bytes]) -> None:  # type: ignore[type-arg]
    union, other = Union(), Union()
    for start, end in first:
        union.add(start, end)
    for start, end in second:
        other.add(start, end)
    union.update(other)

    for key in keys:
        wanted = any(start <= key and (end is None or key < end) for start, end in first + second)
        assert (key in union) == wanted


class CountedKey(bytes):
    """A key that counts how often it is compared."""

    compared = 0

    def __lt__(self, other: object) -> bool:
        CountedKey.compared += 1
        return bytes.__lt__(self, other)  # type: ignore[operator]

    def __le__(self, other: object) -> bool:
        CountedKey.compared += 1
        return bytes.__le__(self, other)  # type: ignore[operator]

    def __gt__(self, other: object) -> bool:
        CountedKey.compared += 1
        return bytes.__gt__(self, other)  # type: ignore[operator]

    def __ge__(self, other: object) -> bool:
        CountedKey.compared += 1
        return bytes.__ge__(self, other)  # type: ignore[operator]


def test_many_puts_beside_many_deletes_cost_a_bisection_each() -> None:
    deletes = [[3, [[], [[2, [b"d%05d" % number, b"d%05da" % number]] for number in range(2000)], []]]]
    puts = [[3, [[], [[1, [CountedKey(b"e%05d" % number), b""]] for number in range(2000)], []]]]
    CountedKey.compared = 0

    check_intervals(deletes + puts)

    assert CountedKey.compared < 2000 * 20


def test_a_put_in_a_sibling_deletes_interval_is_found() -> None:
    deletes = [3, [[], [[2, [b"a", b"c"]], [2, [b"c", b"e"]]], []]]
    for key, is_double in ((b"a", True), (b"d", True), (b"e", False)):
        try:
            check_intervals([deletes, [3, [[], [], [[1, [key, b""]]]]]])
            found = False
        except ApiError:
            found = True
        assert found == is_double

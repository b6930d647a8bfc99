"""Which watchers an event is for, against a list of all of them."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coord.mvcc.interval_tree import IntervalTree, _Node
from coord.mvcc.watchers import WatchIndex
from coord.testing.operations import KEYS, intervals
from coord.types import prefix_end

probes = [*KEYS, b"", b"\0", b"abc", b"\xff\xff\xff", b"zz"]


def holds(key: bytes, start: bytes, end: bytes) -> bool:
    if not end:
        return key == start
    return key >= start and (end == b"\0" or key < end)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(script=st.lists(st.tuples(st.booleans(), intervals(), st.integers(0, 100)), max_size=40))
def test_match_against_a_list(script: list[tuple[bool, tuple[bytes, bytes], int]]) -> None:
    index: WatchIndex[int] = WatchIndex()
    watchers: dict[int, tuple[bytes, bytes]] = {}
    for number, (adds, place, which) in enumerate(script):
        if adds or not watchers:
            index.add(*place, number)
            watchers[number] = place
        else:
            gone = sorted(watchers)[which % len(watchers)]
            index.remove(*watchers.pop(gone), gone)
        for key in probes:
            found = list(index.match(key))
            assert sorted(found) == [watcher for watcher, at in watchers.items() if holds(key, *at)]
    for watcher, at in watchers.items():
        index.remove(*at, watcher)
    assert not index._keys
    assert not index._prefixes
    assert not index._intervals
    assert index._tree._root is None


@pytest.mark.parametrize("place", [(b"a", b""), (b"a", b"b"), (b"a", b"z")])
def test_removing_what_is_not_there(place: tuple[bytes, bytes]) -> None:
    index: WatchIndex[int] = WatchIndex()
    with pytest.raises(KeyError):
        index.remove(*place, 1)
    index.add(*place, 1)
    with pytest.raises(KeyError):
        index.remove(*place, 2)
    index.add(*place, 2)
    with pytest.raises(KeyError):
        index.remove(*place, 3)


@pytest.mark.parametrize("place", [(b"a", b""), (b"a", b"b"), (b"a", b"z")])
def test_watchers_of_an_interval_are_found_by_name(place: tuple[bytes, bytes]) -> None:
    index: WatchIndex[tuple[str, int]] = WatchIndex(lambda watcher: watcher[0])
    assert index.find(*place, "x") is None
    index.add(*place, ("x", 1))
    assert [index.find(*place, name) for name in ("x", "y")] == [("x", 1), None]
    index.add(*place, ("y", 2))
    assert [index.find(*place, name) for name in ("x", "y", "z")] == [("x", 1), ("y", 2), None]
    assert index.find(b"a", b"c", "x") is None
    index.remove(*place, ("x", 1))
    assert [index.find(*place, name) for name in ("x", "y")] == [None, ("y", 2)]


def depth(node: _Node | None) -> int:
    return 0 if node is None else 1 + max(depth(node.left), depth(node.right))


def check(node: _Node | None) -> None:
    if node is None:
        return
    below = [child for child in (node.left, node.right) if child is not None]
    assert node.most == max([node.end, *(child.most for child in below)])
    assert abs(depth(node.left) - depth(node.right)) <= 1
    for child in below:
        check(child)


@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
def test_the_tree_stays_balanced(order: str) -> None:
    numbers = list(range(1000))
    if order == "falling":
        numbers.reverse()
    elif order == "mixed":
        numbers = [number * 7919 % 1000 for number in numbers]
    tree = IntervalTree()
    for number in numbers:
        tree.add(b"%04d" % number, b"%04d!" % (number + 5))
    check(tree._root)
    assert depth(tree._root) <= 14
    assert sorted(tree.stab(b"0500x")) == [(b"%04d" % number, b"%04d!" % (number + 5)) for number in range(496, 501)]
    for number in numbers[::2]:
        tree.remove(b"%04d" % number, b"%04d!" % (number + 5))
    check(tree._root)


def test_many_watchers_are_cheap() -> None:
    """100 000 watchers of as many keys take one dict entry each, next to the watcher itself."""
    index: WatchIndex[Any] = WatchIndex()
    for number in range(10_000):
        index.add(b"key/%d" % number, b"", number)
        index.add(b"dir/%d/" % number, prefix_end(b"dir/%d/" % number), number)
    size = sys.getsizeof(index._keys) + sum(map(sys.getsizeof, index._prefixes.values()))
    assert size / 20_000 < 100
    assert list(index.match(b"dir/77/x")) == [77]
    assert list(index.match(b"key/78")) == [78]

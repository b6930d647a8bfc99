"""A balanced tree of distinct key intervals, for the question which of them hold a key.

An AVL tree by start; each node knows the greatest end below it, so that subtrees that end before the key are passed
over. Balance is by height, not by chance: who chooses the intervals must not be able to choose the depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from coord.protocol.intervals import FROM_KEY

End = tuple[int, bytes]
"""An end that compares: `(1, b"")`, the end of the keyspace, is above all keys."""

_INFINITE: Final = (1, b"")


class _Node:
    __slots__ = ("end", "height", "interval", "left", "most", "right")

    def __init__(self, interval: tuple[bytes, bytes]) -> None:
        self.interval = interval
        self.end: End = _INFINITE if interval[1] == FROM_KEY else (0, interval[1])
        self.most = self.end
        self.height = 1
        self.left: _Node | None = None
        self.right: _Node | None = None

    def settle(self) -> None:
        """Work out height and greatest end anew from the children."""
        left, right = self.left, self.right
        self.height = 1 + max(left.height if left else 0, right.height if right else 0)
        most = self.end
        if left and left.most > most:
            most = left.most
        if right and right.most > most:
            most = right.most
        self.most = most


class IntervalTree:
    """A set of intervals `(start, range_end)`, with `range_end` as in a range request."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root: _Node | None = None

    def add(self, start: bytes, range_end: bytes) -> None:
        """Add an interval that is not in the tree."""
        self._root = _insert(self._root, _Node((start, range_end)))

    def remove(self, start: bytes, range_end: bytes) -> None:
        """Remove an interval. Raises `KeyError` if it is not there."""
        self._root = _delete(self._root, (start, range_end))

    def stab(self, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the intervals that hold `key`."""
        place = (0, key)
        pending = [self._root]
        while pending:
            node = pending.pop()
            if node is None or node.most <= place:
                continue
            pending.append(node.left)
            if node.interval[0] <= key:
                pending.append(node.right)
                if node.end > place:
                    yield node.interval


def _insert(node: _Node | None, new: _Node) -> _Node:
    if node is None:
        return new
    if new.interval < node.interval:
        node.left = _insert(node.left, new)
    else:
        node.right = _insert(node.right, new)
    return _balance(node)


def _delete(node: _Node | None, interval: tuple[bytes, bytes]) -> _Node | None:
    if node is None:
        raise KeyError(interval)
    if interval < node.interval:
        node.left = _delete(node.left, interval)
    elif interval > node.interval:
        node.right = _delete(node.right, interval)
    elif node.left is None:
        return node.right
    elif node.right is None:
        return node.left
    else:
        successor = node.right
        while successor.left is not None:
            successor = successor.left
        node.interval, node.end = successor.interval, successor.end
        node.right = _delete(node.right, successor.interval)
    return _balance(node)


def _balance(node: _Node) -> _Node:
    node.settle()
    slant = _slant(node)
    if slant > 1:
        assert node.left is not None
        if _slant(node.left) < 0:
            node.left = _rotate_left(node.left)
        return _rotate_right(node)
    if slant < -1:
        assert node.right is not None
        if _slant(node.right) > 0:
            node.right = _rotate_right(node.right)
        return _rotate_left(node)
    return node


def _slant(node: _Node) -> int:
    return (node.left.height if node.left else 0) - (node.right.height if node.right else 0)


def _rotate_right(node: _Node) -> _Node:
    top = node.left
    assert top is not None
    node.left, top.right = top.right, node
    node.settle()
    top.settle()
    return top


def _rotate_left(node: _Node) -> _Node:
    top = node.right
    assert top is not None
    node.right, top.left = top.left, node
    node.settle()
    top.settle()
    return top

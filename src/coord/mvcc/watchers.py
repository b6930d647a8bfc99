"""Which watchers an event is for.

A watcher of one key stands in a dict; one of a prefix in the dict of prefixes of that length, so that an event costs
one look-up for each length in use; any other interval in a balanced tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from coord.mvcc.interval_tree import IntervalTree
from coord.protocol.intervals import FROM_KEY
from coord.types import prefix_end

K = TypeVar("K")
T = TypeVar("T")


class Group(dict[T, None]):
    """Several watchers of one interval. One alone stands without a group: most do, and a dict takes 200 bytes."""

    __slots__ = ()


class WatchIndex(Generic[T]):
    """Watchers by interval. A watcher is any hashable object, in at most one place for one interval."""

    __slots__ = ("_intervals", "_keys", "_prefixes", "_tree")

    def __init__(self) -> None:
        self._keys: dict[bytes, T | Group[T]] = {}
        self._prefixes: dict[int, dict[bytes, T | Group[T]]] = {}
        self._intervals: dict[tuple[bytes, bytes], T | Group[T]] = {}
        self._tree = IntervalTree()

    def add(self, key: bytes, range_end: bytes, watcher: T) -> None:
        """Add a watcher of the interval that `key` and `range_end` mean, as in a range request."""
        if not range_end or range_end == key + b"\0":
            _add(self._keys, key, watcher)
        elif range_end != FROM_KEY and range_end == prefix_end(key):
            _add(self._prefixes.setdefault(len(key), {}), key, watcher)
        else:
            if (key, range_end) not in self._intervals:
                self._tree.add(key, range_end)
            _add(self._intervals, (key, range_end), watcher)

    def remove(self, key: bytes, range_end: bytes, watcher: T) -> None:
        """Remove a watcher that was added with this interval. Raises `KeyError` if there is none."""
        if not range_end or range_end == key + b"\0":
            _remove(self._keys, key, watcher)
        elif range_end != FROM_KEY and range_end == prefix_end(key):
            _remove(self._prefixes[len(key)], key, watcher)
            if not self._prefixes[len(key)]:
                del self._prefixes[len(key)]
        else:
            _remove(self._intervals, (key, range_end), watcher)
            if (key, range_end) not in self._intervals:
                self._tree.remove(key, range_end)

    def match(self, key: bytes) -> Iterator[T]:
        """Yield the watchers whose interval holds `key`."""
        found = self._keys.get(key)
        if found is not None:
            yield from _members(found)
        for length, prefixes in self._prefixes.items():
            found = prefixes.get(key[:length])
            if found is not None:
                yield from _members(found)
        if self._intervals:
            for interval in self._tree.stab(key):
                yield from _members(self._intervals[interval])


def _add(table: dict[K, T | Group[T]], place: K, watcher: T) -> None:
    found = table.get(place)
    if found is None:
        table[place] = watcher
    elif isinstance(found, Group):
        found[watcher] = None
    else:
        table[place] = Group({found: None, watcher: None})


def _remove(table: dict[K, T | Group[T]], place: K, watcher: T) -> None:
    found = table[place]
    if isinstance(found, Group):
        del found[watcher]
        if not found:
            del table[place]
    elif found != watcher:
        raise KeyError(watcher)
    else:
        del table[place]


def _members(found: T | Group[T]) -> Iterator[T]:
    if isinstance(found, Group):
        yield from found
    else:
        yield found

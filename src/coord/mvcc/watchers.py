"""Which watchers an event is for.

A watcher of one key stands in a dict; one of a prefix in the dict of prefixes of that length, so that an event costs
one look-up for each length in use; any other interval in a balanced tree.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from coord.mvcc.interval_tree import IntervalTree
from coord.protocol.intervals import FROM_KEY
from coord.types import prefix_end

K = TypeVar("K")
T = TypeVar("T")


class Group(dict[Hashable, T]):
    """Several watchers of one interval, by name. One alone stands without: most do, and a dict takes 200 bytes."""

    __slots__ = ()


class WatchIndex(Generic[T]):
    """Watchers by interval. `name_of` tells those of one interval apart; by default each is its own name."""

    __slots__ = ("_intervals", "_keys", "_name_of", "_prefixes", "_tree")

    def __init__(self, name_of: Callable[[T], Hashable] = lambda watcher: watcher) -> None:
        self._name_of = name_of
        self._keys: dict[bytes, T | Group[T]] = {}
        self._prefixes: dict[int, dict[bytes, T | Group[T]]] = {}
        self._intervals: dict[tuple[bytes, bytes], T | Group[T]] = {}
        self._tree = IntervalTree()

    def add(self, key: bytes, range_end: bytes, watcher: T) -> None:
        """Add a watcher of the interval that `key` and `range_end` mean, as in a range request."""
        if not range_end or range_end == key + b"\0":
            self._add(self._keys, key, watcher)
        elif range_end != FROM_KEY and range_end == prefix_end(key):
            self._add(self._prefixes.setdefault(len(key), {}), key, watcher)
        else:
            if (key, range_end) not in self._intervals:
                self._tree.add(key, range_end)
            self._add(self._intervals, (key, range_end), watcher)

    def remove(self, key: bytes, range_end: bytes, watcher: T) -> None:
        """Remove a watcher that was added with this interval. Raises `KeyError` if there is none."""
        if not range_end or range_end == key + b"\0":
            self._remove(self._keys, key, watcher)
        elif range_end != FROM_KEY and range_end == prefix_end(key):
            self._remove(self._prefixes[len(key)], key, watcher)
            if not self._prefixes[len(key)]:
                del self._prefixes[len(key)]
        else:
            self._remove(self._intervals, (key, range_end), watcher)
            if (key, range_end) not in self._intervals:
                self._tree.remove(key, range_end)

    def find(self, key: bytes, range_end: bytes, name: Hashable) -> T | None:
        """Return the watcher of this interval that has this name, if there is one."""
        found: T | Group[T] | None
        if not range_end or range_end == key + b"\0":
            found = self._keys.get(key)
        elif range_end != FROM_KEY and range_end == prefix_end(key):
            found = self._prefixes.get(len(key), {}).get(key)
        else:
            found = self._intervals.get((key, range_end))
        if isinstance(found, Group):
            return found.get(name)
        return found if found is not None and self._name_of(found) == name else None

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

    def _add(self, table: dict[K, T | Group[T]], place: K, watcher: T) -> None:
        found = table.get(place)
        if found is None:
            table[place] = watcher
        elif isinstance(found, Group):
            found[self._name_of(watcher)] = watcher
        else:
            table[place] = Group({self._name_of(found): found, self._name_of(watcher): watcher})

    def _remove(self, table: dict[K, T | Group[T]], place: K, watcher: T) -> None:
        found = table[place]
        if isinstance(found, Group):
            del found[self._name_of(watcher)]
            if not found:
                del table[place]
        elif found != watcher:
            raise KeyError(watcher)
        else:
            del table[place]


def _members(found: T | Group[T]) -> Iterator[T]:
    if isinstance(found, Group):
        yield from found.values()
    else:
        yield found

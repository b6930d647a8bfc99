"""All keys of the index in order: blocks of keys, sorted when a range meets them.

A put of a new key finds its block and adds to it; a range sorts the blocks it reads from. So no put and no range ever
pays for many others. A block is a dict used as a list: the garbage collector never looks into a dict of bytes,
whereas it would walk through lists and through each tuple that is new, and stop the loop for 50 ms at a million keys.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

BLOCK_KEYS_MAX: Final = 170
"""As many as a dict of 256 slots takes."""

Block = dict[bytes, None]


class OrderedKeys:
    """A sorted set of keys. Callers discard only keys that are in it."""

    __slots__ = ("_blocks", "_firsts", "_is_sorted")

    def __init__(self) -> None:
        self._firsts: list[bytes] = [b""]
        """A lower bound of each block's keys, and above those of the block before."""
        self._blocks: list[Block] = [{}]
        self._is_sorted: list[bool] = [True]

    @classmethod
    def of(cls, names: Sequence[bytes]) -> OrderedKeys:
        """Return a set of these keys, which are sorted and no two equal."""
        keys = cls()
        if names:
            # Blocks with room for a third more, so that the next puts do not split them all.
            starts = range(0, len(names), BLOCK_KEYS_MAX * 3 // 4)
            keys._firsts = [b"", *[names[start] for start in starts[1:]]]
            keys._blocks = [dict.fromkeys(names[start : start + starts.step]) for start in starts]
            keys._is_sorted = [True] * len(starts)
        return keys

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    def add(self, key: bytes) -> None:
        """Add a key."""
        number = bisect_right(self._firsts, key) - 1
        block = self._blocks[number]
        if block and next(reversed(block)) > key:
            self._is_sorted[number] = False
        block[key] = None
        if len(block) > BLOCK_KEYS_MAX:
            self._split(number, key)

    def discard(self, keys: Iterable[bytes]) -> None:
        """Take keys away."""
        for key in keys:
            number = bisect_right(self._firsts, key) - 1
            block = self._blocks[number]
            del block[key]
            if number and len(block) < BLOCK_KEYS_MAX // 8:
                self._join(number)

    def count(self, start: bytes, end: bytes | None) -> int:
        """Return how many keys `[start, end)` has, without looking at each."""
        if end is not None and end <= start:
            return 0
        below = self._place(start)
        first, last, above = below[0], len(self._blocks), 0
        if end is not None:
            last, above = self._place(end)
        return sum(map(len, self._blocks[first:last])) - below[1] + above

    def _place(self, key: bytes) -> tuple[int, int]:
        """Return the block in which `key` lies, or would, and how many keys stand before it there."""
        number = bisect_right(self._firsts, key) - 1
        return number, sum([other < key for other in self._blocks[number]])

    def slice(self, start: bytes, end: bytes | None, count: int) -> list[bytes]:
        """Return up to `count` keys of `[start, end)` in order; an end of None is the end of the keyspace."""
        found: list[bytes] = []
        first = bisect_right(self._firsts, start) - 1
        for number in range(first, len(self._blocks)):
            if len(found) >= count or (end is not None and self._firsts[number] >= end):
                break
            block = self._blocks[number]
            if not self._is_sorted[number]:
                block = self._blocks[number] = dict.fromkeys(sorted(block))
                self._is_sorted[number] = True
            if number == first and block and next(reversed(block)) < start:
                # To look at each would cost what memory each has to be waited for.
                continue
            found += block
            if number == first:
                # Only the first block can hold keys below `start`; they must not count, or a full answer would look
                # like the last one.
                del found[: bisect_left(found, start)]
        # Only the last one can hold keys from `end` on.
        if end is not None:
            del found[bisect_left(found, end) :]
        del found[count:]
        return found

    def _split(self, number: int, added: bytes) -> None:
        keys = sorted(self._blocks[number])
        # Keys that come in order leave full blocks behind; others leave room in both halves.
        cut = len(keys) - 1 if added == keys[-1] else len(keys) // 2
        self._blocks[number : number + 1] = [dict.fromkeys(keys[:cut]), dict.fromkeys(keys[cut:])]
        self._is_sorted[number : number + 1] = [True, True]
        self._firsts.insert(number + 1, keys[cut])

    def _join(self, number: int) -> None:
        """Join a block that has become small with the one before it, if that has room."""
        before, block = self._blocks[number - 1], self._blocks[number]
        if not block or len(before) + len(block) <= BLOCK_KEYS_MAX // 2:
            before.update(block)
            self._is_sorted[number - 1] &= self._is_sorted[number]
            del self._blocks[number], self._is_sorted[number], self._firsts[number]

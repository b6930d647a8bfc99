"""All keys of the index in order: blocks of sorted keys, into which new keys are merged in batches.

A block is a tuple, not a list: the garbage collector stops looking at a tuple of bytes, whereas it would walk a
million keys of lists in each full collection. New keys wait unsorted in `_fresh`, so that a put costs one append;
a range merges them first. The wait is bounded, so that no merge takes longer than a few milliseconds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from typing import Final

BLOCK_KEYS_MAX: Final = 256
FRESH_KEYS_MAX: Final = 2_048


class OrderedKeys:
    """A sorted set of keys. Callers add only keys that are not in it, and discard only keys that are."""

    __slots__ = ("_blocks", "_firsts", "_fresh")

    def __init__(self) -> None:
        self._blocks: list[tuple[bytes, ...]] = []
        self._firsts: list[bytes] = []
        """The first key of each block; a block's keys lie below the next one's."""
        self._fresh: list[bytes] = []

    def __len__(self) -> int:
        return sum(map(len, self._blocks)) + len(self._fresh)

    def add(self, key: bytes) -> None:
        """Add a key."""
        fresh = self._fresh
        fresh.append(key)
        if len(fresh) >= FRESH_KEYS_MAX:
            self._merge()

    def discard(self, keys: Iterable[bytes]) -> None:
        """Take keys away, in any order."""
        if self._fresh:
            self._merge()
        groups: dict[int, set[bytes]] = {}
        for key in keys:
            groups.setdefault(bisect_right(self._firsts, key) - 1, set()).add(key)
        for number in sorted(groups, reverse=True):
            self._shrink(number, groups[number])

    def slice(self, start: bytes, end: bytes | None, count: int) -> list[bytes]:
        """Return up to `count` keys of `[start, end)` in order; an end of None is the end of the keyspace."""
        if self._fresh:
            self._merge()
        found: list[bytes] = []
        blocks = self._blocks
        number = max(bisect_right(self._firsts, start) - 1, 0)
        while number < len(blocks) and len(found) < count:
            block = blocks[number]
            first = 0 if block[0] >= start else bisect_left(block, start)
            if end is None or block[-1] < end:
                found += block[first:] if first else block
            else:
                found += block[first : max(first, bisect_left(block, end))]
                break
            number += 1
        del found[count:]
        return found

    def _merge(self) -> None:
        fresh, self._fresh = self._fresh, []
        fresh.sort()
        firsts, blocks = self._firsts, self._blocks
        last_number = len(blocks) - 1
        if last_number < 0 or fresh[0] > blocks[last_number][-1]:
            self._append(fresh)
            return
        # From the end, so that splits do not move the blocks that are still to be met.
        stop = len(fresh)
        while stop:
            number = max(bisect_right(firsts, fresh[stop - 1]) - 1, 0)
            begin = bisect_left(fresh, firsts[number], 0, stop) if number else 0
            block = list(blocks[number])
            if stop - begin < 8:
                for key in fresh[begin:stop]:
                    insort(block, key)
            else:
                block += fresh[begin:stop]
                block.sort()
            self._replace(number, block)
            stop = begin

    def _append(self, keys: list[bytes]) -> None:
        if self._blocks and len(self._blocks[-1]) < BLOCK_KEYS_MAX:
            keys = [*self._blocks.pop(), *keys]
            self._firsts.pop()
        for begin in range(0, len(keys), BLOCK_KEYS_MAX):
            self._blocks.append(tuple(keys[begin : begin + BLOCK_KEYS_MAX]))
            self._firsts.append(keys[begin])

    def _replace(self, number: int, block: list[bytes]) -> None:
        if len(block) <= BLOCK_KEYS_MAX:
            self._blocks[number] = tuple(block)
            self._firsts[number] = block[0]
            return
        step = BLOCK_KEYS_MAX // 2
        parts = [tuple(block[begin : begin + step]) for begin in range(0, len(block), step)]
        self._blocks[number : number + 1] = parts
        self._firsts[number : number + 1] = [part[0] for part in parts]

    def _shrink(self, number: int, gone: set[bytes]) -> None:
        block = tuple([key for key in self._blocks[number] if key not in gone])
        neighbour = number + 1
        if neighbour < len(self._blocks) and len(block) + len(self._blocks[neighbour]) < BLOCK_KEYS_MAX // 2:
            block += self._blocks[neighbour]
            del self._blocks[neighbour], self._firsts[neighbour]
        if block:
            self._blocks[number] = block
            self._firsts[number] = block[0]
        else:
            del self._blocks[number], self._firsts[number]

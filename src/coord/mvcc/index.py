"""The key index: where the newest record of each key lies, and where its older ones do.

All state of a key is packed bytes in dicts of bytes, which the garbage collector does not look at: with a million
keys a full collection over tuples or lists would stop the loop for 0.1 s. The dicts are sharded, because the growth
of one dict of a million keys takes 70 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from struct import Struct
from typing import Final

from coord.mvcc.backend import Position
from coord.mvcc.keys import OrderedKeys

SHARDS: Final = 64
_MASK: Final = SHARDS - 1

State = tuple[int, int, int, int, int]
"""`(mod, sub, create, version, lease)` of a key's newest record; version 0 means that it is deleted."""

Found = tuple[bytes, Position, int, int]
"""`(key, position, create, version)` of a record; the last two are 0 where only the record itself tells them."""

_STATE: Final = Struct("<QIQQQ")

_OLD: Final = Struct(">QI")
"""An older position, packed big-endian so that bytes order as positions do; the top bit of `sub` marks a delete."""
_OLD_BYTES: Final = _OLD.size
_DELETED: Final = 1 << 31
_VERSION: Final = slice(20, 28)
_NO_VERSION: Final = bytes(8)


class KeyIndex:
    """Positions of all records that are not compacted away, by key."""

    __slots__ = ("_dead", "_history", "_newest", "_states", "keys")

    def __init__(self) -> None:
        self._states: list[dict[bytes, bytes]] = [{} for _ in range(SHARDS)]
        self._history: list[dict[bytes, bytearray]] = [{} for _ in range(SHARDS)]
        self.keys = OrderedKeys()
        """Those that live now. A lock or a queue leaves a dead key behind for each use until the next compaction, and
        must not become slower by each."""
        self._dead = OrderedKeys()
        """Those that were deleted, which the past still knows."""
        self._newest = 0
        """No key has changed since this revision."""

    def __len__(self) -> int:
        return sum(map(len, self._states))

    def latest(self, key: bytes) -> State | None:
        """Return the state of a key, deleted or not, or None if it is not known."""
        packed = self._states[hash(key) & _MASK].get(key)
        return None if packed is None else _STATE.unpack(packed)

    def state(self, key: bytes) -> State | None:
        """Return the state of a living key, or None."""
        packed = self._states[hash(key) & _MASK].get(key)
        if packed is None:
            return None
        state: State = _STATE.unpack(packed)
        return state if state[3] else None

    def current(self, key: bytes) -> Position | None:
        """Return the position of a living key's newest record, or None."""
        state = self.state(key)
        return None if state is None else (state[0], state[1])

    def replace(self, key: bytes, old: State | None, state: State) -> None:
        """Set the state of a key; `old` is what `latest` returned, and becomes history."""
        shard = hash(key) & _MASK
        self._newest, _, _, version, _ = state
        if old is None:
            self.keys.add(key)
        else:
            self._remember(shard, key, old)
            if (not old[3]) != (not version):
                self._move(key, is_dead=not version)
        self._states[shard][key] = _STATE.pack(*state)

    def _remember(self, shard: int, key: bytes, old: State) -> None:
        """Make a state history."""
        mod, sub, _, version, _ = old
        history = self._history[shard]
        past = history.get(key)
        if past is None:
            history[key] = past = bytearray()
        past += _OLD.pack(mod, sub if version else sub | _DELETED)

    def _move(self, key: bytes, *, is_dead: bool) -> None:
        """Let a key that died or was made anew be found where it belongs."""
        before, after = (self.keys, self._dead) if is_dead else (self._dead, self.keys)
        before.discard((key,))
        after.add(key)

    def restore(self, key: bytes, old: State | None) -> None:
        """Undo the last `replace` of this key."""
        shard = hash(key) & _MASK
        if old is None:
            del self._states[shard][key]
            self.keys.discard((key,))
            return
        version = old[3]
        if (not version) != (not _STATE.unpack(self._states[shard][key])[3]):
            self._move(key, is_dead=not version)
        past = self._history[shard][key]
        del past[-_OLD_BYTES:]
        if not past and version:
            del self._history[shard][key]
        self._states[shard][key] = _STATE.pack(*old)

    def load(self, records: Iterable[tuple[bytes, State]]) -> None:
        """Take `(key, state)` of records in revision order, when the node starts.

        The keys have no order before `order` was called.
        """
        for key, state in records:
            shard = hash(key) & _MASK
            states = self._states[shard]
            old = states.get(key)
            if old is not None:
                self._remember(shard, key, _STATE.unpack(old))
            states[key] = _STATE.pack(*state)
            if not state[3]:
                self._history[shard].setdefault(key, bytearray())

    def order(self, newest: int) -> None:
        """Put the keys in order after the last `load`, at once, which takes a third of adding each by itself.

        `newest` is the revision of the last record.
        """
        self.keys, self._dead = self._ordered(are_dead=False), self._ordered(are_dead=True)
        self._newest = newest

    def _ordered(self, *, are_dead: bool) -> OrderedKeys:
        states = chain.from_iterable(shard.items() for shard in self._states)
        return OrderedKeys.of(sorted(key for key, state in states if (state[_VERSION] == _NO_VERSION) is are_dead))

    def slice(self, start: bytes, end: bytes | None, count: int, revision: int) -> list[bytes]:
        """Return up to `count` keys of `[start, end)` in order, among them all that lived at `revision`."""
        living = self.keys.slice(start, end, count)
        if revision >= self._newest:
            return living
        # What has died since may have lived then.
        dead = self._dead.slice(start, end, count)
        return sorted([*living, *dead])[:count] if dead else living

    def count(self, start: bytes, end: bytes | None, revision: int) -> int | None:
        """Return how many keys of `[start, end)` lived at `revision`; None if they must be looked at one by one."""
        return self.keys.count(start, end) if revision >= self._newest else None

    def forget(self, keys: Iterable[bytes]) -> None:
        """Take away keys that `prune` said are gone."""
        self._dead.discard(keys)

    def found_at(self, keys: Iterable[bytes], revision: int) -> list[Found]:
        """Return those of the keys that are there at `revision`, with their positions and what else is known."""
        states, unpack = self._states, _STATE.unpack
        found: list[Found] = []
        for key in keys:
            packed = states[hash(key) & _MASK].get(key)
            if packed is None:
                continue
            mod, sub, create, version, _ = unpack(packed)
            if mod <= revision:
                if version:
                    found.append((key, (mod, sub), create, version))
            elif (position := self.position_at(key, revision)) is not None:
                found.append((key, position, 0, 0))
        return found

    def position_at(self, key: bytes, revision: int) -> Position | None:
        """Return where the key's newest record at `revision` lies, or None if the key is not there then."""
        position, deleted = self.newest_at(key, revision)
        return None if deleted else position

    def newest_at(self, key: bytes, revision: int) -> tuple[Position | None, bool]:
        """Return the key's newest position at or below `revision`, and whether it is a delete."""
        shard = hash(key) & _MASK
        packed = self._states[shard].get(key)
        if packed is None:
            return None, False
        mod, sub, _, version, _ = _STATE.unpack(packed)
        if mod <= revision:
            return (mod, sub), not version
        past = self._history[shard].get(key)
        if past is None:
            return None, False
        count = _count_at(past, revision)
        if not count:
            return None, False
        mod, sub = _OLD.unpack_from(past, (count - 1) * _OLD_BYTES)
        return (mod, sub & ~_DELETED), sub >= _DELETED

    def keys_with_history(self) -> Iterator[list[bytes]]:
        """Yield, shard by shard, the keys that may have positions to prune."""
        for history in self._history:
            yield list(history)

    def prune(self, key: bytes, revision: int) -> tuple[list[Position], bool]:
        """Forget what a compaction at `revision` makes unreachable: return where it lies, and whether the key is gone.

        The newest position at or below `revision` stays, unless it is a delete below it: a watch that starts at the
        compacted revision itself still finds its delete.
        """
        shard = hash(key) & _MASK
        history = self._history[shard]
        past = history.get(key)
        if past is None:
            return [], False
        packed = self._states[shard][key]
        mod, sub, _, version, _ = _STATE.unpack(packed)
        if mod <= revision:
            dead = [_position(past, number) for number in range(len(past) // _OLD_BYTES)]
            if not version and mod < revision:
                del history[key], self._states[shard][key]
                return [*dead, (mod, sub)], True
            if version:
                del history[key]
            else:
                past.clear()
            return dead, False
        count = _count_at(past, revision)
        if count:
            mod, sub = _OLD.unpack_from(past, (count - 1) * _OLD_BYTES)
            if sub < _DELETED or mod == revision:
                count -= 1
        dead = [_position(past, number) for number in range(count)]
        del past[: count * _OLD_BYTES]
        if not past and version:
            del history[key]
        return dead, False


def _position(past: bytearray, number: int) -> Position:
    mod, sub = _OLD.unpack_from(past, number * _OLD_BYTES)
    return mod, sub & ~_DELETED


def _count_at(past: bytearray, revision: int) -> int:
    """Return how many of the packed positions are at or below `revision`."""
    low, high = 0, len(past) // _OLD_BYTES
    while low < high:
        middle = (low + high) // 2
        if int.from_bytes(past[middle * _OLD_BYTES : middle * _OLD_BYTES + 8], "big") <= revision:
            low = middle + 1
        else:
            high = middle
    return low

"""The key index: where the newest record of each key lies, and where its older ones do.

All state of a key is packed bytes in dicts of bytes, which the garbage collector does not look at: with a million
keys a full collection over tuples or lists would stop the loop for 0.1 s. The dicts are sharded, because the growth
of one dict of a million keys takes 70 ms.

The last few older positions of a key stand before its state, in the same bytes, and a state begins with its own: a put
of one key among many costs what memory it has to wait for, and so finds all it needs, and leaves it, in one place.
"""

from __future__ import annotations

from bisect import bisect_right
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

_STATE: Final = Struct(">QIQQQ")
"""A state, packed big-endian so that the bytes order as positions do; the top bit of `sub` marks a delete."""
_STATE_BYTES: Final = _STATE.size
POSITION: Final = Struct(">QI")
"""An older position: what its state began with."""
_POSITION_BYTES: Final = POSITION.size
_REST: Final = Struct(">QQQ")
"""A state without its position: `(create, version, lease)`."""
_REST_BYTES: Final = _REST.size
_PAST: Final = slice(None, -_STATE_BYTES)
_POSITIONS: Final = slice(None, -_REST_BYTES)
_FULL_BYTES: Final = _STATE_BYTES + 8 * _POSITION_BYTES
"""A state with as many older positions before it as stay there, the oldest first."""
DELETED: Final = 1 << 31
"""The bit of a packed `sub` that tells of a delete."""
_MODS: Final = [Struct(">" + "Q4x" * count) for count in range(33)]
"""The revisions of so many packed positions: unpacked at once, they are looked through at the speed of C."""
_VERSION: Final = slice(-16, -8)
_NO_VERSION: Final = bytes(8)


class KeyIndex:
    """Positions of all records that are not compacted away, by key."""

    __slots__ = ("_dead", "_history", "_newest", "_states", "keys")

    def __init__(self) -> None:
        self._states: list[dict[bytes, bytes]] = [{} for _ in range(SHARDS)]
        """The newest state of each key, and its last older positions."""
        self._history: list[dict[bytes, bytearray]] = [{} for _ in range(SHARDS)]
        """The positions before those, of keys that have so many."""
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
        return None if packed is None else unpack_state(packed)

    def state(self, key: bytes) -> State | None:
        """Return the state of a living key, or None."""
        packed = self._states[hash(key) & _MASK].get(key)
        if packed is None:
            return None
        state: State = _STATE.unpack_from(packed, -_STATE_BYTES)
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
        elif (not old[3]) != (not version):
            self._move(key, is_dead=not version)
        self._succeed(shard, key, _pack(state))

    def put(self, key: bytes, mod: int) -> tuple[int, int, int, bytes | None]:
        """Set the state of a key that was put at `(mod, 0)`, without a lease: `latest` and `replace` in one.

        Returns `(create, version, lease, packed)`: what is so now, the lease it had, and what it was, which
        `unpack_state` tells. If this raises, the key is as it was.
        """
        states = self._states[hash(key) & _MASK]
        old = states.get(key)
        if old is None:
            self.keys.add(key)
            states[key] = _STATE.pack(mod, 0, mod, 1, 0)
            self._newest = mod
            return mod, 1, 0, None
        create, version, lease = _REST.unpack_from(old, -_REST_BYTES)
        if not version:
            self._move(key, is_dead=False)
            create = mod
        version += 1
        if len(old) < _FULL_BYTES:
            states[key] = old[_POSITIONS] + _STATE.pack(mod, 0, create, version, 0)
        else:
            self._succeed(hash(key) & _MASK, key, _STATE.pack(mod, 0, create, version, 0))
        self._newest = mod
        return create, version, lease, old

    def _succeed(self, shard: int, key: bytes, packed: bytes) -> None:
        """Set a packed state; that before it becomes history."""
        states = self._states[shard]
        old = states.get(key)
        if old is None:
            states[key] = packed
        elif len(old) < _FULL_BYTES:
            states[key] = old[_POSITIONS] + packed
        else:
            past = self._history[shard].setdefault(key, bytearray())
            past += old[_POSITIONS]
            states[key] = packed

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
        packed = self._states[shard][key]
        if (not old[3]) != (packed[_VERSION] == _NO_VERSION):
            self._move(key, is_dead=not old[3])
        past = packed[_PAST]
        if past:
            past = past[:-_POSITION_BYTES]
        else:
            # The positions had become too many, and went away with the last of them.
            older = self._history[shard][key]
            del older[-_POSITION_BYTES:]
            if not older:
                del self._history[shard][key]
        self._states[shard][key] = past + _pack(old)

    def load(self, records: Iterable[tuple[bytes, State]]) -> None:
        """Take `(key, state)` of records in revision order, when the node starts.

        The keys have no order before `order` was called.
        """
        for key, state in records:
            self._succeed(hash(key) & _MASK, key, _pack(state))

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
        states, unpack = self._states, _STATE.unpack_from
        found: list[Found] = []
        for key in keys:
            packed = states[hash(key) & _MASK].get(key)
            if packed is None:
                continue
            mod, sub, create, version, _ = unpack(packed, -_STATE_BYTES)
            if mod <= revision:
                if version:
                    found.append((key, (mod, sub), create, version))
            elif (position := self.position_at(key, revision)) is not None:
                found.append((key, position, 0, 0))
        return found

    def positions_at(self, keys: Iterable[bytes], revision: int) -> list[Position]:
        """Return where the keys that are there at `revision` lie: of `found_at`, what most ranges need."""
        states, unpack = self._states, POSITION.unpack_from
        positions: list[Position] = []
        for key in keys:
            packed = states[hash(key) & _MASK].get(key)
            if packed is None:
                continue
            mod, sub = position = unpack(packed, -_STATE_BYTES)
            if mod > revision:
                older = self.position_at(key, revision)
                if older is not None:
                    positions.append(older)
            elif sub < DELETED:
                positions.append(position)
        return positions

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
        mod, sub, _, version, _ = unpack_state(packed)
        if mod <= revision:
            return (mod, sub), not version
        past: bytes | bytearray = packed[_PAST]
        if not past or POSITION.unpack_from(past)[0] > revision:
            past = self._history[shard].get(key, b"")
        count = _count_at(past, len(past) // _POSITION_BYTES, revision)
        if not count:
            return None, False
        mod, sub = POSITION.unpack_from(past, (count - 1) * _POSITION_BYTES)
        return (mod, sub & ~DELETED), sub >= DELETED

    def keys_with_history(self) -> Iterator[list[bytes]]:
        """Yield, shard by shard, the keys that may have positions to prune."""
        for states, history in zip(self._states, self._history, strict=True):
            yield [
                key
                for key, state in states.items()
                if len(state) > _STATE_BYTES or state[_VERSION] == _NO_VERSION or key in history
            ]

    def prune(self, keys: Iterable[bytes], revision: int) -> tuple[bytearray, list[bytes]]:
        """Forget what a compaction at `revision` makes unreachable of these keys.

        Returns where it lies, packed as `POSITION`, and the keys that are gone, which `forget` is to be told. The
        newest position at or below `revision` stays, unless it is a delete below it: a watch that starts at the
        compacted revision itself still finds its delete.
        """
        dead, gone = bytearray(), list[bytes]()
        all_states, all_history = self._states, self._history
        for key in keys:
            shard = hash(key) & _MASK
            states, history = all_states[shard], all_history[shard]
            packed = states.get(key)
            if packed is None:
                continue
            if key in history:
                packed = bytes(history.pop(key)) + packed
            held = (len(packed) - _REST_BYTES) // _POSITION_BYTES
            count = _count_at(packed, held, revision)
            if count:
                mod, sub = POSITION.unpack_from(packed, (count - 1) * _POSITION_BYTES)
                if sub < DELETED or mod == revision:
                    count -= 1
            kept_from = count * _POSITION_BYTES
            dead += packed[:kept_from]
            if count == held:
                gone.append(key)
                del states[key]
                continue
            more = len(packed) - kept_from - _FULL_BYTES
            if more > 0:
                history[key] = bytearray(packed[kept_from : kept_from + more])
                kept_from += more
            states[key] = packed[kept_from:]
        return dead, gone


def unpack_state(packed: bytes) -> State:
    """Return the state that packed bytes tell of."""
    mod, sub, create, version, lease = _STATE.unpack_from(packed, -_STATE_BYTES)
    return mod, sub & ~DELETED, create, version, lease


def _pack(state: State) -> bytes:
    mod, sub, create, version, lease = state
    return _STATE.pack(mod, sub if version else sub | DELETED, create, version, lease)


def _count_at(packed: bytes | bytearray, held: int, revision: int) -> int:
    """Return how many of the first `held` packed positions are at or below `revision`."""
    if held < len(_MODS):
        return bisect_right(_MODS[held].unpack_from(packed), revision)
    return bisect_right(
        range(held), revision, key=lambda place: int(POSITION.unpack_from(packed, place * _POSITION_BYTES)[0])
    )

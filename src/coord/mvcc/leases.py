"""Leases: their TTL, the keys attached to them, and their checkpoints.

No clock is here: deadlines are the reaper's, on the leader alone, and expiry arrives as an entry (S22). So does a
checkpoint: what was left, as a leader saw it, of a lease that had missed a renewal (S23).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class LeaseTable:
    """All leases. The keys of a lease follow from the records and are not stored again."""

    __slots__ = ("_granted", "_keys", "_remaining", "_ttl")

    def __init__(self) -> None:
        self._granted: dict[int, int] = {}
        self._ttl: dict[int, int] = {}
        self._remaining: dict[int, int] = {}
        self._keys: dict[int, dict[bytes, None]] = {}

    def __len__(self) -> int:
        return len(self._ttl)

    def __contains__(self, lease: int) -> bool:
        return lease in self._ttl

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._ttl))

    def grant(self, lease: int, ttl_s: int, index: int) -> None:
        """Add a lease that does not exist yet; `index` is that of the entry that grants it."""
        self._ttl[lease] = ttl_s
        self._granted[lease] = index

    def existed_at(self, lease: int, index: int) -> bool:
        """Tell whether this very lease, not one of the same id before it, was there when `index` was applied."""
        granted = self._granted.get(lease)
        return granted is not None and granted <= index

    def ttl_s(self, lease: int) -> int | None:
        """Return the granted TTL, or None if there is no such lease."""
        return self._ttl.get(lease)

    def row(self, lease: int) -> list[int]:
        """Return what is stored of a lease: its TTL, the index that granted it, and its checkpoint if one stands."""
        row = [self._ttl[lease], self._granted[lease]]
        if remaining_ms := self.remaining_ms(lease):
            row.append(remaining_ms)
        return row

    def load(self, lease: int, row: Sequence[int]) -> None:
        """Take a lease from what was stored of it."""
        ttl_s, index, *rest = row
        self.grant(lease, ttl_s, index)
        if rest:
            self.checkpoint(lease, rest[0])

    def checkpoint(self, lease: int, remaining_ms: int) -> None:
        """Note what is left of a lease; 0 for one that was renewed since it was noted."""
        if remaining_ms:
            self._remaining[lease] = remaining_ms
        else:
            self._remaining.pop(lease, None)

    def remaining_ms(self, lease: int) -> int:
        """Return what the checkpoint of a lease says, or 0 if none stands."""
        return self._remaining.get(lease, 0)

    def keys(self, lease: int) -> list[bytes]:
        """Return the attached keys in order."""
        return sorted(self._keys.get(lease, ()))

    def move(self, key: bytes, old: int, new: int) -> None:
        """Detach a key from the lease `old` and attach it to `new`; 0 is no lease."""
        if old == new:
            return
        if old:
            keys = self._keys.get(old)
            if keys is not None:
                keys.pop(key, None)
                if not keys:
                    del self._keys[old]
        if new:
            self._keys.setdefault(new, {})[key] = None

    def revoke(self, lease: int) -> None:
        """Drop a lease whose keys have been deleted."""
        del self._ttl[lease], self._granted[lease]
        self._remaining.pop(lease, None)

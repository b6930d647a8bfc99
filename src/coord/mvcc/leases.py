"""Leases: their TTL and the keys attached to them.

No clock is here: deadlines are the reaper's, on the leader alone, and expiry arrives as an entry (S22).
"""

from __future__ import annotations

from collections.abc import Iterator


class LeaseTable:
    """All leases. The keys of a lease follow from the records and are not stored again."""

    __slots__ = ("_granted", "_keys", "_ttl")

    def __init__(self) -> None:
        self._granted: dict[int, int] = {}
        self._ttl: dict[int, int] = {}
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

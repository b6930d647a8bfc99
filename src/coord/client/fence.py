"""What a write may depend on: an ownership that its token proves. Pure."""

from __future__ import annotations

from typing import Protocol

Guard = list[bytes | int]
"""coord.cddl's `guard`: a key and the create revision that it must have."""


class Fence(Protocol):
    """A lock or a leadership, as `fence=` takes it."""

    @property
    def key(self) -> bytes:
        """The owner's key."""

    @property
    def fence(self) -> int:
        """The create revision of that key: the fencing token (S27)."""

    def check(self) -> None:
        """Raise if the ownership cannot be proven any more."""


def guard_of(fence: Fence | None) -> Guard | None:
    """Return the guard of a write that depends on `fence`. Raises what `fence.check` does."""
    if fence is None:
        return None
    # S24: checked here, and sent with no await between; what is under way when the ownership ends, the cluster refuses.
    fence.check()
    return [fence.key, fence.fence]

"""A lock or a leadership as its owner sees it, in both clients. Pure."""

from __future__ import annotations

from coord.client.recipes.contending import Contender
from coord.errors import OwnershipLost


class Held:
    """A contender that became the owner of its name, until it is lost or released."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._why_over = "it is not owned yet"

    def __repr__(self) -> str:
        return f"<{self._contender.name}, fence {self.fence}{', over: ' + self._why_over if self._why_over else ''}>"

    @property
    def name(self) -> str:
        """Its kind and name, for people."""
        return self._contender.name

    @property
    def key(self) -> bytes:
        """The owner's key: the name, a slash and the lease's id."""
        return self._contender.key

    @property
    def fence(self) -> int:
        """The fencing token: the create revision of the owner's key, higher for each owner than for those before."""
        return self._contender.create_revision

    @property
    def is_lost(self) -> bool:
        """True once it is not, or not provably, owned any more; also after its block has ended."""
        tenure = self._contender.tenure
        if not self._why_over and tenure.is_lost:
            self._why_over = tenure.why_lost
        return bool(self._why_over)

    def check(self) -> None:
        """Raise `LockLost` or `LeadershipLost` if it is lost; without waiting, so that a resource call can follow."""
        if self.is_lost:
            raise self.loss()

    def loss(self) -> OwnershipLost:
        """Return the error that tells of its loss."""
        return self._contender.lost(f"{self.name} is lost: {self._why_over}")

    def end(self, why: str) -> None:
        """Count it as lost."""
        self._why_over = self._why_over or why

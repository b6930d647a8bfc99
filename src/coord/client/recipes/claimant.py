"""What is made of sessions: who has a key of one, and what ends with one. Pure."""

from __future__ import annotations

from typing import Protocol

from coord.client.recipes.steps import Steps


class Claimant(Protocol):
    """Who has a key of a session for one task or thread: a contender, an instance."""

    @property
    def key(self) -> bytes:
        """The key."""

    @property
    def name(self) -> str:
        """What it is, for people."""

    def leave(self) -> Steps[None]:
        """Remove the key."""


class Dependent(Protocol):
    """What ends with a session."""

    def end(self, why: str) -> None:
        """Take the news that the session is lost."""

"""How a blank member learns that it is blank no more, though nobody leads it (S1).

It learns so from the entry that publishes its incarnation, and entries come from a leader alone. If that one dies
before the entry, or its commit, has arrived here, the others may need this member's vote to have a leader at all. So
it asks them: what a welcome says is applied, and thereby committed, where it was said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import trio
from attrs import define

from coord.protocol.hello import Refusal, Welcome
from coord.raft.core import Raft


class Asking(Protocol):
    """What is needed of `Peers`."""

    async def probe(self, urls: Sequence[str], timeout_s: float) -> list[Welcome | Refusal]:
        """Ask every URL who answers there; what they say is `told` besides."""


@define(eq=False)
class Publication:
    """`on_published` is called when this member must no longer count itself as blank."""

    raft: Raft
    incarnation: int
    peers: Asking
    urls: Callable[[], Sequence[str]]
    """Where the others can be asked."""
    on_published: Callable[[], None]
    patience_s: float
    """How long it waits for a leader, between two tries too, and for the answers."""
    is_known: bool = False
    """A member has said that it applied the entry."""

    @property
    def is_blank(self) -> bool:
        """True while this member's vote counts nowhere."""
        return self.raft.member_id in self.raft.configuration.blank

    def told(self, welcome: Welcome) -> None:
        """Learn whom a member of the cluster knows.

        S1: that this directory is the member is committed, by others than itself, and no other can be any more. So
        its vote and its word count once and for all, whether it has that entry or not: whatever was committed before
        is held by a majority without it, and each majority with it has one of those among it.
        """
        is_published = any(
            row.id == self.raft.member_id and row.incarnation == self.incarnation for row in welcome.members
        )
        if is_published and self.is_blank and not self.is_known:
            self.is_known = True
            self.on_published()

    async def run(self) -> None:
        """Ask, as often as need be, until cancelled."""
        while True:
            await trio.sleep(self.patience_s)
            if self.is_blank and not self.raft.leader_id:
                await self.peers.probe(self.urls(), self.patience_s)

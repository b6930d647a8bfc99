"""What the other members see of this node: the handler of its links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import define

from coord.node.calls import Calls
from coord.node.consensus import Consensus, Log
from coord.protocol.messages import Call, CallReply, PeerMessage


class PeersPort(Protocol):
    """The links to the other members, as the node uses them."""

    def set_members(self, members: Mapping[int, tuple[str, ...]], names: Mapping[int, str] | None = None) -> None:
        """Dial exactly these: id -> peer URLs of all others; `names` are for the log."""

    def send(self, messages: Sequence[PeerMessage]) -> None:
        """Send each message to its `to` with the next `turn`; what has no link is dropped."""

    def turn(self) -> bool:
        """Send what was given since the last turn: a frame a member."""

    def is_linked(self, member: int) -> bool:
        """Tell whether this node's link to `member` stands."""

    async def run(self) -> None:
        """Keep a link to every member standing, until cancelled."""


class NoPeers:
    """The links of a node that has no network."""

    def set_members(self, members: Mapping[int, tuple[str, ...]], names: Mapping[int, str] | None = None) -> None:
        """Dial nobody."""

    def send(self, messages: Sequence[PeerMessage]) -> None:
        """Drop them."""

    def turn(self) -> bool:
        """Nothing waits."""
        return False

    def is_linked(self, member: int) -> bool:
        """Never."""
        return False

    async def run(self) -> None:
        """There is nothing to do."""


@define(eq=False)
class PeerSide:
    """Takes what the links bring; plain functions that fill inboxes."""

    log: Log
    consensus: Consensus
    calls: Calls

    def received(self, sender: int, messages: list[PeerMessage]) -> None:
        """See `PeerHandler`."""
        for message in messages:
            if isinstance(message, Call | CallReply):
                self.calls.take(message)
            else:
                self.consensus.received(message)

    def link_up(self, member: int) -> None:
        """See `PeerHandler`."""
        self._link_lost(member)
        self.consensus.soon(lambda: self.consensus.raft.link_up(member))

    def link_broken(self, member: int, is_refused: bool) -> None:
        """See `PeerHandler`."""
        self.calls.link_broken(member)
        self._link_lost(member)
        self.consensus.soon(lambda: self.consensus.raft.link_broken(member, is_refused))

    def _link_lost(self, member: int) -> None:
        self.consensus.soon(lambda: self.consensus.forwarder.link_lost(member))

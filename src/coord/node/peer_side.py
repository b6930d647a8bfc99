"""What the other members see of this node: the handler of its links."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define

from coord.node.hello import LocalView
from coord.node.peers import Introduction
from coord.protocol.entries import Member
from coord.protocol.hello import Hello, Purpose, Refusal, RefusalCode, Welcome
from coord.protocol.messages import Call, CallReply, PeerMessage, SnapshotReceived, SpaceReport

if TYPE_CHECKING:
    from coord.node.node import Node


@define(eq=False)
class PeerSide:
    """Implements `PeerHandler` and `SnapshotNode`: plain functions that fill inboxes and wake."""

    node: Node

    def local_view(self) -> LocalView:
        """See `PeerHandler`."""
        node = self.node
        options, machine = node.options, node.machine
        return LocalView(
            cluster_id=machine.cluster_id,
            bootstrap_id=options.bootstrap_id,
            member_id=options.member_id,
            incarnation=options.incarnation,
            boot=options.boot,
            nonce=options.nonce,
            members=node.members(),
            outgoing=machine.outgoing,
            removed=machine.removed,
            peers=node.seams.memory.peers,
            leader_id=node.raft.leader_id,
            check_last_index=node.raft.check_last_index,
        )

    def hello(self, to: int, purpose: Purpose) -> Hello:
        """See `PeerHandler`."""
        node = self.node
        options = node.options
        own = node.members().get(options.member_id)
        return Hello(
            bootstrap_id=options.bootstrap_id,
            cluster_id=node.machine.cluster_id,
            member=options.member_id,
            peer_urls=own.peer_urls if own is not None else options.peer_urls,
            incarnation=options.incarnation,
            boot=options.boot,
            nonce=options.nonce,
            to=to,
            name=options.name,
            client_urls=options.client_urls,
            last_index=node.raft.log.last_index,
            purpose=purpose,
        )

    def remember_peer(self, member: int, incarnation: int, boot: int, nonce: int) -> None:
        """See `PeerHandler`."""
        self.node.seams.memory.remember_peer(member, incarnation, boot, nonce)

    def received(self, sender: int, messages: list[PeerMessage]) -> None:
        """See `PeerHandler`."""
        node = self.node
        for message in messages:
            if isinstance(message, (Call, CallReply)):
                node.calls.take(message)
            elif isinstance(message, SpaceReport):
                node.space.take(message)
            else:
                node.consensus.received(message)

    def introduced(self, peer: Introduction) -> None:
        """See `PeerHandler`."""
        node = self.node
        node.meet(Member(peer.member, peer.name, peer.peer_urls, peer.client_urls))
        node.membership.introduced(peer.member, peer.incarnation, peer.name, peer.client_urls)
        node.consensus.soon(node.forwarder.introduced, peer.member)

    def link_up(self, member: int) -> None:
        """See `PeerHandler`."""
        node = self.node
        node.refusals.let_in(member)
        # What was sent on an earlier link may not have arrived.
        node.consensus.soon(node.forwarder.link_lost, member)
        node.consensus.soon(node.raft.link_up, member)

    def link_broken(self, member: int, is_refused: bool) -> None:
        """See `PeerHandler`."""
        node = self.node
        node.calls.link_broken(member)
        if not node.peers.is_linked(member):
            # What was sent may be lost. If only the other's link has ended, an answer may be, and the own apply tells.
            node.consensus.soon(node.forwarder.link_lost, member)
        node.consensus.soon(node.raft.link_broken, member, is_refused)

    def told(self, welcome: Welcome) -> None:
        """See `PeerHandler`."""
        node = self.node
        for member in welcome.members:
            node.meet(member)
        node.consensus.soon(node.publication.told, welcome)

    def refused(self, member: int, refusal: Refusal) -> None:
        """See `PeerHandler`."""
        if refusal.code is RefusalCode.REMOVED:
            self.node.end_membership()
        self.node.refusals.refused(member, refusal)
        self.node.loop.wake()

    # What the snapshotter sees (`SnapshotNode`).

    @property
    def member_id(self) -> int:
        """See `ReceivingNode`."""
        return self.node.member_id

    @property
    def raft_term(self) -> int:
        """See `ReceivingNode`."""
        return self.node.raft.term

    @property
    def applied_index(self) -> int:
        """See `ReceivingNode`."""
        return self.node.machine.applied_index

    @property
    def first_index(self) -> int:
        """See `SnapshotNode`."""
        return self.node.raft.log.base_index + 1

    def snapshot_received(self, message: SnapshotReceived, done: Callable[[bool], None]) -> None:
        """See `ReceivingNode`."""
        node = self.node
        node.consensus.soon(node.installation.received, message, done)

    def snapshot_sent(self, member: int, index: int) -> None:
        """See `SnapshotNode`."""
        node = self.node
        node.consensus.soon(node.raft.snapshot_sent, member, index)

    def snapshot_failed(self, member: int) -> None:
        """See `SnapshotNode`."""
        node = self.node
        node.consensus.soon(node.raft.snapshot_failed, member)

"""How a member comes into its cluster: by its flags, or into one that is there (S1).

Only an empty data directory has this to settle. It asks all peers that it can reach: if one of them has a cluster,
this member joins that one and is blank, whatever its flags say. Otherwise a wiped member would found the cluster again,
and vote for what it had helped to decide otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import trio
from attrs import frozen

from coord.errors import DataDirError
from coord.node.consensus import Log
from coord.node.hello import LocalView, Triple, bootstrap_id
from coord.node.membership import initial_members
from coord.node.options import Options
from coord.node.peers import Introduction, Network, Peers
from coord.protocol.entries import Member, initial_member_id
from coord.protocol.hello import Hello, Purpose, Refusal, Welcome
from coord.protocol.messages import PeerMessage
from coord.store.identity import Identity, Life

RETRY_S = 1.0
"""How long a member that is to join waits before it asks again."""


class Directory(Protocol):
    """The data directory's word on who this member is, and who the others are."""

    identity: Identity

    @property
    def peers(self) -> Mapping[int, Triple]:
        """The others' incarnation, boot and nonce by member."""

    def decide(self, life: Life) -> None:
        """Make durable how this member came into its cluster."""

    def adopt(self, member: int) -> None:
        """Make durable which id this member was told."""

    def remember_peer(self, member: int, incarnation: int, boot: int, nonce: int) -> None:
        """Make durable who another member is."""


@frozen
class Flags:
    """What a member is told of its cluster; URLs as texts."""

    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    token: str
    initial_cluster: tuple[tuple[str, tuple[str, ...]], ...]
    is_existing: bool = False

    @property
    def bootstrap_id(self) -> int:
        """Proves that two members were given the same flags."""
        return bootstrap_id(self.token, self.initial_cluster)

    @property
    def member_id(self) -> int:
        """The id that the flags give this member; 0 if its cluster tells it."""
        return 0 if self.is_existing else initial_member_id(self.token, self.name, self.peer_urls)

    @property
    def members(self) -> tuple[Member, ...]:
        """The members that the flags name; of a cluster that is there they say only where to ask."""
        return () if self.is_existing else initial_members(self.token, self.initial_cluster)

    @property
    def other_urls(self) -> list[str]:
        """Where the others can be asked."""
        return [url for _, urls in self.initial_cluster for url in urls if url not in self.peer_urls]


def options_of(flags: Flags, identity: Identity, **settings: Any) -> Options:
    """Return the options of a member that has arrived; `settings` are those that its flags do not concern."""
    is_joining = identity.life is Life.JOINED
    return Options(
        name=flags.name,
        member_id=identity.member,
        peer_urls=flags.peer_urls,
        client_urls=flags.client_urls,
        members=flags.members,
        incarnation=identity.incarnation,
        boot=identity.boot,
        nonce=identity.nonce,
        bootstrap_id=0 if is_joining else flags.bootstrap_id,
        is_joining=is_joining,
        **settings,
    )


@frozen
class _Stranger:
    """The handler of the links on which a member asks before it belongs anywhere."""

    flags: Flags
    directory: Directory

    def local_view(self) -> LocalView:
        """See `PeerHandler`."""
        identity = self.directory.identity
        return LocalView(
            cluster_id=0,
            bootstrap_id=0 if self.flags.is_existing else self.flags.bootstrap_id,
            member_id=identity.member,
            incarnation=identity.incarnation,
            boot=identity.boot,
            nonce=identity.nonce,
            members={member.id: member for member in self.flags.members},
            outgoing=frozenset(),
            removed=frozenset(),
            peers=self.directory.peers,
            leader_id=0,
            check_last_index=lambda member, index: True,
        )

    def hello(self, to: int, purpose: Purpose) -> Hello:
        """See `PeerHandler`."""
        view, flags = self.local_view(), self.flags
        return Hello(
            bootstrap_id=view.bootstrap_id,
            cluster_id=0,
            member=view.member_id,
            peer_urls=flags.peer_urls,
            incarnation=view.incarnation,
            boot=view.boot,
            nonce=view.nonce,
            to=to,
            name=flags.name,
            client_urls=flags.client_urls,
            last_index=0,
            purpose=purpose,
        )

    def remember_peer(self, member: int, incarnation: int, boot: int, nonce: int) -> None:
        """See `PeerHandler`."""
        self.directory.remember_peer(member, incarnation, boot, nonce)

    def received(self, sender: int, messages: list[PeerMessage]) -> None:
        """Nothing is received before this member takes links."""

    def introduced(self, peer: Introduction) -> None:
        """Nobody says hello either."""

    def link_up(self, member: int) -> None:
        """No link is kept."""

    def link_broken(self, member: int, is_refused: bool) -> None:
        """No link is kept."""

    def told(self, welcome: Welcome) -> None:
        """The answer itself says it."""

    def refused(self, member: int, refusal: Refusal) -> None:
        """The answer itself says it."""


def is_settled(directory: Directory, flags: Flags) -> bool:
    """Tell whether there is nobody to ask; a member that its flags name alone founds its cluster at once."""
    if directory.identity.life is Life.UNDECIDED and not flags.is_existing and not flags.other_urls:
        directory.decide(Life.BOOTSTRAPPED)
    return directory.identity.life is not Life.UNDECIDED


async def arrive(
    directory: Directory,
    flags: Flags,
    network: Network,
    log: Log,
    chance: random.Random,
    clock: Callable[[], float],
    patience_s: float,
    on_wait: Callable[[], None] = lambda: None,
) -> None:
    """Ask the peers, and make durable how this member comes in and who it is.

    `patience_s` is how long the others have to answer. A member of a cluster that is there waits for one of them for
    as long as it takes, and calls `on_wait` each time before it asks again. Raises `DataDirError` with the remedy if
    this data directory is not let in.
    """
    if is_settled(directory, flags):
        return
    peers = Peers(network, _Stranger(flags, directory), log, clock, chance)
    is_told = False
    while True:
        answers = await peers.probe(flags.other_urls, patience_s)
        welcomes = [answer for answer in answers if isinstance(answer, Welcome) and answer.cluster_id]
        refusals = [answer for answer in answers if isinstance(answer, Refusal)]
        if final := [refusal for refusal in refusals if refusal.code.is_final]:
            raise DataDirError(final[0].text)
        if welcomes:
            _join(directory, welcomes, log)
            return
        if not flags.is_existing:
            directory.decide(Life.BOOTSTRAPPED)
            return
        if not is_told:
            reasons = sorted({refusal.text for refusal in refusals})
            log("node.arrival.waiting", urls=flags.other_urls, reasons=reasons or ["nobody answers"])
            is_told = True
        on_wait()
        await trio.sleep(RETRY_S)


def _join(directory: Directory, welcomes: Sequence[Welcome], log: Log) -> None:
    welcome = welcomes[0]
    # In this order: an id without a decision asks again.
    directory.adopt(welcome.your_member)
    directory.decide(Life.JOINED)
    log("node.arrival.joined", member=welcome.your_member, cluster_id=welcome.cluster_id, answered=welcome.member)

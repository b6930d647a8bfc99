"""Members without a node: real links over a simulated network, and handlers that write down what they are told."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio
from attrs import define, field
from trio.testing import MockClock

from coord.limits import PEER_PING_GIVE_UP_S, PEER_PING_IDLE_S
from coord.node.hello import LocalView, Triple
from coord.node.peers import Introduction, Peers
from coord.observe.log import RecordingLog
from coord.protocol.entries import Member
from coord.protocol.hello import Hello, Purpose, Refusal, Welcome, encode_hello
from coord.protocol.messages import Heartbeat, PeerMessage
from coord.protocol.ops import PEER_SUBPROTOCOL
from coord.testing.sim_network import SimNetwork
from coord.transport.link import Link, Patience

CLUSTER = 0xC1
PATIENCE = Patience(PEER_PING_IDLE_S, PEER_PING_GIVE_UP_S)


def url_of(number: int) -> str:
    return f"http://n{number}:7380"


def member_row(number: int, incarnation: int = 0) -> Member:
    return Member(number, f"n{number}", (url_of(number),), (f"http://n{number}:7379",), False, incarnation)


def beat(sender: int, to: int, round_id: int = 0) -> Heartbeat:
    return Heartbeat(sender, to, 1, 0, round_id)


@define(eq=False)
class Place:
    """What the members of a test have in common."""

    network: SimNetwork
    nursery: trio.Nursery
    size: int
    rigs: dict[int, Rig] = field(factory=dict)

    async def start(self, *numbers: int, boot: int = 1, **settings: Any) -> list[Rig]:
        """Start members that know all of the cluster."""
        made = []
        for number in numbers:
            rig = self.rigs[number] = Rig(self, number, boot, **settings)
            await self.nursery.start(rig.run)
            made.append(rig)
        return made

    def kill(self, number: int) -> None:
        """End a member's process as kill -9 does."""
        rig = self.rigs.pop(number)
        self.network.kill(rig.name)
        rig.scope.cancel()


@define(eq=False, slots=False)
class Rig:
    """A member: implements `PeerHandler`."""

    place: Place
    number: int
    boot: int
    incarnation: int = 0
    cluster_id: int = CLUSTER
    bootstrap_id: int = 0xB0
    removed: frozenset[int] = frozenset()
    known: Mapping[int, Triple] = field(factory=dict)
    told_id: int = 0
    joins: bool = False
    log: RecordingLog = field(factory=RecordingLog)
    events: list[tuple[Any, ...]] = field(factory=list)
    """What the handler was told, each with its time last."""
    got: dict[int, list[PeerMessage]] = field(factory=dict)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    peers: Peers = field(init=False)
    members: dict[int, Member] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.incarnation = self.incarnation or 0x1000 + self.number
        self.known = dict(self.known)
        self.members = {number: member_row(number) for number in range(1, self.place.size + 1)}
        endpoint = self.place.network.endpoint(self.name, PEER_SUBPROTOCOL)
        self.peers = Peers(endpoint, self, self.log, trio.current_time, random.Random(self.number))
        others = {number: row.peer_urls for number, row in self.members.items() if number != self.number}
        self.peers.set_members(others, {number: f"n{number}" for number in others})

    @property
    def name(self) -> str:
        return f"n{self.number}"

    @property
    def member_id(self) -> int:
        return self.told_id if self.joins else self.number

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        port = self.place.network.listen(self.name, url_of(self.number))
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.peers.run)
                task_status.started()
                while True:
                    nursery.start_soon(self.peers.accept, await port.accept())

    def say(self, *messages: PeerMessage) -> None:
        """Send messages as a node's turn does."""
        self.peers.send(messages)
        self.peers.turn()

    def names(self, *kinds: str) -> list[tuple[Any, ...]]:
        """What was told of these kinds, without the times."""
        return [event[:-1] for event in self.events if event[0] in kinds]

    def time_of(self, *event: Any) -> float:
        """When this was told first."""
        return next(float(told[-1]) for told in self.events if told[:-1] == event)

    def _note(self, *event: Any) -> None:
        self.events.append((*event, trio.current_time()))

    # PeerHandler

    def local_view(self) -> LocalView:
        return LocalView(
            cluster_id=self.cluster_id,
            bootstrap_id=self.bootstrap_id,
            member_id=self.member_id,
            incarnation=self.incarnation,
            boot=self.boot,
            nonce=self.boot * 7 + self.number,
            members=self.members,
            outgoing=frozenset(),
            removed=self.removed,
            peers=self.known,
            leader_id=0,
            check_last_index=lambda member, index: True,
        )

    def hello(self, to: int, purpose: Purpose) -> Hello:
        view = self.local_view()
        return Hello(
            bootstrap_id=view.bootstrap_id,
            cluster_id=view.cluster_id,
            member=view.member_id,
            peer_urls=(url_of(self.number),),
            incarnation=view.incarnation,
            boot=view.boot,
            nonce=view.nonce,
            to=to,
            name=self.name,
            client_urls=(),
            last_index=0,
            purpose=purpose,
        )

    def remember_peer(self, member: int, incarnation: int, boot: int, nonce: int) -> None:
        assert isinstance(self.known, dict)
        self.known[member] = (incarnation, boot, nonce)
        self._note("remembered", member, boot)

    def received(self, sender: int, messages: list[PeerMessage]) -> None:
        self.got.setdefault(sender, []).extend(messages)
        self._note("received", sender, len(messages))

    def introduced(self, peer: Introduction) -> None:
        self._note("introduced", peer.member, peer.boot)

    def link_up(self, member: int) -> None:
        self._note("up", member)

    def link_broken(self, member: int, is_refused: bool) -> None:
        self._note("broken", member, is_refused)

    def told(self, welcome: Welcome) -> None:
        self._note("told", welcome.cluster_id, welcome.your_member)

    def refused(self, member: int, refusal: Refusal) -> None:
        self._note("refused", member, str(refusal.code))


Story = Callable[[Place], Awaitable[None]]


def play(story: Story, *, size: int = 2, patience: Patience | None = PATIENCE) -> None:
    """Run a story in virtual time."""

    async def main() -> None:
        with trio.fail_after(100_000):
            async with trio.open_nursery() as nursery:
                await story(Place(SimNetwork(random.Random(1), patience), nursery, size))
                nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def dial_as(place: Place, number: int, hello: Hello, to: int) -> Link:
    """Dial by hand and say a hello."""
    link = await place.network.dial(f"n{number}", url_of(to), PEER_SUBPROTOCOL)
    link.send(encode_hello(hello))
    return link


def of_kind(messages: Sequence[PeerMessage], kind: type[Any]) -> list[Any]:
    return [message for message in messages if isinstance(message, kind)]

"""Links between members (S2): each dials every other, and what a link carries is its dialler's.

Nothing here waits for a member: what cannot be sent is dropped, as Raft expects. Whoever sent what must be answered is
told by `link_broken` that the answer may never come.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import trio
from attrs import define, field, frozen

from coord.errors import DecodeError, DiskFullError, NodeError, ProtocolViolation
from coord.limits import PEER_DIAL_TIMEOUT_S
from coord.node.consensus import Log
from coord.node.dialler import Dialler, HelloRefused
from coord.node.hello import LocalView, check_welcome, judge
from coord.protocol.hello import (
    Hello,
    Purpose,
    Refusal,
    RefusalCode,
    Welcome,
    decode_answer,
    decode_hello,
    encode_answer,
    encode_hello,
)
from coord.protocol.messages import PeerMessage
from coord.protocol.peer_protocol import decode_frame
from coord.transport.link import (
    CLOSE_GOING_AWAY,
    CLOSE_INTERNAL,
    CLOSE_INVALID_DATA,
    CLOSE_POLICY,
    Link,
    LinkClosed,
    LinkEnd,
    LinkFailed,
)

_FULL: Final = "no link before this is on the disk: who the other member is; free space there"


@frozen
class Introduction:
    """Who said hello, and was let in."""

    member: int
    incarnation: int
    boot: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    last_index: int


class PeerHandler(Protocol):
    """The node, as its links see it. All calls are plain functions: they fill inboxes and wake."""

    def local_view(self) -> LocalView:
        """Return what a hello that came, or its answer, is judged by."""

    def hello(self, to: int, purpose: Purpose) -> Hello:
        """Return what this node says of itself to `to`, 0 if it is not known who will answer."""

    def remember_peer(self, member: int, incarnation: int, boot: int, nonce: int) -> None:
        """Make durable who a member is before anything rests on it (S1); blocks for one small write.

        Raises `DiskFullError`; any other error of the disk ends the node.
        """

    def received(self, sender: int, messages: list[PeerMessage]) -> None:
        """Take what a member said, in order."""

    def introduced(self, peer: Introduction) -> None:
        """A member said hello and was let in; its messages follow."""

    def link_up(self, member: int) -> None:
        """This node's link to `member` stands."""

    def link_broken(self, member: int, is_refused: bool) -> None:
        """A link with `member` ended, in either direction: what was on it may be lost.

        If `is_refused`, the link had broken, not fallen silent, and the member's port refuses another: its process has
        died (S10). That call comes after one with False.
        """

    def told(self, welcome: Welcome) -> None:
        """A member of a cluster let this node in, and says whom it knows as members (S1)."""

    def refused(self, member: int, refusal: Refusal) -> None:
        """A member does not let this node in; said at every try."""


class Network(Protocol):
    """The seam to sockets."""

    async def dial(self, url: str) -> Link:
        """Return a link of subprotocol coord-peer.v1. Raises `LinkFailed`."""


class SnapshotTaker(Protocol):
    """Who serves links that carry a snapshot."""

    async def receive(self, link: Link, sender: int) -> None:
        """Take a snapshot from a link whose hello is done; return at its end."""


@define(eq=False)
class _Inbound:
    """A member's own link, and which boot of which data directory dialled it."""

    link: Link
    incarnation: int
    boot: int
    own_id: int


@define(eq=False)
class Peers:
    """All links of this node with other members. `run` is its task; `accept` serves what others dial."""

    network: Network
    handler: PeerHandler
    log: Log
    clock: Callable[[], float]
    chance: random.Random
    snapshots: SnapshotTaker | None = None
    _diallers: dict[int, Dialler] = field(factory=dict)
    _inbound: dict[int, _Inbound] = field(factory=dict)
    _touched: dict[Dialler, None] = field(factory=dict)
    _nursery: trio.Nursery | None = None
    _received_bytes: Counter[int] = field(factory=Counter)

    # ---- what the node says

    def set_members(
        self,
        members: Mapping[int, tuple[str, ...]],
        names: Mapping[int, str] | None = None,
        incarnations: Mapping[int, int] | None = None,
    ) -> None:
        """Dial exactly these: id -> peer URLs of all others. `names` are for the log.

        `incarnations` are those that are published: a link with another data directory of that member ends.
        """
        names = names or {}
        for member, incarnation in (incarnations or {}).items():
            self._part_with_others(member, incarnation)
        for gone in self._diallers.keys() - members.keys():
            self._diallers.pop(gone).scope.cancel()
            self._hang_up(gone, "no longer a member")
            del self._received_bytes[gone]
        for member, urls in members.items():
            dialler = self._diallers.get(member)
            if dialler is None:
                dialler = self._diallers[member] = Dialler(member, tuple(urls), names.get(member, ""), self)
                if self._nursery is not None:
                    self._nursery.start_soon(dialler.run)
            elif dialler.urls != tuple(urls):
                dialler.urls = tuple(urls)
                dialler.redial()
            dialler.name = names.get(member) or dialler.name

    def _part_with_others(self, member: int, incarnation: int) -> None:
        # S1: a link was judged when it began. Two directories of a member that never joined may each have been let in
        # by somebody; from the publication on one of them alone counts, and what the other acknowledged is void.
        dialler, inbound = self._diallers.get(member), self._inbound.get(member)
        if dialler is not None and dialler.link is not None and dialler.incarnation != incarnation:
            dialler.drop()
        if inbound is not None and inbound.incarnation != incarnation:
            self._hang_up(member, "the member is known with another data directory")

    def _hang_up(self, member: int, reason: str) -> None:
        """End a member's own link; nothing that came on it is taken any more."""
        inbound = self._inbound.pop(member, None)
        if inbound is not None:
            inbound.link.close(CLOSE_POLICY, reason)

    def send(self, messages: Sequence[PeerMessage]) -> None:
        """Send each message to its `to` with the next `turn`; what has no link is dropped."""
        for message in messages:
            dialler = self._diallers.get(message.to)
            if dialler is not None:
                dialler.post(message)
                self._touched[dialler] = None

    def turn(self) -> bool:
        """Encode and send what was given since the last turn: a frame a member."""
        if self._touched:
            touched, self._touched = self._touched, {}
            for dialler in touched:
                dialler.flush()
        return False

    def is_linked(self, member: int) -> bool:
        """Tell whether this node's link to `member` stands."""
        dialler = self._diallers.get(member)
        return dialler is not None and dialler.link is not None

    def missing(self) -> list[int]:
        """Return the members to which no link stands."""
        return [member for member, dialler in self._diallers.items() if dialler.link is None]

    def traffic(self) -> dict[int, tuple[int, int]]:
        """Return the bytes of messages that were sent to each of the others, and that came from it."""
        return {
            member: (dialler.sent_bytes, self._received_bytes[member]) for member, dialler in self._diallers.items()
        }

    async def run(self) -> None:
        """Keep a link to every member standing, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for dialler in self._diallers.values():
                nursery.start_soon(dialler.run)
            await trio.sleep_forever()

    # ---- links that this node dials

    async def probe(self, urls: Sequence[str], timeout_s: float) -> list[Welcome | Refusal]:
        """Ask every URL who answers there, and return the answers of those that can be reached (S1)."""
        answers: list[Welcome | Refusal] = []

        async def ask(url: str) -> None:
            try:
                link, welcome = await self._open(0, url, Purpose.PROBE)
            except HelloRefused as error:
                answers.append(error.refusal)
            except LinkFailed:
                return
            else:
                link.close()
                link.abort()
                answers.append(welcome)

        with trio.move_on_after(timeout_s):
            async with trio.open_nursery() as nursery:
                for url in urls:
                    nursery.start_soon(ask, url)
        return answers

    async def open_snapshot_link(self, member: int) -> Link:
        """Return a link of its own for a snapshot to `member`. Raises `LinkFailed`."""
        dialler = self._diallers.get(member)
        if dialler is None:
            raise LinkFailed(f"{member:x} is not a member that this node dials")
        link, _, _ = await self.open(member, dialler.urls, Purpose.SNAPSHOT)
        return link

    async def open(self, member: int, urls: Sequence[str], purpose: Purpose) -> tuple[Link, Welcome, str]:
        """Return a new link to `member`, its welcome, and the first of `urls` that served. Raises `LinkFailed`."""
        failures: list[LinkFailed] = []
        for url in urls:
            try:
                return *await self._open(member, url, purpose), url
            except HelloRefused:
                raise
            except LinkFailed as error:
                failures.append(error)
        raise LinkFailed("; ".join(map(str, failures)), is_refused=all(error.is_refused for error in failures))

    async def _open(self, member: int, url: str, purpose: Purpose) -> tuple[Link, Welcome]:
        with trio.move_on_after(PEER_DIAL_TIMEOUT_S):
            link = await self.network.dial(url)
            try:
                return link, await self._say_hello(link, member, url, purpose)
            except LinkClosed as error:
                raise LinkFailed(f"{url}: {error}") from error
            except DecodeError as error:
                raise LinkFailed(f"{url}: not an answer to a hello: {error}") from error
            except BaseException:
                link.close(CLOSE_POLICY)
                link.abort()
                raise
        raise LinkFailed(f"{url}: no answer to the hello within {PEER_DIAL_TIMEOUT_S:g} s")

    async def _say_hello(self, link: Link, member: int, url: str, purpose: Purpose) -> Welcome:
        hello = self.handler.hello(member, purpose)
        link.send(encode_hello(hello))
        answer = decode_answer(await link.recv())
        if isinstance(answer, Refusal):
            raise HelloRefused(url, answer, is_theirs=True)
        refusal = check_welcome(answer, member, self.handler.local_view())
        if refusal is not None:
            raise HelloRefused(url, refusal, is_theirs=False)
        return self._take_welcome(answer)

    def _take_welcome(self, welcome: Welcome) -> Welcome:
        # S1: who answered is durable here before a message goes to it.
        try:
            self.handler.remember_peer(welcome.member, welcome.incarnation, welcome.boot, welcome.nonce)
        except DiskFullError as error:
            raise LinkFailed(f"{_FULL}: {error}") from error
        inbound = self._inbound.get(welcome.member)
        if inbound is not None and inbound.boot < welcome.boot:
            inbound.link.abort()
        if welcome.cluster_id:
            self.handler.told(welcome)
        return welcome

    # ---- links that others dial

    async def accept(self, link: Link) -> None:
        """Serve one link that another member dialled, to its end; it ends alone (law 7)."""
        async with link:
            try:
                hello = await self._meet(link)
                if hello is not None:
                    await self._serve(link, hello)
            except NodeError:
                raise
            except Exception as error:
                self.log("peer.task.failed", member=0, name=link.peer, error=error)
                link.close(CLOSE_INTERNAL, "a mistake of this node, see its log")

    async def _meet(self, link: Link) -> Hello | None:
        """Take the hello and answer it; return None if its sender is not let in."""
        why = f"no hello came within {PEER_DIAL_TIMEOUT_S:g} s"
        hello: Hello | None = None
        try:
            with trio.move_on_after(PEER_DIAL_TIMEOUT_S):
                hello = decode_hello(await link.recv())
        except LinkClosed as error:
            # A port check, a scan, or a dialler that was cut off: again and again, and nobody was turned away.
            self.log("peer.hello.missing", peer=link.peer, reason=str(error))
            return None
        except DecodeError as error:
            why = str(error)
        if hello is None:
            self.log("peer.hello.refused", peer=link.peer, member=None, name=None, code="malformed", reason=why)
            link.close(CLOSE_INVALID_DATA, why[:100])
            return None
        answer = judge(hello, self.handler.local_view())
        if isinstance(answer, Welcome) and hello.member:
            # S1: who said hello is durable here before it is answered.
            try:
                self.handler.remember_peer(hello.member, hello.incarnation, hello.boot, hello.nonce)
            except DiskFullError as error:
                # S16: a full disk ends no node; and those that have a link already go on.
                answer = Refusal(RefusalCode.NOT_READY, f"{_FULL}: {error}")
        if isinstance(answer, Refusal):
            self._turn_away(link, hello, answer)
            return None
        link.send(encode_answer(answer))
        return hello

    def _turn_away(self, link: Link, hello: Hello, refusal: Refusal) -> None:
        self.log(
            "peer.hello.refused",
            peer=link.peer,
            member=hello.member,
            name=hello.name,
            code=str(refusal.code),
            reason=refusal.text,
        )
        link.send(encode_answer(refusal))
        link.close(CLOSE_POLICY)

    async def _serve(self, link: Link, hello: Hello) -> None:
        if hello.purpose is Purpose.SNAPSHOT and self.snapshots is not None:
            await self.snapshots.receive(link, hello.member)
        elif hello.purpose is Purpose.MESSAGES and hello.member:
            await self._take_messages(link, hello)
        else:
            # A probe, or one that came to be told its member id: the welcome was all it wanted.
            with trio.move_on_after(PEER_DIAL_TIMEOUT_S):
                await _wait_end(link)

    async def _take_messages(self, link: Link, hello: Hello) -> None:
        member = hello.member
        inbound = _Inbound(link, hello.incarnation, hello.boot, self.handler.local_view().member_id)
        self._replace(member, inbound)
        self.log("peer.link.accepted", member=member, name=hello.name, peer=link.peer, boot=hello.boot)
        self.handler.introduced(
            Introduction(
                member,
                hello.incarnation,
                hello.boot,
                hello.name,
                hello.peer_urls,
                hello.client_urls,
                hello.last_index,
            )
        )
        try:
            end = await self._read(inbound, member)
        finally:
            if self._inbound.get(member) is inbound:
                del self._inbound[member]
        self.log(
            "peer.link.lost",
            member=member,
            name=hello.name,
            direction="in",
            end=end.end.value,
            reason=end.reason,
        )
        self.handler.link_broken(member, False)
        dialler = self._diallers.get(member)
        if dialler is not None and end.end in (LinkEnd.BROKEN, LinkEnd.PEER):
            dialler.redial(has_broken=True)

    def _replace(self, member: int, inbound: _Inbound) -> None:
        """S2: the newer link takes the place of the older one, and a newer boot that of its own older links."""
        older = self._inbound.get(member)
        self._inbound[member] = inbound
        if older is not None:
            older.link.close(CLOSE_GOING_AWAY, "a newer link took its place")
        dialler = self._diallers.get(member)
        if dialler is None:
            return
        if dialler.link is not None and dialler.boot < inbound.boot:
            dialler.drop()
        dialler.redial()

    async def _read(self, inbound: _Inbound, member: int) -> LinkClosed:
        link = inbound.link

        def take(messages: list[bytes]) -> None:
            for data in messages:
                self._received_bytes[member] += len(data)
                # S2: once another link has taken its place, what still lies in this one would come out of order.
                if self._inbound.get(member) is inbound:
                    self.handler.received(member, _checked(data, member, inbound.own_id))

        try:
            return await link.deliver(take)
        except ProtocolViolation as error:
            self.log("peer.message.refused", member=member, peer=link.peer, error=error)
            link.close(CLOSE_INVALID_DATA, str(error)[:100])
            return LinkClosed(CLOSE_INVALID_DATA, str(error), LinkEnd.MISUSED)

    # ---- what diallers say

    def link_up(self, member: int) -> None:
        """See `Switchboard`."""
        self.handler.link_up(member)

    def link_broken(self, member: int, is_refused: bool) -> None:
        """See `Switchboard`."""
        self.handler.link_broken(member, is_refused)

    def refused(self, member: int, refusal: Refusal) -> None:
        """See `Switchboard`."""
        self.handler.refused(member, refusal)


def _checked(data: bytes, member: int, own_id: int) -> list[PeerMessage]:
    """Decode a frame. Raises `ProtocolViolation`, also for what is not the peer's to say."""
    messages = decode_frame(data)
    for message in messages:
        # S2: a link speaks for its dialler alone, to this member alone.
        if message.sender != member:
            raise ProtocolViolation(f"a message of {message.sender:x} on the link of {member:x}")
        if message.to != own_id:
            raise ProtocolViolation(f"a message to {message.to:x}, and this is {own_id:x}")
    return messages


async def _wait_end(link: Link) -> None:
    try:
        await link.recv_many()
    except LinkClosed:
        return

"""A network in memory, between processes that can be cut off from each other, in each direction alone.

What is sent over a link that is cut is neither lost nor told of: it waits, as TCP's bytes do, until the cut heals or
an end gives the link up. A process that dies is seen by those that can reach it, as a reset, and its port refuses.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Final

import trio
from attrs import define, field

from coord.transport.link import Link, LinkFailed, Patience
from coord.transport.memory import MemoryLink

DELAY_S_MIN: Final = 0.0002
DELAY_S_MAX: Final = 0.003
"""Bounds of the one-way delay of a link that nothing is done to."""


@define(eq=False)
class Port:
    """A listening port: what was dialled waits here until its process takes it, as in a kernel's backlog."""

    owner: str
    backlog: deque[MemoryLink] = field(factory=deque)
    arrived: trio.Event = field(factory=trio.Event)

    async def accept(self) -> MemoryLink:
        """Return the next link that somebody dialled."""
        while not self.backlog:
            self.arrived = trio.Event()
            await self.arrived.wait()
        return self.backlog.popleft()


class _SimLink(MemoryLink):
    """One end of a link, which tells its network of what is sent."""

    def __init__(self, network: SimNetwork, name: str, peer: str, subprotocol: str, patience: Patience | None) -> None:
        super().__init__(name, peer, subprotocol, patience)
        self._network = network

    def send(self, message: bytes) -> None:
        """See `Link.send`."""
        if self.closed is None:
            self._network.on_send(self, message)
        super().send(message)


@define(eq=False)
class SimNetwork:
    """All links of a simulation. Processes are known by name, ports by URL."""

    chance: random.Random
    patience: Patience | None = None
    on_send: Callable[[MemoryLink, bytes], None] = lambda link, message: None
    """Gets each message when it leaves its process."""
    ports: dict[str, Port] = field(factory=dict)
    dialled: int = 0
    _links: dict[MemoryLink, str] = field(factory=dict)
    """Both ends of every link that may still carry something, and the port that was dialled."""
    _cuts: set[tuple[str, str]] = field(factory=set)
    _stopped: set[str] = field(factory=set)
    _hushed: set[str] = field(factory=set)
    _slow_s: dict[tuple[str, str], float] = field(factory=dict)
    _changed: trio.Event = field(factory=trio.Event)

    def endpoint(self, name: str, subprotocol: str, patience: Patience | None = None) -> Endpoint:
        """Return what the process `name` dials with; a `patience` other than the network's is that of both ends."""
        return Endpoint(self, name, subprotocol, patience)

    def listen(self, name: str, url: str) -> Port:
        """Open a port of the process `name`."""
        port = self.ports[url] = Port(name)
        return port

    def close(self, url: str) -> None:
        """Close a port; links through it go on."""
        self.ports.pop(url, None)

    # -- faults ---------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """The process is dead: its ports are closed, and its links end for those who can hear it."""
        self.ports = {url: port for url, port in self.ports.items() if port.owner != name}
        self.resume(name)
        for link in self._links:
            if link.name == name:
                link.abort()

    def cut(self, sender: str, receiver: str) -> None:
        """Let nothing pass from one process to another."""
        self._cuts.add((sender, receiver))
        self._update()

    def heal(self, sender: str | None = None, receiver: str | None = None) -> None:
        """Take back the cuts from `sender` to `receiver`; None stands for all."""
        self._cuts = {cut for cut in self._cuts if not (sender in (None, cut[0]) and receiver in (None, cut[1]))}
        self._update()

    def stop(self, name: str) -> None:
        """Nothing leaves a stopped process; what comes waits for it."""
        self._stopped.add(name)
        self._update()

    def resume(self, name: str) -> None:
        """Take back `stop`."""
        self._stopped.discard(name)
        self._update()

    def hush(self, url: str) -> None:
        """Let nothing pass through a port, either way."""
        self._hushed.add(url)
        self._update()

    def unhush(self, url: str) -> None:
        """Take back `hush`."""
        self._hushed.discard(url)
        self._update()

    def reset(self, one: str, other: str) -> int:
        """Break all links between two processes; return how many."""
        broken = [link for link in self._links if {link.name, link.peer} == {one, other} and link.closed is None]
        for link in broken:
            link.abort()
        return len(broken)

    def slow(self, sender: str, receiver: str, delay_s: float) -> None:
        """Delay everything from one process to another by so much; 0 takes it back."""
        self._slow_s[sender, receiver] = delay_s
        for link in self._links:
            if (link.name, link.peer) == (sender, receiver):
                link.delay_s = self._delay_s(link)

    @property
    def slowed(self) -> list[tuple[str, str]]:
        """Who is delayed to whom."""
        return [pair for pair, delay_s in self._slow_s.items() if delay_s]

    def is_cut(self, sender: str, receiver: str) -> bool:
        """Tell whether nothing passes from one process to another."""
        return (sender, receiver) in self._cuts or sender in self._stopped

    # -- links ----------------------------------------------------------------------------------------------------

    async def dial(self, name: str, url: str, subprotocol: str, patience: Patience | None = None) -> Link:
        """Return a link from the process `name` to whoever listens at `url`. Raises `LinkFailed`.

        While the way there or back is cut it waits, as TCP does, for as long as its caller does. A port of a stopped
        process takes links: its kernel lives.
        """
        await trio.sleep(self.chance.uniform(DELAY_S_MIN, 2 * DELAY_S_MAX))
        owner = self._owner(url)
        while (name, owner) in self._cuts or (owner, name) in self._cuts or url in self._hushed:
            await self._changed.wait()
        port = self.ports.get(url)
        if port is None:
            raise LinkFailed(f"{url}: connection refused", is_refused=True)
        self.dialled += 1
        near = _SimLink(self, name, port.owner, subprotocol, patience or self.patience)
        far = _SimLink(self, port.owner, name, subprotocol, patience or self.patience)
        near.other, far.other = far, near
        self._links = {link: port for link, port in self._links.items() if link.closed is None or link.buffered_bytes}
        for link in (near, far):
            self._links[link] = url
            link.delay_s = self._delay_s(link)
            link.is_held = self._is_held(link)
            link.is_stopped = link.name in self._stopped
        port.backlog.append(far)
        port.arrived.set()
        return near

    def _owner(self, url: str) -> str:
        """Return the host part: a process that is dead still has its place in the network."""
        return url.split("//")[-1].split(":")[0]

    def _delay_s(self, link: MemoryLink) -> float:
        base = self.chance.uniform(DELAY_S_MIN, DELAY_S_MAX)
        return base + self._slow_s.get((link.name, link.peer), 0.0)

    def _is_held(self, link: MemoryLink) -> bool:
        return self._links[link] in self._hushed or self.is_cut(link.name, link.peer)

    def _update(self) -> None:
        for link in self._links:
            link.is_stopped = link.name in self._stopped
            is_held = self._is_held(link)
            if link.is_held != is_held:
                link.is_held = is_held
                if not is_held:
                    link.carry()
        self._changed.set()
        self._changed = trio.Event()


@define(eq=False)
class Endpoint:
    """One process's way to the network; what `coord.node.peers` calls a `Network`."""

    network: SimNetwork
    name: str
    subprotocol: str
    patience: Patience | None

    async def dial(self, url: str) -> Link:
        """See `Network`."""
        return await self.network.dial(self.name, url, self.subprotocol, self.patience)

"""Fake nodes behind links in memory, for the Trio client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import trio
from trio.testing import MockClock

import coord
from coord.client.client import Client, connect
from coord.client.endpoints import Endpoint
from coord.transport.link import Link, LinkClosed, LinkFailed, Patience
from coord.transport.memory import MemoryWire

from .fake_node import FakeNode, Session


class Network:
    """Endpoints and the nodes behind them; `dial` is what the client is given."""

    def __init__(self, nursery: trio.Nursery, nodes: dict[str, FakeNode]) -> None:
        self.nursery = nursery
        self.nodes = nodes
        self.down: set[str] = set()
        self.swallowing: set[str] = set()
        self.stopped: set[str] = set()
        """Take connections, as the kernel does for a stopped process, and say nothing on them."""
        self.patience: Patience | None = None
        """How long the links of clients trust a quiet node; None: for ever."""
        self.wires: list[tuple[str, MemoryWire]] = []
        self.dialled: list[str] = []

    async def dial(self, endpoint: Endpoint, timeout: float) -> Link:
        await trio.lowlevel.checkpoint()
        name = str(endpoint)
        self.dialled.append(name)
        if name in self.swallowing:
            await trio.sleep(timeout)
            raise LinkFailed(f"{name}: no answer within {timeout:g} s")
        if name in self.down or name not in self.nodes:
            raise LinkFailed(f"{name}: connection refused", is_refused=True)
        wire = MemoryWire(client="client", server=name, patience=self.patience)
        self.wires.append((name, wire))
        if name in self.stopped:
            return wire.client
        self.nursery.start_soon(self.serve, self.nodes[name], wire)
        return wire.client

    async def serve(self, node: FakeNode, wire: MemoryWire) -> None:
        session = Session(node, wire.server.send, wire.server.abort)
        session.open()
        try:
            while True:
                for message in await wire.server.recv_many():
                    session.receive(message)
        except LinkClosed:
            session.close()

    def stop(self, name: str) -> None:
        """Stop the process at `name`: its connections stand, and it says nothing on any."""
        self.stopped.add(name)
        for where, wire in self.wires:
            if where == name:
                wire.hold()

    def resume(self, name: str) -> None:
        """Let a stopped process go on; what was dialled meanwhile is forgotten."""
        self.stopped.discard(name)
        for where, wire in self.wires:
            if where == name:
                wire.release()

    def cut(self, name: str, *, is_down: bool = True) -> None:
        """Kill the node at `name`, or only its connections."""
        if is_down:
            self.down.add(name)
        for where, wire in self.wires:
            if where == name:
                wire.reset()


def a_network(nursery: trio.Nursery, *names: str) -> Network:
    """A network with a node of its own behind each name."""
    return Network(nursery, {name: FakeNode(member_id=number + 7) for number, name in enumerate(names)})


@asynccontextmanager
async def a_client(network: Network, **options: Any) -> AsyncIterator[Client]:
    async with connect(list(network.nodes), random=Random(4), dial=network.dial, **options) as client:
        yield client


def run(test: Callable[[trio.Nursery], Awaitable[None]]) -> None:
    """Run a test in virtual time, with a nursery for its servers that is cancelled at the end."""

    async def main() -> None:
        with trio.fail_after(3600):
            async with trio.open_nursery() as nursery:
                await test(nursery)
                nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def settle() -> None:
    """Let everything run that can."""
    await trio.testing.wait_all_tasks_blocked()


__all__ = ["Network", "a_client", "a_network", "coord", "run", "settle"]

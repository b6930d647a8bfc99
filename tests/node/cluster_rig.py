"""Three members in one Trio run and in virtual time, with what tests of them need."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from attrs import define, field
from trio.testing import MockClock

from coord.limits import PEER_PING_GIVE_UP_S, PEER_PING_IDLE_S
from coord.node.node import Node
from coord.testing.cluster_end import hash_of
from coord.testing.sim_network import SimNetwork
from coord.testing.sim_node import SimClient, SimHost, SimSettings
from coord.transport.link import Patience
from coord.types import Role

NAMES = ("n1", "n2", "n3")


@define(eq=False)
class Trial:
    """A cluster under test; members are known by name."""

    nursery: trio.Nursery
    network: SimNetwork
    hosts: dict[str, SimHost] = field(factory=dict)
    nodes: dict[str, Node] = field(factory=dict)
    """Those that run."""
    _scopes: dict[str, trio.CancelScope] = field(factory=dict)
    _ended: dict[str, trio.Event] = field(factory=dict)

    def add_host(self, name: str, names: tuple[str, ...] = NAMES, **settings: Any) -> SimHost:
        """Set a machine up."""
        told = SimSettings(name=name, names=names, network=self.network, **settings)
        self.hosts[name] = SimHost(len(self.hosts) + 1, told)
        return self.hosts[name]

    async def start(self, *names: str) -> None:
        """Start processes on what their disks hold; return when they can serve."""
        async with trio.open_nursery() as starting:
            for name in names:
                self._scopes[name], self._ended[name] = trio.CancelScope(), trio.Event()
                starting.start_soon(self.nursery.start, self._run, name)

    async def kill(self, name: str, *, power: bool = True) -> None:
        """End a process as kill -9 does, or as a power loss does."""
        self.network.kill(name)
        self.nodes.pop(name, None)
        self._scopes[name].cancel()
        await self._ended[name].wait()
        if power:
            self.hosts[name].lose_power()
        else:
            self.hosts[name].restart()

    def client(self, name: str) -> SimClient:
        """Return a client of one member."""
        return SimClient(self.nodes[name])

    async def leader(self, *, but: str = "", within_s: float = 10.0) -> str:
        """Return who leads, and is known to, in every process that runs, waiting for it."""
        with trio.fail_after(within_s):
            while True:
                led = {node.raft.leader_id for name, node in self.nodes.items() if name != but}
                for name, node in self.nodes.items():
                    if node.raft.role is Role.LEADER and led == {node.member_id} and node.leadership.is_leading:
                        return name
                await trio.sleep(0.005)

    async def joined(self, within_s: float = 10.0) -> None:
        """Wait until all that run know each member's data directory: till then not all acknowledgements count (S1)."""
        nodes = self.nodes.values()
        await until(
            lambda: all(node.machine.cluster_id and not node.raft.configuration.blank for node in nodes), within_s
        )

    async def agree(self, within_s: float = 30.0) -> None:
        """Wait until all that run have applied the same, and hold the same."""
        await until(lambda: len({node.machine.applied_index for node in self.nodes.values()}) == 1, within_s)
        hashes = {name: self.hash_of(name) for name in self.nodes}
        assert len(set(hashes.values())) == 1, hashes

    def hash_of(self, name: str) -> tuple[int, int]:
        """Return the hash of a member's keys and their history."""
        return hash_of(self.nodes[name].machine)

    def followers(self) -> list[str]:
        """Return those that run and do not lead."""
        return [name for name, node in self.nodes.items() if node.raft.role is not Role.LEADER]

    async def _run(self, name: str, task_status: trio.TaskStatus[None]) -> None:
        try:
            with self._scopes[name]:
                async with trio.open_nursery() as nursery:
                    self.nodes[name] = await nursery.start(self.hosts[name].run)
                    task_status.started()
        finally:
            self._ended[name].set()


async def until(is_so: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait until something is so."""
    with trio.fail_after(within_s):
        while True:
            if is_so():
                return
            await trio.sleep(0.005)


Story = Callable[[Trial], Awaitable[None]]


def play_three(story: Story, *, start: tuple[str, ...] = NAMES, limit_s: float = 1_000.0, **settings: Any) -> Trial:
    """Tell a story of three members in virtual time. If all start, it begins when all have joined.

    Till then the loss of one can be that of a quorum (S1), and each story would have to be true of that too.
    """
    trials: list[Trial] = []

    async def main() -> None:
        with trio.fail_after(limit_s):
            async with trio.open_nursery() as nursery:
                patience = Patience(PEER_PING_IDLE_S, PEER_PING_GIVE_UP_S)
                trial = Trial(nursery, SimNetwork(random.Random(1), patience))
                trials.append(trial)
                for name in NAMES:
                    trial.add_host(name, **settings)
                await trial.start(*start)
                if start == NAMES:
                    await trial.joined()
                await story(trial)
                nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return trials[0]

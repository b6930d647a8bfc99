"""Programs beside a simulated cluster: what coord's users write, as processes that can be paused, cut off and killed.

A program is a task with all that it starts. Its clients are coord's own, whose links go through the simulated network
under the program's name.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import trio
from attrs import define, field

from coord.client.client import connect
from coord.client.endpoints import Endpoint
from coord.protocol.ops import SUBPROTOCOL
from coord.testing.deterministic import Freezer, fork, process
from coord.testing.sim_network import SimNetwork
from coord.testing.sim_node import client_url
from coord.transport.link import CLIENT_PATIENCE, Link, LinkFailed

OUTSIDE: Final = "test"
"""The name, in the network, of clients that belong to no program."""


@define(eq=False)
class Program:
    """One run of a program; made by `Cluster.launch`."""

    name: str
    process: str
    """Its name and which run of it this is: what was killed stays where it is, while another run begins."""
    is_paused: bool = False
    is_killed: bool = False
    ended: trio.Event = field(factory=trio.Event)
    """Set when it has returned, or was killed."""


@define(eq=False)
class Programs:
    """All programs of a simulation, by name the newest run of each."""

    network: SimNetwork
    freezer: Freezer
    chance: random.Random
    by_name: dict[str, Program] = field(factory=dict)
    _launched: int = 0

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def make(self, name: str) -> Program:
        """Make a run of the program `name`; the one before must have ended."""
        before = self.by_name.get(name)
        if before is not None and not before.ended.is_set():
            raise ValueError(f"{name} is running")
        self._launched += 1
        program = self.by_name[name] = Program(name, f"{name}#{self._launched}")
        return program

    async def run(self, program: Program, main: Callable[[], Awaitable[object]]) -> None:
        """Run a program to its end. What it raises comes out, unless it was killed."""
        process.set(program.process)
        try:
            await main()
        except Exception:
            if not program.is_killed:
                raise
        finally:
            program.ended.set()

    def pause(self, name: str) -> None:
        """Stop a program where it is, as SIGSTOP does; its links stay open, and silent."""
        program = self.by_name[name]
        if not program.ended.is_set():
            program.is_paused = True
            self.network.stop(name)
            self.freezer.freeze(program.process)

    def resume(self, name: str) -> None:
        """Let a paused program go on."""
        program = self.by_name[name]
        if program.is_paused and not program.is_killed:
            program.is_paused = False
            self.network.resume(name)
            self.freezer.thaw(program.process)

    def kill(self, name: str) -> None:
        """End a program as SIGKILL does: its links break, and nothing of it runs again, no `finally` either."""
        program = self.by_name[name]
        if not program.ended.is_set():
            program.is_killed = True
            self.network.kill(name)
            self.freezer.freeze(program.process)
            program.ended.set()

    def client(self, endpoints: Sequence[str], name: str, **options: Any) -> connect:
        """Return a client of the running program or, outside of all, of one that is called `name`."""
        program = process.get().partition("#")[0] or name or OUTSIDE
        endpoint = self.network.endpoint(program, SUBPROTOCOL, CLIENT_PATIENCE)

        async def dial(to: Endpoint, timeout: float) -> Link:
            with trio.move_on_after(timeout):
                return await endpoint.dial(client_url(to.host))
            raise LinkFailed(f"{to}: no answer within {timeout:g} s")

        clock = options.pop("clock", trio.current_time)
        return connect(endpoints, name=name or program, random=fork(self.chance), dial=dial, clock=clock, **options)

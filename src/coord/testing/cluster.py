"""A cluster in one process and in virtual time: real nodes on simulated machines, and the faults to put them through.

    async def test() -> None:
        async with open_cluster(3, seed=1) as cluster:
            leader = await cluster.leader()
            await cluster.kill(leader)
            await cluster.advance(2.0)
            assert await cluster.leader() != leader

    run_seeded(1, test)

Members are known by name: n1, n2, n3 … Everything that happens follows from the seed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import Enum
from functools import partial
from typing import Any, Final

import trio
from attrs import define, field

from coord.client.client import Client
from coord.errors import CoordError, DataDirError, DiskError
from coord.limits import PEER_PING_GIVE_UP_S, PEER_PING_IDLE_S
from coord.node.node import Node
from coord.raft.types import Entry
from coord.testing.cluster_connection import Connection
from coord.testing.cluster_host import ClusterHost, TracingLog
from coord.testing.cluster_programs import Program, Programs
from coord.testing.deterministic import Freezer, fork, process
from coord.testing.history_ledger import Ledger
from coord.testing.sim_disk import SimDisk, SyncFailure
from coord.testing.sim_network import SimNetwork
from coord.testing.sim_node import SimSettings, client_url
from coord.testing.witness import Witness
from coord.transport.link import Patience
from coord.transport.memory import MemoryLink
from coord.types import Role

PATIENCE: Final = Patience(PEER_PING_IDLE_S, PEER_PING_GIVE_UP_S)
FAILURE_WITHIN_S: Final = 2.0
"""A member that writes nothing for so long is killed instead."""
STOP_WITHIN_S: Final = 10.0
"""A member that is told to stop, or was removed, ends after so long whatever it has left to do."""
LEADER_WAIT_S: Final = 30.0
"""Of virtual time; a cluster with a quorum has a leader long before."""


class State(Enum):
    """What became of a member's process."""

    DOWN = "down"
    UP = "up"
    PAUSED = "paused"


@define(eq=False)
class Member:
    """A member's machine, and the process on it while there is one."""

    name: str
    host: ClusterHost
    state: State = State.DOWN
    node: Node | None = None
    """The node while it serves."""
    connections: dict[Connection, None] = field(factory=dict)
    starts: int = 0
    may_fail: bool = False
    """Its disk was told to fail, which ends a node (law 7)."""
    is_wiped: bool = False
    """Its disk was emptied, so that the others refuse it, which ends a node too (S1)."""
    is_unheard: bool = False
    """Nothing passes between it and its clients."""
    heard: trio.Event = field(factory=trio.Event)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    ended: trio.Event = field(factory=trio.Event)

    @property
    def disk(self) -> SimDisk:
        """See `Machine`."""
        return self.host.disk

    @property
    def member_id(self) -> int:
        """See `Machine`."""
        return self.host.directory.identity.member if self.starts else 0


class Cluster:
    """See the module's docstring; made by `open_cluster`."""

    def __init__(
        self,
        size: int,
        seed: int,
        nursery: trio.Nursery,
        trace: Callable[..., None],
        **options: Any,
    ) -> None:
        self.chance = random.Random(seed)
        self.trace = trace
        self.ledger = Ledger()
        self.freezer = Freezer()
        self.witness = Witness()
        self.network = SimNetwork(fork(self.chance), PATIENCE, self._sent)
        self.programs = Programs(self.network, self.freezer, random.Random(seed))
        self._nursery = nursery
        self._options = options
        self.happened: Counter[str] = Counter()
        """How often the nodes told of each kind of event."""
        names = tuple(f"n{place + 1}" for place in range(size))
        self._made = size
        self.members: dict[str, Member] = {}
        self.processes: list[Member] = []
        """All members, for clients to choose from."""
        for name in names:
            self._make(name, names)

    def _make(self, name: str, names: tuple[str, ...], *, is_existing: bool = False) -> None:
        settings = SimSettings(name, names, self.network, is_existing, options=self._options, on_node=self._hook)
        log = TracingLog(name, self.trace, self.happened)
        member = Member(name, ClusterHost(self.chance.getrandbits(64), settings, log))
        self.members[name] = member
        self.processes.append(member)

    # -- members --------------------------------------------------------------------------------------------------

    def new_name(self) -> str:
        """Return a name that no member ever had."""
        self._made += 1
        return f"n{self._made}"

    def add(self, name: str) -> None:
        """Set up a machine with an empty disk for a member that is to join; one of that name must be down."""
        if name in self.members:
            self.retire(name)
        self._make(name, (*self.members, name), is_existing=True)

    def retire(self, name: str) -> None:
        """Forget a machine whose member was removed, and whose process has ended."""
        member = self.members.pop(name)
        if member.state is not State.DOWN:
            raise ValueError(f"{name} is {member.state.value}")
        self.processes.remove(member)

    # -- processes ------------------------------------------------------------------------------------------------

    async def start(self, name: str) -> None:
        """Start a member's process on what its disk holds; return when it serves its clients.

        Raises `DataDirError` if the others do not let it in.
        """
        member = self.members[name]
        if member.state is not State.DOWN:
            raise ValueError(f"{name} is {member.state.value}")
        member.state = State.UP
        member.starts += 1
        member.scope, member.ended = trio.CancelScope(), trio.Event()
        self.trace("start", member=name)
        try:
            await self._nursery.start(self._run, member)
        except Exception as error:
            if not isinstance(inner := innermost(error), DataDirError):
                raise
            member.state = State.DOWN
            member.host.restart()
            raise inner from None

    async def stop(self, name: str) -> None:
        """End a member's process in order, as SIGTERM does."""
        member = self.members[name]
        if member.state is State.UP and member.node is not None:
            self.trace("stop", member=name)
            await self._end(member, member.node)
            await member.ended.wait()
            member.host.restart()

    async def kill(self, name: str, *, power: bool = True) -> None:
        """End a process with no word to anybody; with `power`, a member's machine forgets what was not synced."""
        if name in self.programs:
            self.trace("kill", program=name)
            self.programs.kill(name)
            await trio.lowlevel.checkpoint()
            return
        member = self.members[name]
        if member.state is State.DOWN:
            return
        self.trace("kill", member=name, power=power)
        self._die(member)
        member.scope.cancel()
        self.freezer.thaw(name)
        await member.ended.wait()
        if power:
            member.host.lose_power()
        else:
            member.host.restart()

    def pause(self, name: str) -> None:
        """Stop a process where it is, as SIGSTOP does."""
        if name in self.programs:
            self.trace("pause", program=name)
            self.programs.pause(name)
            return
        member = self.members[name]
        if member.state is State.UP:
            self.trace("pause", member=name)
            member.state = State.PAUSED
            self.network.stop(name)
            self.freezer.freeze(name)

    def resume(self, name: str) -> None:
        """Let a paused process go on."""
        if name in self.programs:
            self.trace("resume", program=name)
            self.programs.resume(name)
            return
        member = self.members[name]
        if member.state is State.PAUSED:
            self.trace("resume", member=name)
            member.state = State.UP
            self.network.resume(name)
            self.freezer.thaw(name)

    async def wipe(self, name: str) -> None:
        """Kill a member and empty its disk."""
        await self.kill(name)
        self.trace("wipe", member=name)
        self.members[name].host.wipe()
        self.members[name].is_wiped = True

    def slow_disk(self, name: str, delay_s_max: float | None = None, *, log_only: bool = False) -> None:
        """Let what a member's process writes, or only its log, take up to so long; None, or a new start: as usual."""
        self.trace("slow disk", member=name, delay_s_max=delay_s_max, log_only=log_only)
        self.members[name].host.slow_down(delay_s_max, log_only=log_only)

    async def fail_disk(self, name: str) -> None:
        """Fail one of the next syncs of a member's disk; return when its process has ended, by that or by a kill."""
        member = self.members[name]
        disk = member.host.disk
        self.trace("fail disk", member=name)
        member.may_fail = True
        disk.sync_failure = self.chance.choice(tuple(SyncFailure))
        disk.fail_sync_at = self.chance.randint(1, 4)
        with trio.move_on_after(FAILURE_WITHIN_S):
            await member.ended.wait()
        disk.fail_sync_at = None
        await self.kill(name)
        member.may_fail = False
        member.host.lose_power()

    # -- network --------------------------------------------------------------------------------------------------

    def cut(self, sender: str, receiver: str) -> None:
        """Let nothing pass from one process to another."""
        self.trace("cut", sender=sender, receiver=receiver)
        self.network.cut(sender, receiver)

    def partition(self, *groups: Collection[str]) -> None:
        """Let nothing pass between the groups; a member in none of them is alone, a program in none reaches all."""
        sides = [set(group) for group in groups]
        names = dict.fromkeys([*self.members, *(name for group in groups for name in group)])
        for one in names:
            for other in names:
                if one != other and not any({one, other} <= side for side in sides):
                    self.cut(one, other)

    def silence(self, name: str) -> None:
        """Let nothing pass between a member and its clients; both keep what they have sent."""
        self.trace("silence", member=name)
        member = self.members[name]
        if not member.is_unheard:
            member.is_unheard, member.heard = True, trio.Event()
            self.network.hush(client_url(name))

    def unsilence(self, name: str) -> None:
        """Take back `silence`."""
        member = self.members.get(name)
        if member is not None and member.is_unheard:
            self.trace("unsilence", member=name)
            member.is_unheard = False
            member.heard.set()
            self.network.unhush(client_url(name))
            for connection in tuple(member.connections):
                connection.hear()

    def reset(self, one: str, other: str) -> None:
        """Break all links between two processes; what is on its way is lost."""
        self.trace("reset", one=one, other=other)
        self.network.reset(one, other)

    def slow(self, sender: str, receiver: str, delay_s: float) -> None:
        """Let what one process sends to another take so much longer; 0: as usual."""
        self.trace("slow", sender=sender, receiver=receiver, delay_s=delay_s)
        self.network.slow(sender, receiver, delay_s)

    def heal(self) -> None:
        """Take back all cuts and delays."""
        self.trace("heal")
        self.network.heal()
        for one in self.members:
            for other in self.members:
                self.network.slow(one, other, 0.0)
        for one, other in self.network.slowed:
            self.network.slow(one, other, 0.0)

    # -- what there is --------------------------------------------------------------------------------------------

    async def advance(self, seconds: float) -> None:
        """Let virtual time pass."""
        await trio.sleep(seconds)

    async def leader(self, within_s: float = LEADER_WAIT_S) -> str:
        """Return who leads, waiting for one who does. Raises `trio.TooSlowError`."""
        with trio.fail_after(within_s):
            while (name := self.leader_now()) is None:  # noqa: ASYNC110  # virtual time
                await trio.sleep(0.01)
        return name

    def leader_now(self) -> str | None:
        """Return the living leader of the highest term, or None."""
        leading = [
            (member.node.raft.term, member.name)
            for member in self.members.values()
            if member.state is State.UP and member.node is not None and member.node.raft.role is Role.LEADER
        ]
        return max(leading)[1] if leading else None

    def node(self, name: str) -> Node:
        """Return a member's node. Raises `CoordError` if it does not serve."""
        node = self.members[name].node
        if node is None:
            raise CoordError(f"{name} is {self.members[name].state.value}")
        return node

    def connection(self, name: str) -> Connection:
        """Return a bare connection to a member, which retries nothing; it ends with the member's process."""
        return Connection(self.members[name], fork(self.chance))

    # -- clients --------------------------------------------------------------------------------------------------

    def client(
        self, name: str = "", *, endpoints: Sequence[str] = (), **options: Any
    ) -> AbstractAsyncContextManager[Client]:
        """Return a client of some members, by default all: `async with cluster.client() as client`.

        It is `coord.connect` but for its links, which go through the simulated network: under the name of the program
        that calls, or of none under `name`. `options` are those of `coord.connect`.
        """
        return self.programs.client(endpoints or self.names, name, **options)

    def launch(self, name: str, function: Callable[..., Awaitable[object]], *arguments: Any, **named: Any) -> Program:
        """Run `await function(…)` as a program, which `pause`, `kill`, `cut` and others know by its name."""
        if name in self.members:
            raise ValueError(f"{name} is a member")
        self.trace("launch", program=name)
        program = self.programs.make(name)
        self._nursery.start_soon(self.programs.run, program, partial(function, *arguments, **named), name=name)
        return program

    @property
    def names(self) -> list[str]:
        """All members."""
        return list(self.members)

    def in_state(self, state: State) -> list[str]:
        """Return the members whose processes are in a state."""
        return [member.name for member in self.members.values() if member.state is state]

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _run(self, member: Member, task_status: trio.TaskStatus[None]) -> None:
        process.set(member.name)
        try:
            with member.scope:
                async with trio.open_nursery() as nursery:
                    node = await nursery.start(member.host.run)
                    member.node = node
                    task_status.started()
                    await node.removed.wait()
                    await self._end(member, node)
        except* DataDirError:
            if member.node is None or not member.is_wiped:
                raise
            self._die(member)
        except* DiskError:
            if not member.may_fail:
                raise
            self._die(member)
        finally:
            member.node = None
            member.ended.set()

    async def _end(self, member: Member, node: Node) -> None:
        with trio.move_on_after(STOP_WITHIN_S):
            await member.host.leave(node)
        if member.node is node:
            self._die(member)
            member.scope.cancel()

    def _die(self, member: Member) -> None:
        """Let the others see that a process has ended."""
        member.state = State.DOWN
        self.network.kill(member.name)
        for connection in tuple(member.connections):
            connection.lose()

    def _hook(self, name: str, node: Node) -> None:
        """Listen to what a node commits and logs."""
        outlets = node.consensus.outlets
        to_applier = outlets.to_applier

        def commit(entries: Sequence[Entry]) -> None:
            now = trio.current_time()
            for index, term, data in entries:
                if index not in self.ledger.entries:
                    machines = self.members.values()
                    self.witness.committed(machines, node.raft.configuration, index, term)
                self.ledger.commit(name, index, term, data, now)
            to_applier(entries)

        outlets.to_applier = commit

    def _sent(self, link: MemoryLink, message: bytes) -> None:
        member = self.members.get(link.name)
        # What is said in a dead member's name is not its own.
        if member is not None and member.state is not State.DOWN:
            self.witness.sent(member, link, message)


def innermost(error: BaseException) -> BaseException:
    """Return the first error that is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def leaves(error: BaseException) -> list[BaseException]:
    """Return all errors of a group that are no groups."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in leaves(inner)]


@asynccontextmanager
async def open_cluster(
    size: int = 3, *, seed: int = 0, trace: Callable[..., None] = lambda what, **fields: None, **options: Any
) -> AsyncIterator[Cluster]:
    """Start a cluster of `size` members; `options` are those of a node. It ends with the block.

    What the block, a member or a program raises comes out as it is, in a group only if there is more than one.
    """
    try:
        async with trio.open_nursery() as nursery:
            cluster = Cluster(size, seed, nursery, trace, **options)
            async with trio.open_nursery() as starting:
                for name in cluster.names:
                    starting.start_soon(cluster.start, name)
            try:
                yield cluster
            finally:
                nursery.cancel_scope.cancel()
                cluster.freezer.thaw_all()
    except BaseExceptionGroup as group:
        if len(leaves(group)) > 1:
            raise
        raise innermost(group) from None

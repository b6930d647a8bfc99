"""The processes of `coord dev`: nodes, the relays between them, and what is done to both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import trio
from attrs import define, field

import coord
from coord.cli.dev_board import Board, Condition, NodeState, Order, Verb
from coord.cli.dev_words import COLORS, is_shown, told
from coord.cli.relay import HOST, LinkFault, Relay
from coord.errors import CoordError
from coord.protocol.entries import initial_member_id

TOKEN: Final = "coord-dev"
PORT_STEP: Final = 10_000
STOP_TIMEOUT_S: Final = 12.0
"""A node takes at most 10 s to end in order."""
_STATUS_INTERVAL_S: Final = 0.25
_STATUS_TIMEOUT_S: Final = 1.0
_LINE_BYTES_MAX: Final = 1024 * 1024
_SILENT: Final = LinkFault(is_silent=True)
_SOUND: Final = LinkFault()


@define(eq=False)
class DevNode:
    """One node: where it is reached, and its process while there is one."""

    name: str
    client_port: int
    directory: Path
    process: trio.Process | None = None
    is_end_expected: bool = False

    @property
    def relay_port(self) -> int:
        """Where other members reach it."""
        return self.client_port + 1

    @property
    def peer_port(self) -> int:
        """Where it listens for them, behind its relay."""
        return self.client_port + 2

    @property
    def peer_url(self) -> str:
        """The URL that it advertises to other members."""
        return f"http://{HOST}:{self.relay_port}"

    @property
    def endpoint(self) -> str:
        """Where clients reach it."""
        return f"{HOST}:{self.client_port}"

    def command(self, initial_cluster: str, further: Sequence[str]) -> list[str]:
        """Return the command line that runs it."""
        return [
            sys.executable, "-m", "coord", "serve", f"--name={self.name}", f"--data-dir={self.directory}",
            f"--listen-client-urls=http://{self.endpoint}", f"--advertise-client-urls=http://{self.endpoint}",
            f"--listen-peer-urls=http://{HOST}:{self.peer_port}", f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={initial_cluster}", f"--initial-cluster-token={TOKEN}", "--log-format=json", *further,
        ]  # fmt: skip


def nodes_of(count: int, port: int, directory: Path) -> list[DevNode]:
    """Return `count` nodes: n1 with clients at `port`, each next one 10 000 above."""
    return [
        DevNode(f"n{number + 1}", port + number * PORT_STEP, directory / f"n{number + 1}") for number in range(count)
    ]


def board_of(nodes: Sequence[DevNode]) -> Board:
    """Return the board for these nodes; their member ids follow from the flags."""
    states = [NodeState(node.name, initial_member_id(TOKEN, node.name, [node.peer_url])) for node in nodes]
    return Board(states)


@define(eq=False)
class DevCluster:
    """Runs the nodes; `tell` writes a line, `changed` is called when the board did."""

    nodes: Sequence[DevNode]
    board: Board
    tell: Callable[[str], None]
    changed: Callable[[], None]
    is_colored: bool
    further_flags: Sequence[str] = ()
    has_met: trio.Event = field(factory=trio.Event)
    """Set once all nodes have followed one leader, each with a vote that counts."""
    relays: Mapping[str, Relay] = field(init=False)

    def __attrs_post_init__(self) -> None:
        names = {node.peer_url: node.name for node in self.nodes}
        self.relays = {node.name: Relay(node.relay_port, node.peer_port, names) for node in self.nodes}

    async def run(self, nursery: trio.Nursery) -> None:
        """Start relays and nodes in `nursery`."""
        for relay in self.relays.values():
            nursery.start_soon(relay.run)
        for node in self.nodes:
            nursery.start_soon(self._poll, node)
            await nursery.start(self._live, node)

    async def do(self, order: Order, nursery: trio.Nursery) -> None:
        """Do to a node what a key asked for."""
        node = next(node for node in self.nodes if node.name == order.node)
        state = self._state(node)
        self.tell(f"── {order.verb} {node.name}")
        match order.verb:
            case Verb.START:
                await nursery.start(self._live, node)
            case Verb.CUT | Verb.HEAL:
                self._set_links(node.name, _SILENT if order.verb is Verb.CUT else _SOUND)
                state.is_cut = order.verb is Verb.CUT
            case Verb.KILL:
                node.is_end_expected = True
                self._send(node, signal.SIGKILL)
            case Verb.PAUSE:
                self._send(node, signal.SIGSTOP)
                state.condition = Condition.PAUSED
            case Verb.RESUME:
                self._send(node, signal.SIGCONT)
                state.condition = Condition.RUNNING
        self.changed()

    async def stop(self) -> None:
        """End all nodes in order; those that hang are killed in the end."""
        for name in self.relays:
            self._set_links(name, _SOUND)
        for node in self.nodes:
            node.is_end_expected = True
            self._send(node, signal.SIGCONT)
            self._send(node, signal.SIGTERM)
        with trio.move_on_after(STOP_TIMEOUT_S):
            for node in self.nodes:
                if node.process is not None:
                    await node.process.wait()

    def kill_all(self) -> None:
        """End whatever still runs."""
        for node in self.nodes:
            node.is_end_expected = True
            self._send(node, signal.SIGKILL)

    def _send(self, node: DevNode, number: signal.Signals) -> None:
        if node.process is not None and node.process.returncode is None:
            node.process.send_signal(number)

    def _set_links(self, name: str, fault: LinkFault) -> None:
        """Spoil or heal all links of a node, in both directions, but for those whose other end is cut off as well."""
        for other in self.board.nodes:
            if other.name != name and not other.is_cut:
                self.relays[name].set_fault(other.name, fault)
                self.relays[other.name].set_fault(name, fault)

    def _state(self, node: DevNode) -> NodeState:
        return next(state for state in self.board.nodes if state.name == node.name)

    async def _live(self, node: DevNode, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """One life of a node's process."""
        initial = ",".join(f"{each.name}={each.peer_url}" for each in self.nodes)
        # Ctrl-C is for `coord dev` alone, which ends its nodes in order; options of theirs come from here alone.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("COORD_")}
        node.process = await trio.lowlevel.open_process(
            node.command(initial, self.further_flags),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environ,
            process_group=0,
        )
        node.is_end_expected = False
        state = self._state(node)
        state.condition = Condition.RUNNING
        task_status.started()
        assert node.process.stderr is not None
        await self._read(node, node.process.stderr)
        status = await node.process.wait()
        state.condition = Condition.DEAD
        self.board.saw(node.name)
        if not node.is_end_expected:
            self.tell(f"── {node.name} has ended with status {status}")
        self.changed()

    async def _read(self, node: DevNode, stream: trio.abc.ReceiveStream) -> None:
        rest = b""
        async for data in stream:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._tell_line(node, line.decode("utf-8", "replace"))
            rest = rest[:_LINE_BYTES_MAX]

    def _tell_line(self, node: DevNode, line: str) -> None:
        color = COLORS[self.nodes.index(node) % len(COLORS)]
        try:
            record: dict[str, Any] = json.loads(line)
        except ValueError:
            # What Python itself has to say, a traceback above all.
            self.tell(f"{node.name}  {line}")
            return
        if is_shown(record, self.board.shows_all):
            self.tell(told(record, color, self.board.names, self.is_colored))

    async def _poll(self, node: DevNode) -> None:
        """Ask a node how it stands, again and again."""
        while True:
            try:
                async with coord.connect(node.endpoint, timeout=_STATUS_TIMEOUT_S, name="coord dev") as client:
                    while True:
                        self._saw(node, await client.status())
                        await trio.sleep(_STATUS_INTERVAL_S)
            except CoordError:
                self.board.saw(node.name)
                self.changed()
            await trio.sleep(_STATUS_INTERVAL_S)

    def _saw(self, node: DevNode, status: coord.StatusResponse) -> None:
        self.board.saw(
            node.name,
            term=status.raft_term,
            leader_id=status.leader_id,
            revision=status.header.revision,
            errors=status.errors,
        )
        if self.board.is_whole:
            self.has_met.set()
        self.changed()

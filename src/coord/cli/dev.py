"""`coord dev`: a cluster in one terminal, with keys that kill, pause, cut off and bring back its nodes."""

from __future__ import annotations

import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import trio

from coord.cli.command import Command
from coord.cli.dev_board import HELP, Board, Verb
from coord.cli.dev_cluster import DevCluster, DevNode, board_of, nodes_of
from coord.cli.dev_screen import Screen
from coord.cli.failure import CommandError, bad_arguments
from coord.cli.flags import Flag, Parsed, int_value, text_value
from coord.cli.relay import HOST
from coord.cli.settings import Settings

NODES_MAX: Final = 5
_GREETING: Final = """
{count} nodes serve, with data in {directory}. Paste into another terminal, in this directory:

  export COORD_ENDPOINTS={endpoints}
  {coord} put greeting hello
  {coord} get greeting
  {coord} watch --prefix '' &
  {coord} endpoint status -w table

Health and figures: http://{first}/readyz and /metrics
{keys}"""
_NO_KEYS: Final = "SIGTERM or Ctrl-C ends all of them in order."


def _dev(line: Parsed, settings: Settings) -> None:
    if line.words and line.after_dashes != len(line.words):
        raise bad_arguments(f"coord dev takes no arguments but flags of coord serve behind --, got {line.words[0]}")
    count, port = line.number("nodes"), line.number("port")
    if not 1 <= count <= NODES_MAX:
        raise bad_arguments(f"--nodes takes 1 to {NODES_MAX}, not {count}")
    directory = Path(line.text("data-dir"))
    nodes = nodes_of(count, port, directory)
    _check_ports(nodes)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot make the directory {directory}: {error.strerror}") from None
    board = board_of(nodes)
    screen = Screen(board.status_line)
    with screen.keys_come_singly():
        trio.run(_run, nodes, board, screen, line.words)


def _check_ports(nodes: Sequence[DevNode]) -> None:
    for node in nodes:
        for port in (node.client_port, node.relay_port, node.peer_port):
            if not 0 < port < 2**16:
                raise bad_arguments(f"there is no port {port}: choose a lower --port")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((HOST, port))
                except OSError as error:
                    raise CommandError(
                        f"cannot listen on {HOST}:{port}: {error.strerror}",
                        hint="Does a coord dev run in another terminal? Or choose other ports with --port.",
                    ) from None


async def _run(nodes: Sequence[DevNode], board: Board, screen: Screen, further: Sequence[str]) -> None:
    cluster = DevCluster(nodes, board, screen.tell, screen.refresh, screen.is_colored, further)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        try:
            async with trio.open_nursery() as nursery:
                quitting, hurry = trio.Event(), trio.CancelScope()
                nursery.start_soon(_greet, nodes, cluster, screen)
                nursery.start_soon(_obey_keys, cluster, screen, nursery, quitting)
                nursery.start_soon(_heed_signals, signals, quitting, hurry)
                await cluster.run(nursery)
                await quitting.wait()
                screen.tell("── ending all nodes in order; Ctrl-C ends them at once")
                with hurry:
                    await cluster.stop()
                nursery.cancel_scope.cancel()
        finally:
            cluster.kill_all()


async def _greet(nodes: Sequence[DevNode], cluster: DevCluster, screen: Screen) -> None:
    """Tell what to try, once all nodes follow one leader and any one of them can be done without."""
    await cluster.has_met.wait()
    screen.tell(
        _GREETING.format(
            count=len(nodes),
            directory=nodes[0].directory.parent,
            endpoints=",".join(node.endpoint for node in nodes),
            coord=_own_command(),
            first=nodes[0].endpoint,
            keys=HELP if screen.is_terminal else _NO_KEYS,
        )
    )


def _own_command() -> str:
    """Return how this command was called, from here."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return f"{shlex.quote(Path(sys.executable).name)} -m coord"
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


async def _obey_keys(cluster: DevCluster, screen: Screen, nursery: trio.Nursery, quitting: trio.Event) -> None:
    async for key in screen.keys():
        for order in cluster.board.press(key):
            if order.verb is Verb.QUIT:
                quitting.set()
            else:
                await cluster.do(order, nursery)
        if cluster.board.notice:
            screen.tell(cluster.board.notice)
        screen.refresh()
    # The terminal is gone.
    quitting.set()


async def _heed_signals(signals: AsyncIterator[int], quitting: trio.Event, hurry: trio.CancelScope) -> None:
    """End in order at the first signal, at once at one that comes meanwhile."""
    async for _ in signals:
        if quitting.is_set():
            hurry.cancel()
        quitting.set()


dev = Command(
    "dev",
    _dev,
    usage="[flags] [-- flags of coord serve]",
    text="""
    Run a cluster on this machine, in one terminal, to try and to learn.

    Its log lines come merged, in words; keys kill, pause, cut off and bring back a node, so that you see what the
    others do. n1 takes clients at --port (7379), n2 10000 above (17379), n3 at 27379; the two ports above each are for
    its peers. What follows -- goes to every node. Ctrl-C ends all in order; the data stays.
    """,
    examples="""
    coord dev
    coord dev --nodes 5 --data-dir /tmp/five
    coord dev -- --election-timeout=3s --log-level=debug
    """,
    flags=[
        Flag("nodes", f"How many nodes, 1 to {NODES_MAX}.", 3, int_value, "N"),
        Flag("port", "Where n1 takes clients.", 7379, int_value, "PORT"),
        Flag("data-dir", "Directory of the nodes' data, one below it for each.", "./coord.dev", text_value, "DIR"),
    ],
    is_of_clients=False,
)

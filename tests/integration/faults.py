"""Relays between the nodes of a test, in a thread of their own, so that tests which block can spoil links.

Each node has one advertised peer URL, since the flags of all nodes must be equal, and one relay behind it. A relay
learns who dials from the hello, and so a fault can hit one directed link; see `coord.cli.relay`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

import trio

from coord.cli.relay import LinkFault, Relay

from .cluster import NodeProcess, free_port

CUT = LinkFault(is_cut=True)
SILENT = LinkFault(is_silent=True)
"""A lost host, or the middlebox that forgot the connection: half-open, nobody is told."""
SOUND = LinkFault()
START_TIMEOUT_S = 10.0
Answer = TypeVar("Answer")


class FaultProxies:
    """One relay before each node, and the means to spoil what passes."""

    def __init__(self, nodes: list[NodeProcess]) -> None:
        for node in nodes:
            node.advertised_port = free_port()
        names = {node.peer_url: node.name for node in nodes}
        self.relays = {node.name: Relay(node.advertised_port, node.peer_port, names) for node in nodes}
        self._started = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), name="relays", daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(START_TIMEOUT_S)

    def stop(self) -> None:
        self._do(self._scope.cancel)
        self._thread.join(START_TIMEOUT_S)
        assert not self._thread.is_alive()

    def spoil(self, source: str, target: str, fault: LinkFault) -> None:
        """Change what is wrong with the link that `source` dials to `target`: it carries the messages of `source`."""
        self._do(lambda: self.relays[target].set_fault(source, fault))

    def isolate(self, name: str, fault: LinkFault) -> None:
        """Spoil all links of a node, both ways."""
        for other in self.relays:
            if other != name:
                self.spoil(name, other, fault)
                self.spoil(other, name, fault)

    def heal(self) -> None:
        for source in self.relays:
            for target in self.relays:
                self.spoil(source, target, SOUND)

    def apply(self, faults: Mapping[tuple[str, str], LinkFault]) -> None:
        """Set the faults of several directed links."""
        for (source, target), fault in faults.items():
            self.spoil(source, target, fault)

    def _do(self, call: Callable[[], Answer]) -> Answer:
        assert self._token is not None
        return trio.from_thread.run_sync(call, trio_token=self._token)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with trio.open_nursery() as nursery:
                for relay in self.relays.values():
                    nursery.start_soon(relay.run)
                self._started.set()
                await trio.sleep_forever()

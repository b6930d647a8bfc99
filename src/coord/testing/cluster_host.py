"""A member's machine in a simulated cluster: a `SimHost` that somebody listens to, and whose disk can be lost."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from coord.node.node import Node
from coord.observe.log import RecordingLog
from coord.testing.sim_node import SimHost
from coord.testing.sim_worker import SimWorker


class TracingLog(RecordingLog):
    """A node's log that goes into the trace of its run as well."""

    def __init__(self, name: str, trace: Callable[..., None]) -> None:
        super().__init__()
        self._name = name
        self._trace = trace

    def __call__(self, event: str, /, **fields: object) -> None:
        """See `RecordingLog`."""
        super().__call__(event, **fields)
        told = {name: str(value) if isinstance(value, Exception) else value for name, value in fields.items()}
        self._trace(f"{self._name}: {event}", **told)


@define(eq=False)
class ClusterHost(SimHost):
    """See the module's docstring. `on_node` gets each node before it runs."""

    on_node: Callable[[Node], None] = lambda node: None

    def recover(self, workers: tuple[SimWorker, SimWorker, SimWorker]) -> Node:
        """See `SimHost.recover`."""
        node = super().recover(workers)
        self.on_node(node)
        return node

    def wipe(self) -> None:
        """Put an empty disk in place of the old one."""
        self.__attrs_post_init__()

"""A member's machine in a simulated cluster: a `SimHost` whose log is part of the trace, and whose disk can be slow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from attrs import define

from coord.observe.log import RecordingLog
from coord.testing.sim_node import SimHost, Workers
from coord.testing.sim_worker import DELAY_S_MAX, SimWorker


class TracingLog(RecordingLog):
    """A node's log that goes into the trace of its run as well."""

    def __init__(self, name: str, trace: Callable[..., None], counts: Counter[str]) -> None:
        super().__init__()
        self._name = name
        self._trace = trace
        self._counts = counts

    def __call__(self, event: str, /, **fields: object) -> None:
        """See `RecordingLog`."""
        super().__call__(event, **fields)
        self._counts[event] += 1
        told = {name: str(value) if isinstance(value, Exception) else value for name, value in fields.items()}
        self._trace(f"{self._name}: {event}", **told)


@define(eq=False, repr=False)
class ClusterHost(SimHost):
    """See the module's docstring."""

    _workers: tuple[SimWorker, ...] = ()

    def workers(self) -> Workers:
        """See `SimHost.workers`."""
        made = self._workers = super().workers()
        return made

    def slow_down(self, delay_s_max: float | None, *, log_only: bool) -> None:
        """Let each job of this process take up to so long before and after its effect; None: as usual.

        `log_only`: the syncs of the log alone, as where log and store lie on disks of their own.
        """
        for worker in self._workers[: 1 if log_only else None]:
            worker.delay_s_max = DELAY_S_MAX if delay_s_max is None else delay_s_max

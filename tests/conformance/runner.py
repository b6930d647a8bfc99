"""Runs a row against a driver and says where they part."""

from __future__ import annotations

from typing import Any, Protocol
from zlib import crc32

from attrs import evolve

from .vocabulary import Either, LeaseIds, Nothing, Refused, Remaining, Request, Row, Scope, WatchRefused


class Driver(Protocol):
    """A server of scenarios."""

    def revision(self) -> int:
        """Return the store's revision."""

    def call(self, request: Request) -> Any:
        """Return the reply to a bound request, `Refused` where the server says no."""

    def end_row(self) -> None:
        """Forget what a row opened on the side: its watch streams."""


def run(row: Row, driver: Driver, *, is_etcd: bool) -> None:
    """Run the steps of a row; `AssertionError` names the step, what was expected, and what came."""
    lease_base = (crc32(row.name.encode()) + 1) * 1000
    scope = Scope(row.name.encode() + b"/", driver.revision(), lease_base)
    try:
        for number, step in enumerate(row.steps, start=1):
            request = scope.bind(step.request)
            reply = without_others(driver.call(request), lease_base)
            expected = step.expected
            if isinstance(expected, Either):
                expected = expected.etcd if is_etcd else expected.coord
            expected = scope.bind(expected)
            if expected is None:
                assert not isinstance(reply, Refused | WatchRefused | Nothing), f"step {number}: {request}\n  {reply}"
            else:
                assert expected == reply, f"step {number}: {request}\n  expected {expected}\n  received {reply}"
    finally:
        driver.end_row()


def without_others(reply: Any, lease_base: int) -> Any:
    """Return the reply without the leases of other rows, which share the server, and with keys in order.

    etcd tells the keys of a lease, and leases of equal deadlines, in any order.
    """
    if isinstance(reply, Remaining):
        return evolve(reply, keys=tuple(sorted(reply.keys)))
    if isinstance(reply, LeaseIds):
        return LeaseIds(tuple(sorted(one for one in reply.ids if lease_base <= one < lease_base + 1000)))
    return reply

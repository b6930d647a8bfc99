"""Two servers that are given the same requests in lockstep must answer the same and remember the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define, evolve

from .machine import MachineDriver
from .runner import Driver, without_others
from .vocabulary import Created, Happened, Name, NextEvents, PrefixEnd, Remaining, Request, Scope, Watch


@define
class Lockstep:
    """The state machine beside another server, both new or both used by nobody else.

    They are never reset: each sequence has a prefix and leases of its own, and meets what earlier ones left.
    """

    machine: MachineDriver
    other: Driver
    sequences: int = 0

    def run(self, requests: Sequence[Request]) -> Scope:
        """Give both the requests; `AssertionError` where a reply differs. Return the scope they were bound in."""
        self.sequences += 1
        lease_base = 10**6 + self.sequences * 1000
        scope = Scope(b"%d/" % self.sequences, self.machine.revision(), lease_base)
        for request in requests:
            bound = evolve(scope, start=self.machine.revision()).bind(request)
            ours, theirs = (
                _clockless(without_others(server.call(bound), lease_base)) for server in (self.machine, self.other)
            )
            assert ours == theirs, f"{bound}\n  machine {ours}\n  other   {theirs}"
        return scope

    def check_history(self, scope: Scope, *, is_etcd: bool) -> None:
        """Check that a watch of what is left of a sequence tells what the machine remembers, and told then."""
        # etcd 3.4 no longer has the deletes at the compacted revision itself.
        first = max(scope.start + 1, self.machine.compact_revision + is_etcd)
        remembered = self.machine.history(first)
        told = [event for event in self.machine.told if event.pair.modified >= first]
        # The pair before an event may be compacted away since it was told.
        assert _pairless(remembered) == _pairless(told)
        if not remembered:
            return
        key, end = scope.bind(Name("")), scope.bind(PrefixEnd(""))
        try:
            assert self.other.call(Watch("w", key, end, start=first, id=1, prev_kv=True)) == Created(1)
            events = self.other.call(NextEvents("w", 1, len(remembered))).events
        finally:
            self.other.end_row()
        for theirs, ours in zip(events, remembered, strict=True):
            assert ours == theirs, f"machine {ours}\n  other   {theirs}"


def _clockless(reply: Any) -> Any:
    """Return the reply with what is left of a lease as it was granted."""
    if isinstance(reply, Remaining) and reply.ttl > 0:
        return evolve(reply, ttl=reply.granted)
    return reply


def _pairless(events: list[Happened]) -> list[Happened]:
    return [evolve(event, previous=None) for event in events]

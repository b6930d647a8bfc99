"""What comes on the connections of a client, and who goes first: callers that were answered, before crowds of watchers.

A caller that has its answer asks for the next thing, and the node works on that meanwhile. So events that may be for
many watches, and come with answers or right behind them, are held back until what the callers ask for next is sent.
Whatever comes behind them on the same connection waits with them: a progress answer vouches for every event before it
(S30).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define, field

from coord.client.calls import Connection
from coord.client.core import ClientCore
from coord.errors import ProtocolViolation
from coord.protocol.client_protocol import is_notifications
from coord.transport.link import Link

CROWD_BYTES: Final = 256
"""Notifications of so many bytes may be for a crowd of watches."""


@define(eq=False)
class Line:
    """A connection and the link that carries it."""

    connection: Connection
    link: Link
    held: list[bytes] = field(factory=list)
    """What is held back."""
    violation: ProtocolViolation | None = None
    """What was wrong with something that was."""


@define(eq=False)
class Arrivals:
    """Hands to the core what has come; what that brings about is settled by whoever calls."""

    core: ClientCore
    clock: Callable[[], float]
    are_callers_due: bool = False
    """Some were answered, and what they ask for next is not sent."""
    holding: list[Line] = field(factory=list)
    """Where something was held back."""

    def take(self, line: Line, messages: list[bytes], *, may_hold: bool) -> bool:
        """Take what has come; tell whether some of it is held back. Raises `ProtocolViolation`."""
        if line.held:
            self.take_held(line)
        core, now = self.core, self.clock()
        for place, message in enumerate(messages):
            are_events = is_notifications(message)
            if are_events and self.are_callers_due and may_hold and len(message) >= CROWD_BYTES:
                line.held = messages[place:]
                self.holding.append(line)
                return True
            core.receive(line.connection, message, now)
            if core.wakes and not are_events:
                self.are_callers_due = True
        return False

    def take_all_held(self) -> None:
        """Take what was held back on any line."""
        holding, self.holding = self.holding, []
        for line in holding:
            self.take_held(line)

    def take_held(self, line: Line) -> None:
        """Take what was held back, in its place before all that has come since."""
        held, line.held = line.held, []
        now = self.clock()
        try:
            for message in held:
                self.core.receive(line.connection, message, now)
        except ProtocolViolation as error:
            line.violation = error
            line.link.abort()

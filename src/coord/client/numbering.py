"""How a client numbers its writes, so that each is applied at most once however often it is sent (S17, S18). Pure."""

from __future__ import annotations

from attrs import define, field

from coord.limits import CLIENT_WINDOW


@define(eq=False)
class Numbering:
    """The numbers of one registration; a client whose record the cluster has forgotten begins another.

    A number is open from when it is issued until it is closed: by an answer, or because its caller waits no longer.
    `low` travels with every frame of writes. What is below it is never applied any more, so that a write that was given
    up is settled by the next one that arrives.
    """

    client_id: int = 0
    """0 until the cluster has given one."""
    low: int = 1
    """The lowest number that is still open, or the next one to be issued."""
    _next: int = 1
    _closed: set[int] = field(factory=set)
    """Those above `low`."""

    @property
    def room(self) -> int:
        """How many numbers may be issued: the record of a client holds a window of them, from `low` on."""
        return CLIENT_WINDOW - (self._next - self.low) if self.client_id else 0

    def issue(self) -> int:
        """Return a number for a new write; only while there is room for it."""
        number = self._next
        self._next = number + 1
        return number

    def close(self, number: int) -> None:
        """Note that nobody waits for the answer to `number` any more, and that it is sent no more."""
        if number != self.low:
            self._closed.add(number)
            return
        low, closed = number + 1, self._closed
        while low in closed:
            closed.discard(low)
            low += 1
        self.low = low

"""A client's writes before they are first sent: they wait for its registration, and for room in its window. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import define, field

from coord.client.calls import NEVER, Call
from coord.client.failing import PATIENCE_S_MAX
from coord.client.numbering import Numbering
from coord.errors import ApiError, OutcomeUnknown
from coord.protocol.ops import Op

_REGISTER: Final = int(Op.REGISTER)


@define(eq=False)
class Once:
    """Gives writes their numbers. `send` takes the call that registers the client; `next_id` makes its request id."""

    send: Callable[[Call], None]
    next_id: Callable[[], int]
    waiting: deque[Call] = field(factory=deque)
    """Writes without a number; some of them may be done."""
    numbering: Numbering = field(factory=Numbering)
    _registration: Call | None = None

    def submit(self, call: Call) -> None:
        """Take a write that has no number yet."""
        self.waiting.append(call)
        if not self.numbering.client_id and self._registration is None:
            self._register(call)

    @property
    def has_work(self) -> bool:
        """True if `take` would return something."""
        return bool(self.waiting) and self.numbering.room > 0

    def take(self, room: int) -> list[Call]:
        """Return up to `room` writes to send now, each with its number."""
        waiting, numbering = self.waiting, self.numbering
        taken: list[Call] = []
        room = min(room, numbering.room)
        while waiting and len(taken) < room:
            call = waiting.popleft()
            if not call.is_done:
                call.number = numbering.issue()
                call.numbering = numbering
                taken.append(call)
        return taken

    def number(self, call: Call) -> bool:
        """Give a write its number at once; False if it has to wait, for the registration or for room."""
        numbering = self.numbering
        if not numbering.room:
            return False
        call.number, call.numbering = numbering.issue(), numbering
        return True

    def refusal(self) -> ApiError | None:
        """Return why nodes have refused to register the client so far, for writes that waited for it in vain."""
        refusal = self._registration.refusal if self._registration is not None else None
        # That it is not known whether the client was registered says nothing of a write that was never sent.
        return None if isinstance(refusal, OutcomeUnknown) else refusal

    def registered(self, client_id: int) -> None:
        """Take the id that the cluster has given."""
        self._registration = None
        self.numbering = Numbering(client_id)

    def unregistered(self) -> list[Call]:
        """Learn that the registration failed for good; return the writes that fail with it."""
        self._registration = None
        failed, self.waiting = list(self.waiting), deque()
        return failed

    def forgotten(self, call: Call) -> None:
        """Number a write anew that was not applied, because the cluster has no record of its client (any more).

        S17: it may be sent under another id only because no earlier sending of it is in doubt.
        """
        if call.numbering is self.numbering:
            self.numbering = Numbering()
        call.numbering, call.number, call.connection = None, 0, None
        self.submit(call)

    def prune(self) -> None:
        """Forget what ended while it waited."""
        if any(call.is_done for call in self.waiting):
            self.waiting = deque(call for call in self.waiting if not call.is_done)

    def _register(self, first: Call) -> None:
        # It is tried for as long as writes wait; a node says why it cannot before the first of them gives up.
        self._registration = Call(
            self.next_id(), True, _REGISTER, (), first.timeout_ms, NEVER, None, patience_s=PATIENCE_S_MAX
        )
        self._registration.ask_again_at = first.ask_again_at
        self.send(self._registration)

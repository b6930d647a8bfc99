"""Changes of members on the leader, from a client's request to the answer that follows the entry's apply.

One that the leader can no longer make, since it has handed over, goes on to whoever leads now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field

from coord.errors import ApiError, OutcomeUnknown
from coord.node.member_changes import NotLeader
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.replies import reply_error, reply_value

Done = Callable[[Any], None]
"""Takes the result, or the `ApiError`, of a change."""

_LATE = OutcomeUnknown("etcdserver: request timed out: the change may still happen")


@define
class Changes:
    """Remembers who asked for which change.

    `change(method, arguments, done)` is the membership's; `forward(sink, request_id, deadline, method, arguments)`
    has another leader asked.
    """

    change: Callable[[int, list[Any], Done], None]
    clock: Callable[[], float]
    outbox: Outbox
    revision: Callable[[], int]
    forward: Callable[[Sink, int, float, int, list[Any]], None]
    _deadlines: dict[tuple[Sink, int], float] = field(factory=dict)

    def take(self, sink: Sink, request_id: int, deadline: float, method: int, arguments: list[Any]) -> None:
        """Have a change made, and answer when it is."""
        who = (sink, request_id)
        self._deadlines[who] = deadline

        def done(result: Any) -> None:
            if self._deadlines.pop(who, None) is None:
                return
            if isinstance(result, NotLeader):
                try:
                    self.forward(sink, request_id, deadline, method, arguments)
                    return
                except ApiError as error:
                    result = error
            if isinstance(result, ApiError):
                self.outbox.reply(sink, reply_error(request_id, self.revision(), result))
            else:
                self.outbox.reply(sink, reply_value(request_id, self.revision(), result))

        self.change(method, arguments, done)

    def expire(self) -> None:
        """Answer those past their deadline: what they asked for may still happen (S14)."""
        now = self.clock()
        for who in [who for who, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[who]
            self.outbox.reply(who[0], reply_error(who[1], self.revision(), _LATE))

    def forget(self, sink: Sink) -> None:
        """Answer nobody on `sink` any more."""
        self._deadlines = {who: deadline for who, deadline in self._deadlines.items() if who[0] is not sink}

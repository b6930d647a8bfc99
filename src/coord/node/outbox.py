"""The last of the turns: what the others said to clients leaves, one frame a connection."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field

from coord.errors import ApiError
from coord.node.ports import Sink
from coord.node.replies import reply_error


@define
class Outbox:
    """Remembers which connections have something to send."""

    _touched: dict[Sink, None] = field(factory=dict)

    def touch(self, sink: Sink) -> None:
        """Say that something was buffered on `sink`."""
        self._touched[sink] = None

    def reply(self, sink: Sink, reply: bytes) -> None:
        """Buffer one reply."""
        sink.reply(reply)
        self._touched[sink] = None

    def refuse(self, sink: Sink, ids: Iterable[tuple[int, float]], error: ApiError) -> None:
        """Answer all requests of a frame with one error."""
        for request_id, _ in ids:
            sink.reply(reply_error(request_id, 0, error))
        self._touched[sink] = None

    def turn(self) -> bool:
        """Flush what was touched."""
        if self._touched:
            touched, self._touched = self._touched, {}
            for sink in touched:
                sink.flush()
        return False

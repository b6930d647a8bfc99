"""A node that answers put and get out of a dict, for tests of what stands in front of it."""

from __future__ import annotations

from typing import Any

from coord.codec import encode
from coord.errors import ApiError, Unimplemented
from coord.node.ports import Sink
from coord.node.replies import reply_error, reply_value
from coord.protocol.bodies import writes_of
from coord.protocol.ops import Method, Op


class FakeNode:
    """Answers at once; with `is_lazy` it keeps requests until `answer_all`."""

    def __init__(self) -> None:
        self.cluster_id = 0xC0FFEE
        self.member_id = 7
        self.name = "n1"
        self.max_request_bytes = 1536 * 1024
        self.max_txn_ops = 128
        self.raft_term = 3
        self.leader_id = 7
        self.revision = 1
        self.data: dict[bytes, list[Any]] = {}
        self.failing: dict[str, ApiError] = {}
        self.forgotten: list[Sink] = []
        self.sinks: list[Sink] = []
        self.cancelled: list[Any] = []
        self.is_lazy = False
        self.waiting: list[tuple[Sink, bytes]] = []

    @property
    def context(self) -> tuple[int, int, int]:
        return self.cluster_id, self.raft_term, self.leader_id

    def writes(
        self, sink: Sink, client: int, low: int, ids: list[tuple[int, int]], body: bytes, decoded: list[Any]
    ) -> None:
        self._meet(sink)
        for (request_id, _), (_, op, _, arguments) in zip(ids, writes_of(decoded), strict=True):
            if op == Op.PUT and len(arguments) == 2:
                self.revision += 1
                key, value = arguments
                self.data[key] = [key, self.revision, self.revision, 1, 0, value]
                self._reply(sink, reply_value(request_id, self.revision, None))
            else:
                self._reply(sink, reply_error(request_id, 0, Unimplemented(f"op {op}")))
        if not self.is_lazy:
            sink.flush()

    def request(self, sink: Sink, request_id: int, method: int, timeout_ms: int, arguments: list[Any]) -> None:
        self._meet(sink)
        if method == Method.RANGE:
            found = [self.data[arguments[0]]] if arguments[0] in self.data else []
            self._reply(sink, reply_value(request_id, self.revision, [found, False, len(found)]))
        elif method == Method.CANCEL:
            self.cancelled.append(arguments)
        elif method == Method.HASH_KV:
            raise RuntimeError("a mistake in the node")
        else:
            self._reply(sink, reply_error(request_id, 0, Unimplemented(f"method {method}")))
        if not self.is_lazy:
            sink.flush()

    def answer_all(self) -> None:
        for sink, reply in self.waiting:
            sink.reply(reply)
            sink.flush()
        self.waiting.clear()

    def forget(self, sink: Sink) -> None:
        self.forgotten.append(sink)

    def status(self) -> dict[str, Any]:
        return {}

    def health(self) -> dict[str, ApiError | None]:
        names = ("data_corruption", "serializable_read", "linearizable_read", "non_learner")
        return {name: self.failing.get(name) for name in names}

    def _meet(self, sink: Sink) -> None:
        if sink not in self.sinks:
            self.sinks.append(sink)

    def _reply(self, sink: Sink, reply: bytes) -> None:
        if self.is_lazy:
            self.waiting.append((sink, reply))
        else:
            sink.reply(reply)


def put(key: bytes, value: bytes, request_id: int = 1) -> bytes:
    """A message with one put."""
    return encode([2, 0, 0, [[request_id, 0]], encode([[0, 1, None, [key, value]]])])


def get(key: bytes, request_id: int = 1) -> bytes:
    """A message with one get."""
    return encode([1, [[request_id, 20, 0, [key]]]])

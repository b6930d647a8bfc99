"""One client's connection: its messages go to the node, the node's answers come back as frames.

The hub reads for it. Nothing here costs a task, a step of one, a scope or a log line per request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from coord.codec import decode
from coord.errors import ApiError, FailedPrecondition, InvalidArgument, no_leader, too_many_requests
from coord.limits import MIB, REQUESTS_OPEN_PER_CONNECTION, SEND_BUFFER_HIGH_BYTES
from coord.node.ports import NodePort
from coord.node.replies import reply_error
from coord.observe.log import Log
from coord.observe.metrics import Metrics
from coord.protocol.bodies import is_run
from coord.protocol.id_run import REPLY_RUN_HEAD, IdRun
from coord.protocol.ops import Method, Op
from coord.protocol.server_protocol import (
    ClientHello,
    FrameHeads,
    Refused,
    Requests,
    Writes,
    decode_message,
    reply_id,
)
from coord.transport.link import CLOSE_POLICY, Link, LinkClosed

FRAME_SPLIT_BYTES: Final = MIB
"""Replies that together are larger leave in several frames, so that a client can begin with the first."""

_CANCEL: Final = int(Method.CANCEL)
_STATUS: Final = int(Method.STATUS)
_UNJUDGED: Final = 0
"""The revision in the error of what did not reach the log, nor a reader (S19)."""
_IS_ERROR: Final = 0x84
_UNKNOWN: Final = "unknown"
_METHOD_NAMES: Final = {int(method): method.name.lower() for method in Method}
_OP_NAMES: Final = {int(op): op.name.lower() for op in Op}
_PUT: Final = _OP_NAMES[int(Op.PUT)]


class Connection:
    """Serves one link until it ends. It is the `Sink` of its client's requests."""

    __slots__ = (
        "_bytes",
        "_done",
        "_has_cluster",
        "_has_refused",
        "_heads",
        "_is_gone",
        "_is_notifying",
        "_link",
        "_log",
        "_metrics",
        "_node",
        "_open",
        "_parts",
    )

    def __init__(self, link: Link, node: NodePort, heads: FrameHeads, log: Log, metrics: Metrics) -> None:
        self._link = link
        self._node = node
        self._heads = heads
        self._log = log
        self._metrics = metrics
        self._open: set[int] = set()
        # What leaves at the next flush: runs of replies and of notifications, in the order they were given,
        # since a progress answer must travel behind the events it vouches for (S30), and a watch's first
        # event behind the reply that creates it.
        self._done: list[tuple[bool, list[bytes], int]] = []
        self._parts: list[bytes] = []
        self._bytes = 0
        self._is_notifying = False
        self._is_gone = False
        self._has_refused = False
        """It has answered by itself, so that nobody else sees to it that the answer leaves."""
        self._has_cluster = False
        """The node has a cluster, which it keeps for good."""

    @property
    def link(self) -> Link:
        """What carries it."""
        return self._link

    async def serve(self) -> LinkClosed:
        """Handle messages until the link ends; return how it ended. The caller closes the link."""
        try:
            # A client that does not read its answers is not read either.
            return await self._link.deliver(self._take_all, SEND_BUFFER_HIGH_BYTES)
        finally:
            self._is_gone = True
            self._node.forget(self)

    # ---- from the client

    def _take_all(self, messages: list[bytes]) -> None:
        if not self._has_cluster:
            self._has_cluster = self._node.cluster_id != 0
        metrics = self._metrics
        metrics.client_frames_received_total += len(messages)
        for data in messages:
            metrics.client_received_bytes_total += len(data)
            message = decode_message(data)
            if type(message) is Writes:
                self._take_writes(message)
            elif type(message) is Requests:
                self._take_requests(message)
            elif type(message) is Refused:
                self._refuse(message.ids or [0], message.error)
            elif type(message) is ClientHello:
                self._take_hello(message)
        if self._has_refused:
            self._has_refused = False
            self.flush()

    def _take_writes(self, writes: Writes) -> None:
        ids = writes.ids
        still_open = self._open
        new = set(ids.ids) if type(ids) is IdRun else {request_id for request_id, _ in ids}
        if len(new) < len(ids) or not still_open.isdisjoint(new):
            # Its replies could not be told apart from those still to come, so it is answered by id 0.
            twice = new & still_open or {one for one, count in Counter(item[0] for item in ids).items() if count > 1}
            self._refuse([0], InvalidArgument(f"coord: request id {min(twice)} is already open"))
            return
        if len(still_open) + len(new) > REQUESTS_OPEN_PER_CONNECTION:
            self._refuse([request_id for request_id, _ in ids], too_many_requests())
            return
        still_open |= new
        counts = self._metrics.client_requests_total
        if is_run(writes.decoded):
            counts[_PUT] += len(ids)
        else:
            for _, op, _, _ in writes.decoded:
                counts[_OP_NAMES.get(op, _UNKNOWN) if type(op) is int else _UNKNOWN] += 1
        if not self._has_cluster:
            self._refuse_without_cluster([request_id for request_id, _ in ids])
            return
        self._node.writes(self, writes.client, writes.low, ids, writes.body, writes.decoded)

    def _take_requests(self, message: Requests) -> None:
        counts = self._metrics.client_requests_total
        still_open = self._open
        for request_id, method, timeout_ms, arguments in message.requests:
            counts[_METHOD_NAMES.get(method, _UNKNOWN)] += 1
            if method != _CANCEL:
                if request_id in still_open:
                    self._refuse([0], InvalidArgument(f"coord: request id {request_id} is already open"))
                    continue
                if len(still_open) >= REQUESTS_OPEN_PER_CONNECTION:
                    self._refuse([request_id], too_many_requests())
                    continue
                still_open.add(request_id)
                if not self._has_cluster and method != _STATUS:
                    self._refuse_without_cluster([request_id])
                    continue
            self._node.request(self, request_id, method, timeout_ms, arguments)
        for request_id, error in message.refused:
            self._refuse([0 if request_id in still_open else request_id], error)

    def _take_hello(self, hello: ClientHello) -> None:
        if hello.cluster and hello.cluster != self._node.cluster_id:
            text = "etcdserver: cluster ID mismatch"
            self._refuse([0], FailedPrecondition(text))
            self.flush()
            self._link.close(CLOSE_POLICY, text)

    def _refuse_without_cluster(self, ids: list[int]) -> None:
        """Refuse what needs a cluster; the node says whom it waits for."""
        # Clients ask again several times a second, so no line is logged.
        node = self._node
        error = node.health()["linearizable_read"] or no_leader("there is no cluster yet")
        self._has_refused = True
        for request_id in ids:
            self.reply(reply_error(request_id, _UNJUDGED, error))

    def _refuse(self, ids: list[int], error: ApiError) -> None:
        self._log("client.message.refused", peer=self._link.peer, error=str(error))
        self._has_refused = True
        for request_id in ids:
            self.reply(reply_error(request_id, _UNJUDGED, error))

    # ---- to the client: the node's Sink

    def reply(self, reply: bytes) -> None:
        """Buffer one encoded reply and count its request as closed."""
        if self._is_gone:
            return
        if self._is_notifying:
            self._turn()
        self._parts.append(reply)
        self._bytes += len(reply)
        head = reply[0]
        if head == REPLY_RUN_HEAD:
            first, _, _, _, count = decode(reply)
            self._open.difference_update(range(first, first + count))
            return
        self._open.discard(reply_id(reply))
        if head == _IS_ERROR:
            self._metrics.client_errors_total[decode(reply)[3][0]] += 1

    def notify(self, notification: bytes) -> None:
        """Buffer one encoded notification."""
        if self._is_gone:
            return
        if not self._is_notifying:
            self._turn()
        self._parts.append(notification)
        self._bytes += len(notification)

    def _turn(self) -> None:
        """Begin a run of the other kind."""
        if self._parts:
            self._done.append((self._is_notifying, self._parts, self._bytes))
            self._parts, self._bytes = [], 0
        self._is_notifying = not self._is_notifying

    def flush(self) -> None:
        """Send what is buffered."""
        if self._is_gone:
            self._done.clear()
            self._parts.clear()
            return
        heads, context = self._heads, self._node.context
        if context != heads.context:
            heads.renew(context)
        if self._parts:
            self._done.append((self._is_notifying, self._parts, self._bytes))
            self._parts, self._bytes = [], 0
        runs, self._done = self._done, []
        frames = []
        for is_notifying, parts, size in runs:
            encode = heads.notifications if is_notifying else heads.replies
            for some in _split(parts) if size > FRAME_SPLIT_BYTES else (parts,):
                frames.append(encode(some))
        self._metrics.client_frames_sent_total += len(frames)
        self._metrics.client_sent_bytes_total += sum(map(len, frames))
        self._link.send_many(frames)

    def is_slow(self) -> bool:
        """Tell whether so much waits to be sent that watches should fall back to history."""
        return self._link.buffered_bytes + self._bytes > SEND_BUFFER_HIGH_BYTES


def _split(parts: list[bytes]) -> Iterator[list[bytes]]:
    """Yield `parts` in lists of at most `FRAME_SPLIT_BYTES`; a part that is larger is alone."""
    some: list[bytes] = []
    size = 0
    for part in parts:
        if some and size + len(part) > FRAME_SPLIT_BYTES:
            yield some
            some, size = [], 0
        some.append(part)
        size += len(part)
    yield some

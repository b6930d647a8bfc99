"""A watch of the blocking client, on a connection of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from types import TracebackType
from typing import Any, Self

from coord.client import forks
from coord.client import responses as r
from coord.client.blocking_link import NodeConnection
from coord.client.endpoints import ANOTHER_TRY_S, refusal_pause_s
from coord.client.failing import is_clear_refusal, timed_out
from coord.client.watching import RESUME_REASONS, WatchState
from coord.errors import ApiError, ClientClosed, Code, ConnectionFailed, ProtocolViolation, Unavailable, compacted
from coord.protocol.ops import Method, Notification
from coord.transport.link import LinkClosed
from coord.types import Revision

_TRY_S = 5.0


class BlockingWatch:
    """Batches of events, one revision each: iterate over it, or call `next(timeout)`. Close it, or use
    `with`.

    It goes on by itself after a lost connection, through any endpoint, without a gap. Raises `Compacted` when
    what it needs next is compacted away. One thread at a time may wait for batches.
    """

    def __init__(
        self,
        open_connection: Callable[[float, float], NodeConnection],
        ids: Iterator[int],
        state: WatchState,
    ) -> None:
        self._open_connection = open_connection
        self._ids = ids
        self._state = state
        self._header = r.Header(0, 0, Revision(0), 0)
        self._connection: NodeConnection | None = None
        self._random = Random()
        self._refusals = 0
        self._batches: deque[r.Batch] = deque()
        self._is_closed = False
        self._forks = forks.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[r.Batch]:
        while True:
            yield self.next()

    @property
    def next_revision(self) -> Revision:
        """The first revision that is not yet in a batch; where another watch would go on."""
        return Revision(self._state.next_revision)

    @property
    def is_live(self) -> bool:
        """A node tells of changes as they happen, as far as is known."""
        return self._connection is not None

    def header(self, revision: Revision) -> r.Header:
        """Return a header of `revision` that tells which node the watch heard last."""
        if (connection := self._connection) is not None:
            self._header = r.Header(connection.cluster_id, connection.member_id, revision, connection.raft_term)
        known = self._header
        return r.Header(known.cluster_id, known.member_id, revision, known.raft_term)

    def start(self, timeout: float) -> None:
        """Create the watch. Raises `ConnectionFailed`, or `ApiError` if the node refuses it."""
        deadline = time.monotonic() + timeout
        try:
            while self._connection is None:
                self._connect(deadline, timeout)
        except TimeoutError:
            raise timed_out(timeout, False, None) from None

    def next(self, timeout: float | None = None) -> r.Batch:
        """Return the next batch. Raises `TimeoutError` after `timeout` seconds; None waits for ever."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._batches:
            try_until = time.monotonic() + _TRY_S
            try:
                self._wait(try_until if deadline is None else min(try_until, deadline))
            except (TimeoutError, ConnectionFailed, Unavailable):
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(f"no event within {timeout:g} s") from None
        return self._batches.popleft()

    def request_progress(self, timeout: float = 5.0) -> Revision:
        """Return a revision up to which all batches have arrived; an empty batch tells of it too."""
        deadline = time.monotonic() + timeout
        self.start(timeout)
        assert self._connection is not None
        try:
            request_id = self._connection.send_request(Method.WATCH_PROGRESS, timeout, [])
            _, revision = self._connection.wait_reply(request_id, deadline)
            self._take_all(self._connection.taken())
        except (LinkClosed, ProtocolViolation) as error:
            self._lose()
            raise ConnectionFailed(f"the watch lost its connection: {error}") from error
        batch = self._state.progress(revision)
        if batch is not None:
            self._batches.append(batch)
        return Revision(revision)

    def close(self) -> None:
        """End the watch."""
        self._is_closed = True
        self._lose()

    def _wait(self, deadline: float) -> None:
        if self._is_closed:
            raise ClientClosed("the watch is closed")
        if self._forks != forks.count():
            # S21: the connection is the parent's, which goes on reading from it.
            self._forks = forks.count()
            if self._connection is not None:
                self._connection.abandon()
                self._connection = None
        if self._connection is None:
            self._connect(deadline, max(deadline - time.monotonic(), 0.0))
            return
        try:
            self._take_all(self._connection.wait_notifications(deadline))
        except TimeoutError:
            raise
        except (LinkClosed, ProtocolViolation, OSError):
            self._lose()

    def _connect(self, deadline: float, timeout: float) -> None:
        connection = self._open_connection(deadline, timeout)
        self._state.watch_id = next(self._ids)
        try:
            request_id = connection.send_request(Method.WATCH_CREATE, timeout, self._state.create_arguments())
            _, result = connection.wait_reply(request_id, deadline)
            self._state.created(result[1])
        except (LinkClosed, ProtocolViolation):
            connection.close()
        except ApiError as error:
            connection.close()
            if not is_clear_refusal(error):
                raise
            # S30: another node, or this one later, serves the watch; only its creator is told, at the end of its time.
            self._pause(error, deadline)
        except BaseException:
            connection.close()
            raise
        else:
            self._refusals = 0
            self._connection = connection

    def _pause(self, refusal: ApiError, deadline: float) -> None:
        self._refusals += 1
        pause_s = refusal_pause_s(self._refusals, self._random)
        if time.monotonic() + pause_s + ANOTHER_TRY_S >= deadline:
            raise refusal
        time.sleep(pause_s)

    def _take_all(self, notifications: list[Any]) -> None:
        for notification in notifications:
            kind, ids = notification[0], notification[1]
            if self._state.watch_id not in ids:
                continue
            if kind == Notification.CANCELED:
                self._canceled(notification[2], notification[3])
                return
            batch = None
            if kind == Notification.EVENTS:
                batch = self._state.take(*r.batch(notification))
            elif kind == Notification.PROGRESS:
                batch = self._state.progress(notification[2])
            if batch is not None:
                self._batches.append(batch)

    def _canceled(self, compact_revision: int, reason: str) -> None:
        self._lose()
        if compact_revision > 0:
            raise compacted(compact_revision)
        if reason not in RESUME_REASONS:
            raise ApiError(reason, code=Code.CANCELED)

    def _lose(self) -> None:
        if self._connection is not None:
            self.header(Revision(0))
            self._connection.close()
            self._connection = None

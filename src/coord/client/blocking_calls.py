"""How the blocking client makes its calls: one at a time, over one connection, again where that does no harm."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Collection
from random import Random
from typing import Any, Final, TypeVar

from attrs import define, field

from coord.client import responses as r
from coord.client.blocking_link import NodeConnection
from coord.client.blocking_race import Race
from coord.client.endpoints import ANOTHER_TRY_S, Endpoint, Rotation, refusal_pause_s
from coord.client.failing import (
    REFUSALS_BEFORE_MOVING,
    has_no_leader,
    is_clear_refusal,
    lost_after_sending,
    timed_out,
    unreachable,
)
from coord.client.verbs import Verb
from coord.errors import ApiError, ClientClosed, ConnectionFailed, ProtocolViolation
from coord.transport.link import LinkClosed

Answer = TypeVar("Answer")
LONGEST_S: Final = 1e6


@define(eq=False)
class BlockingCalls:
    """The calls of one client, whose threads wait for each other; `timeout` and `connect_timeout` are in seconds."""

    rotation: Rotation
    timeout: float
    connect_timeout: float | None
    """How much of a call's time may go by without a connection; None: all of it."""
    name: str
    _random: Random
    revision: int = 0
    """The highest revision seen (S29)."""
    _lock: threading.Lock = field(factory=threading.Lock)
    _connection: NodeConnection | None = None
    _cluster_id: int = 0
    _is_closed: bool = False

    def close(self) -> None:
        """Close the connection; later calls raise `ClientClosed`."""
        self._is_closed = True
        with self._lock:
            self._drop()

    def seconds(self, timeout: float | None) -> float:
        """Return the timeout of a call that gives `timeout`, None for the client's."""
        # The longest that a lock and a socket take is less than infinity.
        return min(self.timeout if timeout is None else timeout, LONGEST_S)

    def call(self, verb: Verb[Answer], timeout: float | None) -> Answer:
        """Return the answer to a verb; `timeout` in seconds, None for the client's.

        Raises the `ApiError` that is the answer, or `OutcomeUnknown`, `DeadlineExceeded`, `ConnectionFailed`,
        `ClientClosed`.
        """
        timeout = self.seconds(timeout)
        deadline = time.monotonic() + timeout
        if not self._lock.acquire(timeout=max(timeout, 0)):
            raise timed_out(timeout, verb.is_change, False, None)
        try:
            header, result = self._try_until(verb, deadline, timeout)
            self.revision = max(self.revision, header.revision)
            self._cluster_id = self._cluster_id or header.cluster_id
        except ApiError:
            raise
        except BaseException:
            # An exception between two bytes of a frame, as Ctrl-C raises it, leaves a connection of no use.
            self._drop()
            raise
        finally:
            self._lock.release()
        return verb.parse(header, result)

    def _try_until(self, verb: Verb[Any], deadline: float, timeout: float) -> tuple[r.Header, Any]:
        refusal: ApiError | None = None
        silent: set[Endpoint] = set()
        patience_s = verb.patience_s
        for attempt in itertools.count(1):
            try:
                connection = self._connected(deadline, timeout, silent)
            except ConnectionFailed as error:
                raise refusal or error from None
            listen_until = deadline
            try:
                left_s = max(deadline - time.monotonic(), 0.001)
                if verb.is_write:
                    request_id = connection.send_write(verb.code, left_s, verb.arguments, verb.guard)
                else:
                    request_id = connection.send_request(verb.code, left_s, verb.arguments)
                listen_until = min(deadline, time.monotonic() + patience_s)
                return connection.wait_reply(request_id, listen_until)
            except TimeoutError:
                if listen_until < deadline:
                    # S30: asked again as a request of its own, elsewhere; who is slow rather than gone gets more time.
                    self._drop()
                    self.rotation.failed(connection.endpoint, f"no answer within {patience_s:g} s")
                    silent.add(connection.endpoint)
                    patience_s *= 2
                    continue
                # Half a frame may have been sent, and what followed would be taken for its other half. Or the node is
                # stuck, since it answers shortly before its client's deadline: the next call had better go elsewhere.
                self._drop()
                self.rotation.failed(connection.endpoint, f"no answer within {timeout:g} s")
                raise timed_out(timeout, verb.is_change, True, refusal) from None
            except (LinkClosed, ProtocolViolation, OSError) as error:
                self._drop()
                self.rotation.failed(connection.endpoint, str(error))
                if verb.is_change:
                    raise lost_after_sending(connection.endpoint, error) from error
            except ApiError as error:
                if not is_clear_refusal(error):
                    raise
                refusal = error
                is_enough = attempt >= REFUSALS_BEFORE_MOVING or has_no_leader(error)
                if is_enough and len(self.rotation.endpoints) > 1:
                    self._drop()
                    self.rotation.failed(connection.endpoint, str(error))
            pause_s = refusal_pause_s(attempt, self._random)
            if time.monotonic() + pause_s + ANOTHER_TRY_S >= deadline and refusal is not None:
                raise refusal
            if time.monotonic() + pause_s >= deadline:
                raise timed_out(timeout, verb.is_change, False, refusal)
            time.sleep(pause_s)
        raise AssertionError("unreachable")

    def _connected(self, deadline: float, timeout: float, avoid: Collection[Endpoint]) -> NodeConnection:
        if self._is_closed:
            raise ClientClosed("the client is closed")
        if self._connection is not None and not self._may_use(self._connection):
            self._drop()
        if self._connection is None:
            self._connection = self.open(deadline, timeout, avoid)
        return self._connection

    def _may_use(self, connection: NodeConnection) -> bool:
        # Its node may have had no cluster when it said hello, while another connection's had.
        return connection.is_open() and (not self._cluster_id or connection.cluster_id == self._cluster_id)

    def open(self, deadline: float, timeout: float, avoid: Collection[Endpoint] = ()) -> NodeConnection:
        """Connect to the next endpoint that answers, none of `avoid` if there is another.

        Raises `ConnectionFailed` at the deadline.
        """
        rotation = self.rotation
        reach_until, reach_s = deadline, timeout
        if self.connect_timeout is not None:
            reach_s = min(timeout, self.connect_timeout)
            reach_until = min(deadline, time.monotonic() + reach_s)

        def until() -> float:
            # A node that turns clients away was reached, and may have its cluster in a moment.
            return deadline if rotation.why_turned_away else reach_until

        connection = Race(rotation, self.name, self._cluster_id, until, avoid).run()
        if connection is None:
            raise unreachable(reach_s, rotation)
        self._cluster_id = connection.cluster_id
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

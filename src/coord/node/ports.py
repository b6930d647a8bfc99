"""What the node and those who serve its clients know of each other.

The server decodes and checks; the node decides. All calls are plain functions, made on the loop: they fill an inbox
and return. Answers come back through the `Sink`, in the node's own turn, and leave as one frame.
"""

from __future__ import annotations

from typing import Any, Protocol

from coord.errors import ApiError
from coord.protocol.id_run import Ids


class Sink(Protocol):
    """A client's connection, as the node sees it.

    `reply` and `notify` only buffer; the node calls `flush` once at the end of its turn. None of them raises or
    waits; after the connection has gone they do nothing.
    """

    def reply(self, reply: bytes) -> None:
        """Buffer one encoded `reply` of coord.cddl and count its request, or those of its run, as closed."""

    def notify(self, notification: bytes) -> None:
        """Buffer one encoded `notification`."""

    def flush(self) -> None:
        """Send what is buffered: at most one frame of replies and one of notifications."""

    def is_slow(self) -> bool:
        """Tell whether so much waits to be sent that watches should fall back to history."""


class NodePort(Protocol):
    """The node, as the server sees it."""

    @property
    def cluster_id(self) -> int:
        """The cluster's id, 0 before it has one."""

    @property
    def member_id(self) -> int:
        """This member's id."""

    @property
    def name(self) -> str:
        """This member's name."""

    @property
    def max_request_bytes(self) -> int:
        """The most that one write may hold."""

    @property
    def max_txn_ops(self) -> int:
        """The most operations of a transaction."""

    @property
    def context(self) -> tuple[int, int, int]:
        """What every frame tells: the cluster's id, the current term, and the leader's member id, or 0."""

    @property
    def revision(self) -> int:
        """The revision of the store as applied here."""

    def writes(self, sink: Sink, client: int, low: int, ids: Ids, body: bytes, decoded: list[Any]) -> None:
        """Take a frame of writes; `decoded` is `body` decoded.

        The node checks each write, answers the refused ones and proposes the rest. One reply per write follows, or one
        for all of a run of ids.
        """

    def request(self, sink: Sink, request_id: int, method: int, timeout_ms: int, arguments: list[Any]) -> None:
        """Take any other request; one reply follows (none for CANCEL)."""

    def forget(self, sink: Sink) -> None:
        """The connection has gone: drop its watches and its waiting reads; writes go on unanswered."""

    def status(self) -> dict[str, Any]:
        """Return the fields of etcd's StatusResponse, for metrics and health checks."""

    def health(self) -> dict[str, ApiError | None]:
        """Return the checks behind /livez and /readyz: name -> None if passed, else why not."""

"""A real node as a server of scenarios, spoken to by hand: arrays of coord.cddl over plain WebSockets.

Nothing of coord's client takes part, so that a mistake that client and node share does not pass unseen.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.typing import Subprotocol

from coord.codec import decode, encode
from coord.errors import ApiError
from coord.protocol.ops import SUBPROTOCOL, ClientMessage, Method, Notification, ServerMessage

from . import wire
from .etcd import ANSWER_WAIT_S, MESSAGE_BYTES_MAX, START_WAIT_S, check_whole_revisions, free_port, is_ready
from .vocabulary import (
    Canceled,
    CancelWatch,
    Created,
    Events,
    Happened,
    NextCancel,
    NextEvents,
    NoSuchWatch,
    Progress,
    Progressed,
    Range,
    Refused,
    Request,
    Watch,
    WatchRefused,
)


class NodeServer:
    """One node on loopback, its data in `directory`; a context manager."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        url = f"http://127.0.0.1:{self.port}"
        directory.mkdir(parents=True, exist_ok=True)
        self._log = (directory / "log").open("wb")
        options = ["--data-dir", str(directory / "data"), "--listen-client-urls", url, "--advertise-client-urls", url]
        options += ["--listen-peer-urls", "http://127.0.0.1:0"]
        command = [sys.executable, "-m", "coord", "serve", *options]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    def __enter__(self) -> NodeServer:
        give_up = time.monotonic() + START_WAIT_S
        while not is_ready(self.port, "/readyz"):
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.__exit__()
                raise RuntimeError(f"the node did not start: {Path(self._log.name).read_text()}")
            time.sleep(0.02)
        return self

    def has_logged(self, event: str) -> bool:
        """Tell whether the node's log has an event."""
        return event in Path(self._log.name).read_text()

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


class NodeDriver:
    """Runs requests of the vocabulary against one node."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._calls = _Link(port)
        self._streams: dict[str, _WatchLink] = {}

    def revision(self) -> int:
        """Return the store's revision."""
        return int(self.call(Range(b"\0")).at)

    def call(self, request: Request) -> Any:
        """Return the reply to a bound request, or `Refused`."""
        match request:
            case Watch(stream=name) | NextEvents(stream=name) | NextCancel(stream=name):
                return self._stream(name).call(request)
            case CancelWatch(stream=name) | Progress(stream=name):
                return self._stream(name).call(request)
        try:
            write = wire.write_of(request)
            if write is None:
                revision, result = self._calls.ask(*wire.read_of(request))
            else:
                revision, result = self._calls.write(*write)
        except ApiError as error:
            return Refused(error.code, error.text)
        return wire.reply_of(request, revision, result)

    def end_row(self) -> None:
        """Close the connections that a row opened."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()

    def close(self) -> None:
        """Hang up."""
        self.end_row()
        self._calls.close()

    def _stream(self, name: str) -> _WatchLink:
        if name not in self._streams:
            self._streams[name] = _WatchLink(self._port)
        return self._streams[name]


class _Link:
    """One connection: a request at a time; notifications that come in between wait in order."""

    def __init__(self, port: int) -> None:
        self._open = ExitStack()
        link = connect(
            f"ws://127.0.0.1:{port}/",
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            max_size=MESSAGE_BYTES_MAX,
            compression=None,
            ping_interval=None,
        )
        self._socket = self._open.enter_context(link)
        hello = self._receive()
        assert hello[0] == ServerMessage.HELLO, hello
        self._last_id = 0
        self.unread: list[list[Any]] = []
        """Notifications, each for one watch: `[kind, watch, …]`."""

    def close(self) -> None:
        self._open.close()

    def ask(self, method: Method, arguments: list[Any]) -> tuple[int, Any]:
        """Return `(revision, result)`. Raises `ApiError`."""
        self._last_id += 1
        self._socket.send(encode([int(ClientMessage.REQUESTS), [[self._last_id, int(method), 0, arguments]]]))
        return self._answer()

    def write(self, op: int, arguments: list[Any]) -> tuple[int, Any]:
        """Send one write without a number and return `(revision, result)`. Raises `ApiError`."""
        self._last_id += 1
        body = encode([[0, int(op), None, arguments]])
        self._socket.send(encode([int(ClientMessage.WRITES), 0, 0, [[self._last_id, 0]], body]))
        return self._answer()

    def next_notification(self, wanted: Any) -> list[Any]:
        """Return the next notification that is wanted; the others keep their order."""
        for place, notification in enumerate(self.unread):
            if wanted(notification):
                return self.unread.pop(place)
        while True:
            seen = len(self.unread)
            self._take(self._receive())
            for place, notification in enumerate(self.unread[seen:], start=seen):
                if wanted(notification):
                    return self.unread.pop(place)

    def _answer(self) -> tuple[int, Any]:
        while True:
            for reply in self._take(self._receive()):
                assert reply[0] in (0, self._last_id), reply
                if len(reply) > 3:
                    raise ApiError.from_wire(reply[3])
                return reply[1], reply[2]

    def _take(self, message: list[Any]) -> list[Any]:
        if message[0] == ServerMessage.NOTIFICATIONS:
            # One notification may be for several watches.
            self.unread += [[kind, watch, *rest] for kind, ids, *rest in message[5] for watch in ids]
            return []
        assert message[0] == ServerMessage.REPLIES, message
        return list(message[5])

    def _receive(self) -> list[Any]:
        data = self._socket.recv(timeout=ANSWER_WAIT_S)
        assert isinstance(data, bytes), data
        return list(decode(data))


class _WatchLink(_Link):
    """A connection for the watches of one stream of a row."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._last_revision: dict[int, int] = {}

    def call(self, request: Request) -> Any:
        match request:
            case Watch():
                return self._create(request)
            case NextEvents(watch=watch, count=count):
                return self._events(watch, count)
            case NextCancel(watch=watch):
                _, _, compacted, _ = self.next_notification(
                    lambda one: one[0] == Notification.CANCELED and one[1] == watch
                )
                return Canceled(compacted)
            case CancelWatch(watch=watch):
                _, existed = self.ask(Method.WATCH_CANCEL, [watch])
                return Canceled() if existed else NoSuchWatch()
            case Progress():
                return Progressed(self.ask(Method.WATCH_PROGRESS, [])[1])
        raise TypeError(f"no watch request: {request!r}")

    def _create(self, request: Watch) -> Any:
        try:
            _, (watch, _) = self.ask(Method.WATCH_CREATE, wire.watch_create(request))
        except ApiError as error:
            return WatchRefused(error.text)
        return Created(watch)

    def _events(self, watch: int, count: int) -> Events:
        events: list[Happened] = []
        is_part = fragmented = False
        while len(events) < count or is_part:
            found = self.next_notification(lambda one: one[0] != Notification.PROGRESS and one[1] == watch)
            assert found[0] == Notification.EVENTS, f"watch {watch} ended after {events}: {found}"
            told = [wire.event(one) for one in found[3]]
            assert {event.pair.modified for event in told} == {found[2]}, found
            check_whole_revisions(self._last_revision, watch, told, is_part=is_part)
            is_part = len(found) > 4 and found[4]
            fragmented = fragmented or is_part
            events += told
        return Events(tuple(events), fragmented)

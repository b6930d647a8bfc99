"""The real etcd as a server of scenarios: its JSON gateway for calls, the WebSocket form of its `/v3/watch`."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from . import gateway
from .vocabulary import (
    Canceled,
    CancelWatch,
    Created,
    Events,
    Happened,
    NextCancel,
    NextEvents,
    Nothing,
    Progress,
    Progressed,
    Range,
    Refused,
    Request,
    Watch,
    WatchRefused,
)

ANSWER_WAIT_S = 10.0
START_WAIT_S = 20.0
MESSAGE_BYTES_MAX = 64 * 1024 * 1024


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EtcdServer:
    """One etcd on loopback, its data in `directory`; a context manager."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.port = free_port()
        client, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{free_port()}"
        urls = ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
        cluster = ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        directory.mkdir(parents=True, exist_ok=True)
        self._log = (directory / "log").open("wb")
        command = [
            "etcd",
            "--data-dir",
            str(directory / "data"),
            *urls,
            *cluster,
            "--log-level",
            "error",
            *options,
        ]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    def __enter__(self) -> EtcdServer:
        give_up = time.monotonic() + START_WAIT_S
        while not is_ready(self.port, "/health"):
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.__exit__()
                raise RuntimeError(f"etcd did not start: {Path(self._log.name).read_text()}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


def is_ready(port: int, path: str) -> bool:
    """Tell whether the server on loopback answers its health check."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def check_whole_revisions(last: dict[int, int], watch: int, told: list[Happened], *, is_part: bool) -> None:
    """Check that a message's events are in order and begin a new revision, unless they are part of one in fragments.

    `last` remembers the last revision of each watch.
    """
    revisions = [event.pair.modified for event in told]
    before = last.get(watch, 0)
    if sorted(revisions) != revisions or revisions[0] < before or (revisions[0] == before and not is_part):
        raise AssertionError(f"watch {watch}: revisions {revisions} after {before}")
    last[watch] = revisions[-1]


class EtcdDriver:
    """Runs requests of the vocabulary against one etcd."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_WAIT_S)
        self._streams: dict[str, _WatchStream] = {}

    def revision(self) -> int:
        """Return the store's revision."""
        return int(self.call(Range(b"\0")).at)

    def call(self, request: Request) -> Any:
        """Return the reply to a bound request, `Refused`, or `Nothing` if the server died of it."""
        match request:
            case Watch(stream=name) | NextEvents(stream=name) | NextCancel(stream=name):
                return self._stream(name).call(request)
            case CancelWatch(stream=name) | Progress(stream=name):
                return self._stream(name).call(request)
        path, body = gateway.encode(request)
        try:
            self._http.request("POST", f"/v3/{path}", json.dumps(body))
            answer = json.loads(self._http.getresponse().read())
        except ConnectionError:
            return Nothing()
        if "code" in answer:
            return Refused(gateway.CODES[answer["code"]], answer["message"])
        return gateway.decode(request, answer)

    def end_row(self) -> None:
        """Close the streams that a row opened."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()

    def close(self) -> None:
        """Hang up."""
        self.end_row()
        self._http.close()

    def _stream(self, name: str) -> _WatchStream:
        if name not in self._streams:
            self._streams[name] = _WatchStream(self._port)
        return self._streams[name]


class _WatchStream:
    """One etcd watch stream. Messages that the current step does not look for wait for a later one."""

    def __init__(self, port: int) -> None:
        self._open = ExitStack()
        link = connect(f"ws://127.0.0.1:{port}/v3/watch", max_size=MESSAGE_BYTES_MAX, ping_interval=None)
        self._socket = self._open.enter_context(link)
        self._unread: list[dict[str, Any]] = []
        self._living: set[int] = set()
        self._last_revision: dict[int, int] = {}

    def close(self) -> None:
        self._open.close()

    def call(self, request: Request) -> Any:
        match request:
            case Watch():
                return self._create(request)
            case NextEvents(watch=watch, count=count):
                return self._events(watch, count)
            case NextCancel(watch=watch):
                return self._canceled(watch)
            case CancelWatch(watch=watch):
                self._send({"cancel_request": {"watch_id": str(watch)}})
                if watch in self._living:
                    return self._canceled(watch)
                return self._nothing_before_an_answer(watch)
            case Progress():
                self._send({"progress_request": {}})
                message = self._next(lambda one: int(one.get("watch_id", 0)) == -1 and not one.get("created"))
                return Progressed(int(message["header"]["revision"]))
        raise TypeError(f"no watch request: {request!r}")

    def _create(self, request: Watch) -> Any:
        self._send({"create_request": gateway.watch_create(request)})
        message = self._next(lambda one: one.get("created", False))
        if message.get("canceled"):
            return WatchRefused(message.get("cancel_reason", ""))
        watch = int(message.get("watch_id", 0))
        self._living.add(watch)
        return Created(watch)

    def _canceled(self, watch: int) -> Canceled:
        message = self._next(lambda one: one.get("canceled", False) and int(one.get("watch_id", 0)) == watch)
        self._living.discard(watch)
        return Canceled(int(message.get("compact_revision", 0)))

    def _nothing_before_an_answer(self, watch: int) -> Nothing | Canceled:
        """Tell silence from a late answer: what the server does with the next request comes after it."""
        self._send({"create_request": {"key": gateway.text(b"nothing")}})
        message = self._next(lambda one: one.get("created", False) or one.get("canceled", False))
        return Nothing() if message.get("created") else Canceled()

    def _events(self, watch: int, count: int) -> Events:
        events: list[Happened] = []
        is_part = fragmented = False
        while len(events) < count or is_part:
            message = self._next(
                lambda one: int(one.get("watch_id", 0)) == watch and ("events" in one or one.get("canceled", False))
            )
            if message.get("canceled"):
                raise AssertionError(f"watch {watch} ended after {events}: {message}")
            told = [gateway.event(one) for one in message["events"]]
            check_whole_revisions(self._last_revision, watch, told, is_part=is_part)
            is_part = message.get("fragment", False)
            fragmented = fragmented or is_part
            events += told
        return Events(tuple(events), fragmented)

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.send(json.dumps(message))

    def _next(self, wanted: Any) -> dict[str, Any]:
        """Return the next message that is wanted; the others keep their order."""
        for place, message in enumerate(self._unread):
            if wanted(message):
                return self._unread.pop(place)
        give_up = time.monotonic() + ANSWER_WAIT_S
        while True:
            message = json.loads(self._socket.recv(timeout=max(0.0, give_up - time.monotonic())))["result"]
            if wanted(message):
                return dict(message)
            self._unread.append(message)

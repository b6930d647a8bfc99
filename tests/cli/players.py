"""Who runs the table: etcdctl with an etcd, coord with a node of its own."""

from __future__ import annotations

import http.client
import io
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Final

from coord.cli.main import main

from .golden import Outcome, outcome
from .table import Row

SOURCE: Final = Path(__file__).parents[2] / "src"
START_WAIT_S: Final = 30.0
RUN_WAIT_S: Final = 20.0
_ID: Final = re.compile(r"\b[0-9a-f]{12,16}\b")


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environ(**more: str) -> dict[str, str]:
    """Return the environment without what would steer either command line."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("ETCD", "COORD"))}
    return {**kept, **more}


class Server:
    """A process that serves clients on loopback; a context manager. `command` gets the client and the peer URL."""

    def __init__(self, command: Sequence[str], health: str, directory: Path, environ: Mapping[str, str]) -> None:
        self.port = free_port()
        urls = {"client": f"http://127.0.0.1:{self.port}", "peer": f"http://127.0.0.1:{free_port()}"}
        directory.mkdir(parents=True)
        self._health = health
        self._log = directory / "log"
        words = [word.format(**urls, data=directory / "data") for word in command]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env=dict(environ))

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        give_up = time.monotonic() + START_WAIT_S
        while not self._is_healthy():
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.__exit__()
                raise RuntimeError(f"no server, exit status {self.process.returncode}: {self._log.read_text()}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", self._health)
            answer = connection.getresponse()
            return answer.status == http.client.OK and b"false" not in answer.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def etcd(directory: Path) -> Server:
    """Return a fresh etcd."""
    command = ["etcd", "--data-dir={data}", "--log-level=error", "--logger=zap"]
    command += ["--listen-client-urls={client}", "--advertise-client-urls={client}", "--listen-peer-urls={peer}"]
    command += ["--initial-advertise-peer-urls={peer}", "--initial-cluster=default={peer}"]
    return Server(command, "/health", directory, clean_environ())


def node(directory: Path, *options: str) -> Server:
    """Return a fresh node of coord."""
    command = [sys.executable, "-m", "coord", "serve", "--data-dir={data}"]
    command += ["--listen-client-urls={client}", "--listen-peer-urls={peer}", *options]
    return Server(command, "/readyz", directory, clean_environ(PYTHONPATH=str(SOURCE)))


class Player:
    """Runs rows with one command line program, and keeps what they ask to keep."""

    def __init__(self, program: Sequence[str], environ: Mapping[str, str], renamed: Mapping[str, str]) -> None:
        self._program = list(program)
        self._environ = dict(environ)
        self._renamed = renamed
        self._kept: dict[str, str] = {}

    def play(self, row: Row) -> Outcome:
        """Run one row."""
        line = row.line
        for name, text in self._kept.items():
            line = line.replace(f"{{{name}}}", text)
        environ = dict(self._environ)
        for name, text in row.env:
            environ[self._rename(name)] = text
        words = [self._rename(word) for word in shlex.split(line)]
        status, stdout, stderr = self._run(words, environ, row)
        if row.keep:
            self._kept[row.keep] = _ID.findall(stdout.decode())[0]
        return outcome(None if row.until else status, stdout, stderr)

    def _rename(self, word: str) -> str:
        for old, new in self._renamed.items():
            word = word.replace(old, new)
        return word

    def _run(self, words: list[str], environ: dict[str, str], row: Row) -> tuple[int, bytes, bytes]:
        if row.until:
            return self._run_until(words, environ, row)
        done = subprocess.run(
            [*self._program, *words],
            input=row.stdin.encode(),
            capture_output=True,
            env=environ,
            timeout=RUN_WAIT_S,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def _run_until(self, words: list[str], environ: dict[str, str], row: Row) -> tuple[int, bytes, bytes]:
        """Run what goes on for ever until it has written enough lines; its standard input stays open."""
        process = subprocess.Popen(
            [*self._program, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        lines: Queue[bytes] = Queue()
        reader = threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True)
        reader.start()
        got: list[bytes] = []
        try:
            for text in row.stdin.splitlines(keepends=True):
                process.stdin.write(text.encode())
                process.stdin.flush()
                if text.startswith("watch") and "progress" in row.stdin:
                    # Progress that is asked for before the watch stands is answered by nobody, here and there.
                    time.sleep(0.3)
            give_up = time.monotonic() + RUN_WAIT_S
            while len(got) < row.until:
                got.append(lines.get(timeout=max(give_up - time.monotonic(), 0.01)))
        except Empty:
            raise AssertionError(f"{row.line}: {len(got)} lines of {row.until}: {b''.join(got)!r}") from None
        finally:
            process.kill()
            reader.join()
            process.wait()
            stderr = process.stderr.read()
            for stream in (process.stdin, process.stdout, process.stderr):
                stream.close()
        while not lines.empty():
            got.append(lines.get())
        return 0, b"".join(got), stderr


def _read_lines(stream: object, lines: Queue[bytes]) -> None:
    for line in stream:  # type: ignore[attr-defined]
        lines.put(line)


class InProcess(Player):
    """Runs coord's rows in this process, which spares starting Python; what goes on or forks gets its own."""

    def _run(self, words: list[str], environ: dict[str, str], row: Row) -> tuple[int, bytes, bytes]:
        if row.until or " -- " in row.line or words[:1] == ["lock"]:
            return super()._run(words, environ, row)
        return run_here(words, environ, row.stdin.encode())


def run_here(words: list[str], environ: Mapping[str, str], stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    """Run one command line of coord in this process; return exit status, stdout and stderr."""
    before = dict(os.environ), sys.stdin, sys.stdout, sys.stderr
    streams = [io.BytesIO(stdin), io.BytesIO(), io.BytesIO()]
    os.environ.clear()
    os.environ.update(environ)
    sys.stdin, sys.stdout, sys.stderr = (io.TextIOWrapper(each, "utf-8", write_through=True) for each in streams)
    try:
        status = main(words)
        return status, streams[1].getvalue(), streams[2].getvalue()
    finally:
        os.environ.clear()
        os.environ.update(before[0])
        sys.stdin, sys.stdout, sys.stderr = before[1:]


def etcdctl(endpoint: str) -> Player:
    """Return etcdctl, asking `endpoint`."""
    return Player(["etcdctl"], clean_environ(ETCDCTL_API="3", ETCDCTL_ENDPOINTS=endpoint), {})


def coord(endpoint: str) -> Player:
    """Return coord, asking `endpoint`."""
    environ = clean_environ(PYTHONPATH=str(SOURCE), COORD_ENDPOINTS=endpoint)
    renamed = {"ETCDCTL_": "COORD_", "ETCD_WATCH_": "COORD_WATCH_", "ETCD_LOCK_": "COORD_LOCK_"}
    return InProcess([sys.executable, "-m", "coord"], environ, renamed)

"""The walkthrough runs as it stands: its commands go to one shell, and after each section its facts are checked."""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster import free_port

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "walkthrough.md"
PORTS = ("7379", "7380", "17379", "17380", "27379", "27380")
PORT = re.compile(r"\b(?:[12]?7379|[12]?7380)\b")
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCK_TIMEOUT_S = 40.0
Said = list[str]


def sections() -> dict[str, list[str]]:
    """Return the commands of the page by section, one text a block."""
    parts = SECTION.split(PAGE.read_text(encoding="utf-8"))
    return {title: BLOCK.findall(body) for title, body in zip(parts[1::2], parts[2::2], strict=True)}


class Shell:
    """One bash in an empty directory, with free ports for those of the page."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = {port: str(free_port()) for port in PORTS}
        binaries = directory / "bin"
        binaries.mkdir()
        command = binaries / "coord"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -W error -m coord "$@"\n')
        command.chmod(0o755)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("COORD_")}
        environ["PATH"] = f"{binaries}:{environ['PATH']}"
        self.bash = subprocess.Popen(
            ["bash"], cwd=directory, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, process_group=0,
        )  # fmt: skip
        self.took_s = 0.0

    def run(self, block: str) -> str:
        """Run the commands of a block; return what they print."""
        assert self.bash.stdin is not None
        assert self.bash.stdout is not None
        mark = f"-- done {time.monotonic_ns()} --"
        script = PORT.sub(lambda match: self.ports[match[0]], block)
        started = time.monotonic()
        self.bash.stdin.write(f"{script}\necho '{mark}'\n".encode())
        self.bash.stdin.flush()
        printed = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.bash.stdout, selectors.EVENT_READ)
            while mark.encode() not in printed:
                left_s = started + BLOCK_TIMEOUT_S - time.monotonic()
                assert selector.select(max(left_s, 0)), f"{block}\nhangs after:\n{printed.decode()}"
                data = os.read(self.bash.stdout.fileno(), 65536)
                assert data, f"bash has ended after:\n{printed.decode()}"
                printed += data
        self.took_s = time.monotonic() - started
        lines = printed.decode().split(mark)[0].splitlines(keepends=True)
        # What bash itself says of a job that was killed.
        return "".join(line for line in lines if not line.startswith("bash: line "))

    def log(self, name: str) -> list[dict[str, Any]]:
        lines = (self.directory / f"{name}.log").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def close(self) -> None:
        if self.bash.poll() is None:
            os.killpg(self.bash.pid, 9)
        self.bash.communicate()


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("walkthrough"))
    try:
        yield shell
    finally:
        shell.close()


def seconds(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["ts"].replace("Z", "+00:00")).timestamp()


def first(lines: list[dict[str, Any]], event: str, **wanted: Any) -> dict[str, Any]:
    return next(
        line
        for line in lines
        if line["event"] == event and all(line.get(key) == value for key, value in wanted.items())
    )


def check_three_names(shell: Shell, said: Said) -> None:
    assert said == [""]


def check_alone(shell: Shell, said: Said) -> None:
    put, misses, standing = said
    assert put.startswith("Error: ")
    assert "no leader: n1 waits for n2, n3" in put
    missed = {json.loads(line)["name"] for line in misses.splitlines()}
    assert missed == {"n2", "n3"}
    term, errors = standing.splitlines()
    assert term == '"raft_term":0', "alone it begins no term"
    assert errors == '"errors":["etcdserver: no leader: n1 waits for n2, n3"]}'


def check_second(shell: Shell, said: Said) -> None:
    put, story, read = said
    assert put == "OK\n"
    events = {json.loads(line)["event"] for line in story.splitlines()}
    assert {"raft.election.started", "raft.election.won", "raft.vote.granted", "raft.role.changed"} <= events
    linked = min(seconds(first(shell.log(name), "peer.link.opened")) for name in ("n1", "n2"))
    elected = min(
        seconds(line)
        for name in ("n1", "n2")
        for line in shell.log(name)
        if line["event"] == "raft.role.changed" and line["to_role"] == "leader"
    )
    assert elected - linked < 1.0
    assert max(line["term"] for name in ("n1", "n2") for line in shell.log(name)) <= 2
    assert read == "OK\ngreeting\nhello from n1\n"


def check_third(shell: Shell, said: Said) -> None:
    (out,) = said
    assert out.startswith("greeting\nhello from n1\n")
    for name in ("n1", "n2", "n3"):
        assert f" {name} " in out
    assert out.count("started") == 3
    assert out.count(" true ") == 1, "one leader"


def check_killed(shell: Shell, said: Said) -> None:
    put, back = said
    assert put.endswith("OK\ngreeting\nhello again\n")
    assert "greeting\nhello again\n" in back
    status = [line.split(", ") for line in back.splitlines() if ", " in line]
    assert len(status) == 3
    assert sum(row[4] == "true" for row in status) == 1
    assert len({row[6] for row in status}) == 1, "one term"


def check_two_down(shell: Shell, said: Said) -> None:
    lost, old = said
    errors = [line for line in lost.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 2
    assert old == "greeting\nhello again\n"


def check_back(shell: Shell, said: Said) -> None:
    put, _ = said
    assert put.count("still here\n") == 3
    hashes = {line.split(", ")[1] for line in put.splitlines() if ", " in line}
    assert len(hashes) == 1
    for name in ("n1", "n2", "n3"):
        # That a peer which ended too could not be reached may be told in the same pass, behind it.
        assert "node.shutdown.finished" in [line["event"] for line in shell.log(name)[-3:]]


CHECKS: dict[str, Callable[[Shell, Said], None]] = {
    "Three names and their addresses": check_three_names,
    "One node of three, alone": check_alone,
    "A second node: a quorum": check_second,
    "A third one, late": check_third,
    "The leader is killed": check_killed,
    "Two of three are down": check_two_down,
    "All back": check_back,
}


def test_the_page_has_these_sections() -> None:
    assert list(sections()) == list(CHECKS)


def test_the_walkthrough_runs_as_it_stands(shell: Shell) -> None:
    for title, blocks in sections().items():
        said = [shell.run(block) for block in blocks]
        try:
            CHECKS[title](shell, said)
        except (AssertionError, ValueError, StopIteration) as error:
            raise AssertionError(f"{title}:\n{''.join(said)}") from error

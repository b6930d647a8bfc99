"""The examples of the pages run as they stand there, against a real node."""

from __future__ import annotations

import os
import re
import select
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cluster import NodeProcess

ROOT = Path(__file__).parents[2]
DEFAULT_ENDPOINT = "127.0.0.1:7379"
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
STEP_TIMEOUT_S = 30


def examples(language: str, *pages: str) -> list[tuple[str, str]]:
    found = []
    for page in pages:
        text = (ROOT / page).read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match["language"] == language:
                line = text.count("\n", 0, match.start()) + 1
                found.append((f"{page}:{line}", match["code"]))
    return found


PAGES = (
    "README.md",
    "docs/client.md",
    "docs/discovery.md",
    "docs/elections.md",
    "docs/locks.md",
    "docs/protocol.md",
)
PROGRAMS = examples("python", *PAGES)
README_COMMANDS = [
    command
    for _, code in examples("sh", "README.md")
    for command in code.splitlines()
    if command.startswith(".venv/bin/coord ")
]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    node = NodeProcess(tmp_path_factory.mktemp("examples"))
    try:
        node.start()
        yield node.endpoint
        assert node.terminate() == 0
        node.log()
    finally:
        node.cleanup()


def run(command: list[str], endpoint: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "COORD_ENDPOINTS": endpoint, "PYTHONWARNINGS": "error"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=STEP_TIMEOUT_S, env=environ, cwd=ROOT
    )


def test_the_pages_have_examples() -> None:
    pages = {where.partition(":")[0] for where, _ in PROGRAMS}
    assert pages == set(PAGES)
    assert len(README_COMMANDS) >= 3


@pytest.mark.parametrize("code", [code for _, code in PROGRAMS], ids=[where for where, _ in PROGRAMS])
def test_a_program_runs_as_it_stands(code: str, endpoint: str) -> None:
    ended = run([sys.executable, "-c", code.replace(DEFAULT_ENDPOINT, endpoint)], endpoint)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("command", README_COMMANDS)
def test_a_command_line_runs_as_it_stands(command: str, endpoint: str) -> None:
    words = [sys.executable, "-m", "coord", *shlex.split(command)[1:]]
    if "watch" in words:
        # It would go on for ever: it is left running until it has printed what was put.
        assert_watches(words, endpoint)
        return
    ended = run(words, endpoint)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout


def assert_watches(words: list[str], endpoint: str) -> None:
    environ = {**os.environ, "COORD_ENDPOINTS": endpoint}
    put = [sys.executable, "-m", "coord", "put", "greeting", "hello"]
    expected, printed = b"PUT\ngreeting\nhello\n", b""
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environ) as watch:
        assert watch.stdout is not None
        # Nobody says when the watch stands: puts go on until one of them is seen.
        for _ in range(STEP_TIMEOUT_S):
            assert run(put, endpoint).returncode == 0
            if select.select([watch.stdout], [], [], 0.5)[0]:
                printed += os.read(watch.stdout.fileno(), 4096)
            if len(printed) >= len(expected):
                break
        watch.kill()
    assert printed[: len(expected)] == expected


def test_the_session_of_the_readme_says_what_it_should(endpoint: str) -> None:
    """`put` then `get`, as the README shows them."""
    put, get = README_COMMANDS[:2]
    for command, printed in ((put, "OK\n"), (get, "greeting\nhello\n")):
        ended = run([sys.executable, "-m", "coord", *shlex.split(command)[1:]], endpoint)
        assert ended.stdout == printed

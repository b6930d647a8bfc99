"""The page about members runs as it stands: five nodes of one machine come, die, are wiped, move and leave."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.docs.test_walkthrough import BLOCK, SECTION, Said, Shell

PAGE = Path(__file__).parents[2] / "docs" / "members.md"
MEMBER = re.compile(r"^([0-9a-f]+), (\w+), (\w*), (.*), (.*), (\w+)$", re.MULTILINE)


def sections() -> dict[str, list[str]]:
    """Return the commands of the page by section, what stands before the first one included."""
    before, *parts = SECTION.split(PAGE.read_text(encoding="utf-8"))
    return {"": BLOCK.findall(before)} | {
        title: BLOCK.findall(body) for title, body in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    try:
        yield shell
    finally:
        shell.run("kill -9 $(cat *.pid); wait")
        shell.close()


def names(shell: Shell) -> list[str]:
    listed = MEMBER.findall(shell.run("coord member list"))
    assert all(is_learner == "false" for *_, is_learner in listed), listed
    return sorted(name for _, _, name, *_ in listed)


def check_silent(shell: Shell, said: Said) -> None:
    assert "".join(said) == ""


def check_one(shell: Shell, said: Said) -> None:
    assert said == ["OK\n"]
    assert names(shell) == ["n1"]


def check_grown(shell: Shell, said: Said) -> None:
    assert re.match(r"Member +[0-9a-f]+ added to cluster +[0-9a-f]+\n\nCOORD_NAME=\"n2\"\n", said[0])
    assert "Error" not in "".join(said)
    hashes = {line.split(", ")[1] for line in said[-1].splitlines() if line.startswith("http://")}
    assert len(hashes) == 1
    assert names(shell) == ["n1", "n2", "n3", "n4", "n5"]


def check_replaced(shell: Shell, said: Said) -> None:
    assert re.search(r"^Member +[0-9a-f]+ removed from cluster", said[-1])
    assert said[-1].count("is healthy") == 5
    assert names(shell) == ["n1", "n2", "n3", "n4", "n5"]


def check_wiped(shell: Shell, said: Said) -> None:
    refused = said[0]
    assert '"event":"node.process.failed"' in refused
    for words in ("has joined with another data directory", "coord member remove", "coord member add"):
        assert words in refused
    assert names(shell) == ["n1", "n2", "n3", "n4", "n5"]


def check_moved(shell: Shell, said: Said) -> None:
    assert said[0].startswith("Leadership transferred from ")
    assert said[1].count("is healthy") == 5
    assert "http://127.0.0.14:" in shell.run("coord member list")


def check_shrunk(shell: Shell, said: Said) -> None:
    ((_, status, name, *_),) = MEMBER.findall(said[0])
    assert (status, name) == ("started", "n1")
    assert said[0].count(" removed from cluster ") == 4
    assert said[0].endswith("greeting\nhello\n")
    for name in ("n2", "n3", "n4", "n5"):
        assert any(line["event"] == "node.membership.ended" for line in shell.log(name))


CHECKS: dict[str, Callable[[Shell, Said], None]] = {
    "": check_silent,
    "One node": check_one,
    "Grow: 1 → 3 → 5": check_grown,
    "Replace a dead member": check_replaced,
    "A wiped directory is refused": check_wiped,
    "Move the lead, change an address": check_moved,
    "Shrink: 5 → 3 → 1": check_shrunk,
    "When a change is refused": check_silent,
}


def test_the_page_has_these_sections() -> None:
    assert list(sections()) == list(CHECKS)


def test_the_page_runs_as_it_stands(shell: Shell) -> None:
    for title, blocks in sections().items():
        said = [shell.run(block) for block in blocks]
        try:
            CHECKS[title](shell, said)
        except (AssertionError, ValueError) as error:
            raise AssertionError(f"{title}:\n{''.join(said)}") from error

"""The examples of the pages have types that both checkers follow: mypy as strict as it gets, and pyright."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .test_examples import ROOT, examples

WAIT_S = 300
PAGES = sorted(
    # The page about the protocol talks to a node without coord: what it shows has the types of other libraries.
    str(page.relative_to(ROOT))
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
    if page.name != "protocol.md"
)
ENVIRON = {
    **os.environ,
    "MYPYPATH": str(ROOT / "src"),
    "PYTHONPATH": str(ROOT / "src"),
    # What is installed is what is asked: no look at what is newest, and nothing to fetch.
    "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
}


def module(where: str, code: str) -> str:
    """Return what the file of an example is called: what it says itself, for those that import each other."""
    if code.startswith("# ") and code.partition("\n")[0].endswith(".py"):
        return code.partition("\n")[0].removeprefix("# ")
    page, _, line = where.partition(":")
    return f"{Path(page).stem}_{line}.py"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("examples")
    for where, code in examples("python", *PAGES):
        (directory / module(where, code)).write_text(code, encoding="utf-8")
    return directory


def check(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=WAIT_S, env=ENVIRON, cwd=directory
    )


def test_there_are_examples_to_check(directory: Path) -> None:
    assert len(list(directory.glob("*.py"))) >= 20


def test_mypy_follows_them(directory: Path) -> None:
    cache = f"--cache-dir={ROOT / '.mypy_cache'}"
    found = check([sys.executable, "-m", "mypy", "--strict", cache, "--scripts-are-modules", "."], directory)
    assert found.returncode == 0, found.stdout + found.stderr


def test_pyright_follows_them(directory: Path) -> None:
    found = check([sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "."], directory)
    told = json.loads(found.stdout)
    assert told["summary"]["filesAnalyzed"] >= 20
    assert not told["generalDiagnostics"], json.dumps(told["generalDiagnostics"], indent=1)

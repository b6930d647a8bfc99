"""The schedules that books and bug reports name, each a story in `scripts/`; `stage` tells the verbs."""

from __future__ import annotations

from pathlib import Path

import pytest

from .stage import ScriptFailed, Stage

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    Stage().run(path)


def test_every_script_names_its_source_and_expects_something() -> None:
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        assert "# Source: " in text, path.name
        assert "\nexpect " in text, path.name


def test_a_script_that_expects_wrong_things_fails(tmp_path: Path) -> None:
    path = tmp_path / "wrong.txt"
    path.write_text("nodes 1\nelect 1\nexpect 1 term=2\n")
    with pytest.raises(ScriptFailed, match=r"wrong\.txt:3: expect 1 term=2"):
        Stage().run(path)

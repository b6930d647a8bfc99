"""Record what the installed etcdctl says: `python -m tests.cli.record [chapter …]`, from the root of the checkout."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from . import golden, players
from .golden import Outcome
from .table import CHAPTERS


def recorded(chapter: str, directory: Path) -> list[tuple[str, Outcome]]:
    """Run a chapter through etcdctl, on a fresh etcd."""
    rows = [row for row in CHAPTERS[chapter] if not row.differs]
    if not rows:
        return []
    with players.etcd(directory / chapter) as server:
        player = players.etcdctl(server.endpoint)
        told = []
        for row in CHAPTERS[chapter]:
            # A row that differs runs too where it changes what later rows see, but is not kept.
            outcome = player.play(row)
            if not row.differs:
                told.append((row.line, outcome))
        return told


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        for name in sys.argv[1:] or CHAPTERS:
            golden.write(name, recorded(name, Path(temporary)))
            print(name)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .cluster import NodeProcess


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    """A node that does not run yet. In the end its last life's log is held to the catalogue."""
    node = NodeProcess(tmp_path)
    try:
        yield node
    finally:
        node.cleanup()
    node.log()

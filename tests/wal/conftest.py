from __future__ import annotations

import pytest

from .rig import Rig


@pytest.fixture
def rig() -> Rig:
    """An empty log, just begun."""
    made = Rig()
    made.recover()
    return made

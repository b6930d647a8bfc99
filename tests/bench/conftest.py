"""How tests come by the modules of `bench/`, which is no package."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest
from tests.bench.programs import BENCH


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module

"""The state of a snapshot is loaded in slices, which leave time to whoever shares the processors."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from coord.limits import TURN_BUDGET_S
from coord.node.installation import Installation
from coord.protocol.messages import SnapshotReceived
from coord.raft.types import Configuration

SLICES = 20


class Loading:
    """An installation that is about to load; each slice takes a turn's whole time, and owes `owed_s`."""

    def __init__(self, owed_s: float) -> None:
        self.now = self.loaded_s = 0.0
        self.woken_at: list[float] = []
        self.installed: list[bool] = []
        ignore: Any = lambda *arguments, **fields: True  # noqa: E731
        log = SimpleNamespace(applied=0)
        self.machine = SimpleNamespace(applied_index=0, revision=0, reload=self._reload)
        self.installation = Installation(
            raft=SimpleNamespace(install=ignore, state_to_save=ignore, installed=ignore, log=log),  # type: ignore[arg-type]
            machine=self.machine,  # type: ignore[arg-type]
            store=SimpleNamespace(switch=ignore),
            log_writer=SimpleNamespace(mark=lambda mark, state, done: done()),  # type: ignore[arg-type]
            keeper=SimpleNamespace(is_idle=True, is_held=False, switched=ignore),  # type: ignore[arg-type]
            applier=SimpleNamespace(drop=ignore, is_held=False, waiters=SimpleNamespace(skipped_to=ignore)),  # type: ignore[arg-type]
            clock=lambda: self.now,
            log=ignore,
            wake=ignore,
            wake_after=lambda seconds: self.woken_at.append(self.now + seconds),
            owed_s=lambda: owed_s,
            configuration=lambda: Configuration(frozenset({1})),
            hold=ignore,
            go_on=ignore,
        )
        self.installation.received(SnapshotReceived(2, 1, 1, 10, 1), self.installed.append)

    def _reload(self) -> Iterator[None]:
        for _ in range(SLICES):
            self.now += TURN_BUDGET_S
            self.loaded_s += TURN_BUDGET_S
            yield


@pytest.mark.parametrize("owed_s", [0.0, 0.015])
def test_loading_rests_for_what_it_owes_and_is_woken_after_it(owed_s: float) -> None:
    loading = Loading(owed_s)
    while not loading.installed:
        before = loading.loaded_s
        if loading.installation.turn() or loading.installed:
            assert not owed_s or loading.installed
            continue
        assert loading.loaded_s - before <= 2 * TURN_BUDGET_S
        assert not loading.installation.turn()
        assert loading.loaded_s - before <= 2 * TURN_BUDGET_S, "others woke the loop, and it loaded all the same"
        loading.now = loading.woken_at[-1]
    assert loading.installed == [True]
    assert len(loading.woken_at) == (SLICES if owed_s else 0)

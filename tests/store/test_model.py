"""Any order of writes, flushes, syncs and crashes: acknowledged ⊆ recovered, and at one moment (S3, S4, S6, S7)."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from coord.store.overlay import Overlay
from coord.store.store import FlushJob, Store, SyncJob
from coord.testing.store_media import LmdbMedium, SimMedium
from coord.testing.store_model import Medium, StoreModel

seeds = st.integers(0, 2**32)


class StoreSteps(RuleBasedStateMachine):
    """The model's steps, in the order that hypothesis likes to try."""

    def make_medium(self, seed: int) -> Medium:
        return SimMedium(seed)

    @initialize(seed=seeds)
    def start(self, seed: int) -> None:
        self.model = StoreModel(self.make_medium(seed), random.Random(seed))

    @rule()
    def apply(self) -> None:
        self.model.apply()

    @rule()
    def make_durable(self) -> None:
        self.model.make_durable()

    @rule()
    def remove(self) -> None:
        self.model.remove()

    @rule()
    def begin_flush(self) -> None:
        self.model.begin_flush()

    @rule()
    def run_flush(self) -> None:
        self.model.run_flush()

    @rule()
    def end_flush(self) -> None:
        self.model.end_flush()

    @rule()
    def flush(self) -> None:
        self.model.flush()

    @rule()
    def sync(self) -> None:
        self.model.sync()

    @rule(of_power=st.booleans())
    def crash(self, of_power: bool) -> None:
        self.model.crash(of_power=of_power)

    @rule()
    def check(self) -> None:
        self.model.check()


class LmdbSteps(StoreSteps):
    """The same on real files."""

    def make_medium(self, seed: int) -> Medium:
        self.directory = TemporaryDirectory(prefix="coord-store-")
        self.medium = LmdbMedium(Path(self.directory.name), seed)
        return self.medium

    def teardown(self) -> None:
        if hasattr(self, "medium"):
            self.medium.close()
            self.directory.cleanup()


TestSimSteps = StoreSteps.TestCase
TestSimSteps.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestLmdbSteps = LmdbSteps.TestCase
TestLmdbSteps.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def play(medium: Medium, seed: int, steps: int = 120) -> StoreModel:
    model = StoreModel(medium, random.Random(seed))
    for _ in range(steps):
        model.random_step()
    model.flush()
    model.sync()
    model.crash(of_power=True)
    return model


@pytest.mark.parametrize("seed", range(40))
def test_random_lives_in_memory(seed: int) -> None:
    play(SimMedium(seed), seed)


@pytest.mark.parametrize("seed", range(6))
def test_random_lives_on_lmdb(make_medium: Callable[[str, int], Medium], seed: int) -> None:
    play(make_medium("lmdb", seed), seed)


def test_a_life_repeats_from_its_seed() -> None:
    one, other = (play(SimMedium(5), 5) for _ in range(2))
    assert one.state == other.state
    assert one.revision == other.revision > 10


def caught(play_once: Callable[[int], object], rule_name: str, seeds_tried: int = 20) -> bool:
    """Tell whether a planted bug shows itself, as a breach of its rule, within some seeds."""
    breaches = []
    for seed in range(seeds_tried):
        try:
            play_once(seed)
        except AssertionError as breach:
            breaches.append(str(breach))
    return any(breach.startswith(rule_name) for breach in breaches)


def test_planted_flush_above_the_own_durable_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Overlay, "take", lambda self, _durable_index: tuple(self.closed))
    assert caught(lambda seed: play(SimMedium(seed), seed), "S3")


def test_planted_log_released_before_the_sync() -> None:
    def play_once(seed: int) -> None:
        model = StoreModel(SimMedium(seed), random.Random(seed))
        for _ in range(20):
            model.apply()
            model.make_durable()
            model.flush()
            model.released = model.store.applied_index
            model.crash(of_power=True)

    assert caught(play_once, "S4")


def test_planted_sync_that_syncs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SyncJob, "run", lambda self: None)
    assert caught(lambda seed: play(SimMedium(seed), seed), "S4")


def test_planted_sync_that_covers_what_is_not_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync vouches for the commits that had returned when it began, not for what was applied."""

    def sync_job(self: Store) -> SyncJob:
        return SyncJob(self._overlay.index, self.engine)

    monkeypatch.setattr(Store, "sync_job", sync_job)
    assert caught(lambda seed: play(SimMedium(seed), seed), "S4")


def test_planted_overlay_trimmed_before_the_commit_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Store.flush_job

    def flush_job(self: Store, durable_index: int) -> FlushJob | None:
        job = honest(self, durable_index)
        if job is not None:
            self._overlay.trim(job.segments)
            self._arrange()
        return job

    monkeypatch.setattr(Store, "flush_job", flush_job)
    monkeypatch.setattr(Store, "flushed", lambda self, _job: setattr(self, "_job", None))
    assert caught(lambda seed: play(SimMedium(seed), seed), "S7")


def test_planted_flush_cut_where_no_entry_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that does not hold all of an entry, but its index (S6)."""

    def run(self: FlushJob) -> None:
        for segment in self.segments:
            records = dict(segment.records)
            if records:
                records.popitem()
            segment.records = records
        honest(self)

    honest = FlushJob.run
    monkeypatch.setattr(FlushJob, "run", run)
    assert caught(lambda seed: play(SimMedium(seed), seed), "S6")

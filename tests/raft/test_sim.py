"""The Raft core under its simulator: bounded here; `python -m coord.testing.raft_sim --seeds …` goes on for ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

from coord.raft.types import Configuration
from coord.testing.raft_cluster import Cluster
from coord.testing.raft_faults import Faults
from coord.testing.raft_invariants import Violation, do_quorums_meet, is_quorum
from coord.testing.raft_options import draw_options
from coord.testing.raft_sim import Outcome, main, run_seed
from coord.testing.raft_trace import Trace
from coord.testing.raft_workload import Workload

SEEDS = range(200)
STEPS = 1200

SOMETIMES = (
    "blank member wiped",
    "configuration applied",
    "entry overwritten",
    "fault",
    "joint configuration applied",
    "leader elected in a joint configuration",
    "leader kept",
    "leader replaced",
    "led again",
    "raft.campaign.planned",
    "raft.quorum.lost",
    "raft.transfer.finished",
    "read confirmed on a follower",
    "snapshot installed",
    "vote or term lost in a crash",
)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    total = Outcome()
    for seed in SEEDS:
        total.add(run_seed(seed, steps=STEPS))
    return total


def test_all_seeds_keep_what_was_promised(outcome: Outcome) -> None:
    assert not outcome.failures


@pytest.mark.parametrize("what", SOMETIMES)
def test_it_happens_sometimes(outcome: Outcome, what: str) -> None:
    """A run in which nothing happens finds nothing."""
    assert outcome.counts.get(what, 0) > 0


def test_much_is_committed_and_little_is_excused(outcome: Outcome) -> None:
    assert outcome.commits > 5000
    assert outcome.counts.get("orphaned by a removal", 0) < len(SEEDS) / 50


def trace_of(seed: int) -> list[str]:
    options, trace = draw_options(seed, 600), Trace()
    cluster = Cluster(options, trace)
    Workload(cluster)
    Faults(cluster)
    cluster.run(options.steps)
    return list(trace.lines())


def test_a_seed_replays_itself() -> None:
    first, again, other = trace_of(7), trace_of(7), trace_of(8)

    assert first == again
    assert first != other


def test_a_seed_is_the_same_in_another_process() -> None:
    command = [sys.executable, "-m", "coord.testing.raft_sim", "--seed", "7", "--steps", "600", "--trace"]
    runs = [subprocess.run(command, capture_output=True, text=True, timeout=60, check=True) for _ in range(2)]
    lines = [run.stdout.splitlines()[:-1] for run in runs]

    assert lines[0] == lines[1]
    assert len(lines[0]) > 600


def test_a_failure_is_told_with_its_seed_and_its_last_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(*_: object) -> None:
        raise Violation("I0: planted")

    monkeypatch.setattr("coord.testing.raft_invariants.Ledger.scan", look)

    assert main(["--seed", "3", "--steps", "1500"]) == 1
    told = capsys.readouterr().out
    assert "seed 3: I0: planted" in told
    assert "tick" in told


def of(*voters: int, outgoing: tuple[int, ...] = (), blank: tuple[int, ...] = ()) -> Configuration:
    return Configuration(frozenset(voters), frozenset(), frozenset(outgoing), frozenset(blank))


def test_quorums_are_counted_as_the_thesis_says() -> None:
    assert is_quorum(of(1, 2, 3), {1, 2})
    assert not is_quorum(of(1, 2, 3, 4), {1, 2})
    assert not is_quorum(of(1, 2, 3, outgoing=(3, 4, 5)), {1, 2, 3})
    assert is_quorum(of(1, 2, 3, outgoing=(3, 4, 5)), {1, 3, 4})
    assert not is_quorum(of(1, 2, 3, blank=(3,)), {1, 3})
    assert not is_quorum(of(), {1})


def test_quorums_of_lawful_steps_meet() -> None:
    assert do_quorums_meet(of(1, 2, 3), of(1, 2, 3, 4))
    assert do_quorums_meet(of(1, 2, 3), of(4, 5, 6, outgoing=(1, 2, 3)))
    assert do_quorums_meet(of(4, 5, 6, outgoing=(1, 2, 3)), of(4, 5, 6))
    assert not do_quorums_meet(of(1, 2, 3), of(1, 4, 5))
    assert not do_quorums_meet(of(1, 2, 3, 4, 5), of(3, 4, 5, 6, 7, 8))

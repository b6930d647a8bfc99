"""Run the Raft core through a seed, or many: `python -m coord.testing.raft_sim --seed 7 --trace`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from attrs import define, field

from coord.testing.raft_cluster import Cluster
from coord.testing.raft_faults import Faults
from coord.testing.raft_invariants import Violation
from coord.testing.raft_liveness import Liveness
from coord.testing.raft_options import draw_options
from coord.testing.raft_trace import Trace
from coord.testing.raft_workload import Workload


@define
class Outcome:
    """What one seed, or several, came to."""

    seeds: int = 0
    steps: int = 0
    commits: int = 0
    seconds: float = 0.0
    counts: dict[str, int] = field(factory=dict)
    failures: list[tuple[int, str]] = field(factory=list)

    def add(self, other: Outcome) -> None:
        """Count another outcome in."""
        self.seeds += other.seeds
        self.steps += other.steps
        self.commits += other.commits
        self.seconds += other.seconds
        self.failures += other.failures
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count

    def summary(self) -> str:
        """Return the figures of a run on one line, for a ledger."""
        rate = round(self.steps / self.seconds) if self.seconds else 0
        return (
            f"{self.seeds} seeds, {self.steps} steps, {self.counts.get('fault', 0)} faults, {self.commits} commits, "
            f"{self.counts.get('leader elected', 0)} elections, {len(self.failures)} failures, {rate} steps/s a core"
        )


def run_seed(seed: int, *, steps: int = 0, is_told: bool = False, is_dumped: bool = False) -> Outcome:
    """Run one seed to its end; a violation is in the outcome, and with `is_dumped` its last steps are printed."""
    options = draw_options(seed, steps)
    started = time.process_time()
    outcome = Outcome(seeds=1)
    trace = Trace(is_told)
    if is_told:
        print(options)
    cluster: Cluster | None = None
    try:
        cluster = Cluster(options, trace)
        workload, faults = Workload(cluster), Faults(cluster)
        cluster.run(options.steps)
        Liveness(cluster, workload, faults).check()
    except Exception as error:  # a failed assertion of the core's is a finding like a broken invariant
        text = str(error) if isinstance(error, Violation) else f"{type(error).__name__}: {error} ({_place(error)})"
        outcome.failures.append((seed, text))
        if is_dumped and not is_told:
            print("\n".join(trace.lines()))
    outcome.seconds = time.process_time() - started
    if cluster is not None:
        outcome.steps, outcome.commits = cluster.step, cluster.ledger.committed
        outcome.counts = cluster.ledger.counts
    return outcome


def _place(error: BaseException) -> str:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return "?"
    return f"{traceback.tb_frame.f_code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}"


def run_seeds(seeds: Sequence[int]) -> Outcome:
    """Run several seeds in this process."""
    outcome = Outcome()
    for seed in seeds:
        outcome.add(run_seed(seed))
    return outcome


def _run_many(first: int, last: int, jobs: int, seconds: float, failures_max: int) -> Outcome:
    total = Outcome()
    started = time.monotonic()
    chunks = [range(at, min(at + 10, last)) for at in range(first, last, 10)]
    with ProcessPoolExecutor(jobs) as pool:
        position = 0
        while position < len(chunks):
            if (seconds and time.monotonic() - started > seconds) or len(total.failures) >= failures_max:
                break
            for outcome in pool.map(run_seeds, chunks[position : position + 4 * jobs]):
                total.add(outcome)
                for seed, text in outcome.failures:
                    print(f"seed {seed}: {text}", flush=True)
            position += 4 * jobs
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    """See `--help`."""
    parser = argparse.ArgumentParser(prog="python -m coord.testing.raft_sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="run one seed; print its last steps if it fails")
    parser.add_argument("--trace", action="store_true", help="with --seed: print one line an event")
    parser.add_argument("--steps", type=int, default=0, help="with --seed: the length of its faulty part")
    parser.add_argument("--seeds", default="0:1000", metavar="FIRST:LAST", help="run a range of seeds")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after this time")
    parser.add_argument("--failures", type=int, default=20, help="stop after so many failures")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        outcome = run_seed(options.seed, steps=options.steps, is_told=options.trace, is_dumped=True)
        for seed, text in outcome.failures:
            print(f"seed {seed}: {text}")
    else:
        first, _, last = options.seeds.partition(":")
        outcome = _run_many(int(first), int(last), options.jobs, options.seconds, options.failures)
        for name, count in sorted(outcome.counts.items()):
            print(f"{count:>10}  {name}")
    print(outcome.summary())
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())

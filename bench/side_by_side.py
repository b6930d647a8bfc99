"""coord and etcd side by side: three nodes each on this machine, loaded in turn by their own clients.

    python bench/side_by_side.py                                   every row, five pairs each; a quarter of an hour
    python bench/side_by_side.py --rows put-1-1,lock --pairs 9     some rows, longer
    python bench/side_by_side.py --rows failover --pairs 30        the leader killed 30 times on either side
    python bench/side_by_side.py --seconds 1 --pairs 2 --keys 1000 a try

Both run all the time, on one file system, with the same quota, and otherwise as they come: three nodes, a sync of a
majority before a write is acknowledged, linearizable reads. Load alternates between them, A B A B, so that what else
the machine does hits both alike; what counts is the median of the pairs' ratios. `bench/etcdload` loads etcd with its
own Go client, `bench/coordload.py` coord with its own Trio client, with the same number of connections and callers,
keys of 8 bytes and values of 256. One connection goes to the leader, many are spread over all nodes.

CPU is of the three nodes, and of the loading program; memory is the sum of the nodes' peaks of resident memory in that
row. Every load ends by itself. With `--check` it ends with status 1 if a row is below what it must reach.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import asdict, define, field

import sides
from context import CONTEXTS, Context
from rows import BEYOND, ROWS, Row
from sides import ClusterSide, Usage

SPARE_S = 120.0
"""What a load may take beyond its time, to connect and to end, before it is given up."""
PUTS_PER_S = 1_000
"""So many puts for each second of `--seconds` are watched."""
FILLING = Row("fill", "fill", 10, 1000, None, None)
FAILOVER_S = 6.0
SETTLE_S = 1.0
IDLE_S = 3.0
MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs"}


@define
class Sample:
    """What one load of one side gave."""

    value: float
    """Operations a second, or milliseconds for a gap."""
    operations: int
    p50_ms: float
    p99_ms: float
    errors: int
    server_cpu_s: float | None
    """Of the nodes, for 1 000 operations; None where a node died."""
    client_cpu_s: float
    peak_mib: float | None


def load(side: ClusterSide, row: Row, options: argparse.Namespace) -> Sample:
    """Load one side once."""
    usage = Usage(side.pids)
    command = command_of(side, row, options, options.seconds)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=options.seconds + SPARE_S, check=True)
    report = json.loads(done.stdout.splitlines()[-1])
    return sample_of(report, report["ops_per_s"], usage.cpu_s(), usage.peak_mib())


def fail_over(side: ClusterSide, row: Row, options: argparse.Namespace) -> Sample:
    """Kill the leader under load, and have it back."""
    seconds = max(FAILOVER_S, options.seconds)
    command = command_of(side, row, options, seconds)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"{side.name}: the load ended before it was under way")
            time.sleep(SETTLE_S)
            leader = side.leader()
            leader.kill()
            rest, _ = process.communicate(timeout=seconds + SPARE_S)
        finally:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"{side.name}: the load ended with status {process.returncode}")
    side.restart(leader)
    time.sleep(SETTLE_S)
    report = json.loads(rest.splitlines()[-1])
    return sample_of(report, report["gap_ms"], None, None)


def measure_beside(side: Context, results: Sequence[Result], options: argparse.Namespace) -> None:
    """Add what another one does, alone on the machine, with the rows that it has the like of."""
    with running(side):
        for result in results:
            if side.has(result.row):
                reports = result.context[side.name] = []
                for _ in range(options.pairs):
                    reports.append(side.load(result.row, options.seconds))
                    print(
                        f"{result.row.name}: {side.name} {reports[-1]['ops_per_s']:.1f} /s", file=sys.stderr, flush=True
                    )


def idle(side: ClusterSide) -> str:
    """Tell what a side takes from the other one while it waits for its turn."""
    time.sleep(SETTLE_S)
    usage = Usage(side.pids)
    time.sleep(IDLE_S)
    return f"{100 * usage.cpu_s() / IDLE_S:.1f} % of a processor while it waits for its turn"


def command_of(side: ClusterSide, row: Row, options: argparse.Namespace, seconds: float) -> list[str]:
    return [
        *side.load,
        *("--endpoints", side.endpoints()),
        *("--mode", row.mode),
        *("--conns", str(row.conns)),
        *("--clients", str(row.clients)),
        *("--seconds", str(seconds)),
        *("--total", str(max(1, int(options.seconds * PUTS_PER_S)))),
        *("--keys", str(options.keys)),
        *("--value-bytes", str(options.value_bytes)),
    ]


def sample_of(report: dict[str, Any], value: float, server_cpu_s: float | None, peak_mib: float | None) -> Sample:
    if not report["operations"]:
        raise RuntimeError("nothing was done: the load is too short for this machine")
    thousands = report["operations"] / 1000
    return Sample(
        value,
        report["operations"],
        report["p50_ms"],
        report["p99_ms"],
        report["errors"],
        None if server_cpu_s is None else server_cpu_s / thousands,
        report["cpu_s"] / thousands,
        peak_mib,
    )


@define
class Result:
    """A row's samples, in pairs."""

    row: Row
    ours: list[Sample]
    theirs: list[Sample]
    context: dict[str, list[dict[str, Any]]] = field(factory=dict)
    """What others did with the same load, by their names."""

    @property
    def ratios(self) -> list[float]:
        return [self.row.ratio(our.value, their.value) for our, their in zip(self.ours, self.theirs, strict=True)]

    @property
    def verdict(self) -> str:
        if self.row.limit_ms is not None:
            p95_ms = percentile((sample.value for sample in self.ours), 0.95)
            must, goal = (p95_ms <= limit for limit in self.row.limit_ms)
        elif self.row.must is not None and self.row.goal is not None:
            ratio = statistics.median(self.ratios)
            must, goal = ratio >= self.row.must, ratio >= self.row.goal
        else:
            return ""
        return "goal" if goal else "must" if must else "BELOW"

    def summary(self) -> dict[str, Any]:
        """Return what JSON keeps of it."""
        return {
            "row": self.row.name,
            "unit": self.row.unit,
            "ratio": spread(self.ratios),
            "must": self.row.must,
            "goal": self.row.goal,
            "limit_ms": self.row.limit_ms,
            "verdict": self.verdict,
            "etcd": side_summary(self.theirs),
            "coord": side_summary(self.ours),
            **self.context,
        }


def side_summary(samples: Sequence[Sample]) -> dict[str, Any]:
    names = ("value", "p50_ms", "p99_ms", "server_cpu_s", "client_cpu_s")
    values = {name: [getattr(sample, name) for sample in samples] for name in names}
    known = {name: some for name, some in values.items() if None not in some}
    return {
        **{name: spread(some) for name, some in known.items()},
        "p95": percentile(values["value"], 0.95),
        "peak_mib": max((sample.peak_mib for sample in samples if sample.peak_mib is not None), default=None),
        "errors": sum(sample.errors for sample in samples),
        "samples": [asdict(sample) for sample in samples],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def percentile(values: Iterable[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def measure(row: Row, coord: ClusterSide, etcd: ClusterSide, options: argparse.Namespace) -> Result:
    result = Result(row, [], [])
    run = fail_over if row.is_gap else load
    for pair in range(options.pairs):
        for side, samples in ((etcd, result.theirs), (coord, result.ours)):
            sample = run(side, row, options)
            samples.append(sample)
            print(
                f"{row.name}, pair {pair + 1} of {options.pairs}: {side.name} {sample.value:.1f} {row.unit}"
                + (f", {sample.errors} errors" if sample.errors else ""),
                file=sys.stderr,
                flush=True,
            )
    return result


# -- what is printed

SPEED_HEAD = f"{'row':14} {'etcd':>26} {'coord':>26}    {'ratio':>19} {'must':>7} {'goal':>7}"
COST_HEAD = (
    f"{'row':14} {'side':6} {'p50 ms':>8} {'p99 ms':>8} {'nodes, CPU s':>13} {'client, CPU s':>14} {'memory MiB':>11}"
)


def speed_line(result: Result) -> str:
    row = result.row
    theirs, ours = (spread([sample.value for sample in some]) for some in (result.theirs, result.ours))
    if row.limit_ms is not None:
        must, goal = (f"{limit:.0f} ms" for limit in row.limit_ms)
    else:
        must, goal = ("" if bar is None else f"{bar:g}" for bar in (row.must, row.goal))
    return (
        f"{row.name:14} {shown(theirs):>26} {shown(ours):>26} {row.unit:2} {shown(spread(result.ratios), 2):>19} "
        f"{must:>7} {goal:>7} {result.verdict}"
    )


def shown(spread: dict[str, float], digits: int = 0) -> str:
    median, least, most = (f"{spread[name]:.{digits}f}" for name in ("median", "least", "most"))
    return f"{median} ({least}–{most})"


def cost_lines(result: Result) -> Iterator[str]:
    for name, samples in (("etcd", result.theirs), ("coord", result.ours)):
        table = side_summary(samples)
        p50_ms, p99_ms, client_s = (table[key]["median"] for key in ("p50_ms", "p99_ms", "client_cpu_s"))
        server_s = f"{table['server_cpu_s']['median']:.3f}" if "server_cpu_s" in table else ""
        memory = "" if table["peak_mib"] is None else f"{table['peak_mib']:.0f}"
        yield (
            f"{result.row.name:14} {name:6} {p50_ms:>8.2f} {p99_ms:>8.2f} {server_s:>13} {client_s:>14.3f} {memory:>11}"
        )


def print_all(results: Sequence[Result]) -> None:
    print(
        "\nMedians of the pairs (least–most); ratio: how many times better coord is, the median of the pairs' ratios."
    )
    print(SPEED_HEAD)
    for result in results:
        print(speed_line(result))
    for result in results:
        for name, samples in (("etcd", result.theirs), ("coord", result.ours)) if result.row.is_gap else ():
            gaps_ms = [sample.value for sample in samples]
            print(f"{result.row.name}, {name}: p95 {percentile(gaps_ms, 0.95):.0f} ms of {len(gaps_ms)} kills")
    print("\nMedians; CPU seconds are for 1 000 operations, memory is the sum of the three nodes' peaks.")
    print(COST_HEAD)
    for result in results:
        for line in cost_lines(result):
            print(line)


def context_line(row: Row, reports: Sequence[dict[str, Any]]) -> str:
    names = ("ops_per_s", "p50_ms", "p99_ms", "peak_mib")
    per_s, p50_ms, p99_ms, mib = (spread([report[name] for report in reports]) for name in names)
    cpu_s = {
        who: statistics.median(1000 * report[name] / report["operations"] for report in reports)
        for who, name in (("nodes", "server_cpu_s"), ("client", "cpu_s"))
        if name in reports[0]
    }
    return (
        f"{row.name:14} {shown(per_s):>26} /s, p50 {p50_ms['median']:.2f} ms, p99 {p99_ms['median']:.2f} ms, "
        f"CPU s for 1 000: {', '.join(f'{who} {spent_s:.3f}' for who, spent_s in cpu_s.items())}, {mib['most']:.0f} MiB"
    )


def print_context(results: Sequence[Result], side: Context) -> None:
    print(f"\nFor context: {side.about}. {side.version}.")
    for result in results:
        if reports := result.context.get(side.name):
            print(context_line(result.row, reports))


@contextmanager
def running(*wanted: ClusterSide | Context) -> Iterator[None]:
    try:
        for side in wanted:
            side.start()
        yield
    finally:
        for side in wanted:
            side.stop()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [row.name for row in (*ROWS, *BEYOND)]
    default = ",".join(row.name for row in ROWS)
    parser.add_argument("--rows", default=default, help=f"comma-separated, of {', '.join(names)}; default: {default}")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load; those with a kill take 6 at least")
    parser.add_argument("--keys", type=int, default=100_000, help="size of the key space, which is filled first")
    parser.add_argument("--value-bytes", type=int, default=256)
    parser.add_argument("--dir", type=Path, default=None, help="where both sides have their data; default: temporary")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write all samples there")
    parser.add_argument("--no-context", action="store_true", help="leave out Redis and ZooKeeper")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    chosen = options.rows.split(",")
    if unknown := set(chosen) - set(names):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if min(options.pairs, options.seconds, options.keys, options.value_bytes) <= 0:
        parser.error("--pairs, --seconds, --keys and --value-bytes are above 0")
    options.rows = [row for row in (*ROWS, *BEYOND) if row.name in chosen]
    return options


def keep(results: Sequence[Result], about: dict[str, object], options: argparse.Namespace) -> None:
    """Write what is there, so that what fails later does not take it along."""
    if options.json is not None:
        document = {"machine": about, "pairs": options.pairs, "seconds": options.seconds, "keys": options.keys}
        document |= {"value_bytes": options.value_bytes, "rows": [result.summary() for result in results]}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def main() -> int:
    options = parse_arguments()
    if missing := sides.missing():
        print(missing, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="coord-bench-", dir=options.dir) as name:
        directory = Path(name)
        about = sides.machine(directory)
        if about["file_system"] in MEMORY_FILE_SYSTEMS:
            print(f"{directory} is in memory, where a sync costs nothing: name a disk with --dir", file=sys.stderr)
            return 2
        coord, etcd = sides.coord_side(directory), sides.etcd_side(directory)
        with running(etcd, coord):
            about |= {side.name: side.version for side in (coord, etcd)}
            for side in (etcd, coord):
                load(side, FILLING, options)
            about |= {f"{side.name}_idle": idle(side) for side in (etcd, coord)}
            print("\n".join(f"{name}: {value}" for name, value in about.items()), flush=True)
            results = [measure(row, coord, etcd, options) for row in options.rows]
        about["load_average_after"] = sides.machine(directory)["load_average"]
        print_all(results)
        keep(results, about, options)
        for kind in () if options.no_context else CONTEXTS:
            if missing := kind.missing():
                print(f"\nFor context {kind.name} lacks: {missing}")
            elif any(kind.has(row) for row in options.rows):
                beside = kind(directory / kind.name, options.keys, options.value_bytes)
                measure_beside(beside, results, options)
                print_context(results, beside)
                about[beside.name] = beside.version
                keep(results, about, options)
    return 1 if options.check and any(result.verdict == "BELOW" for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())

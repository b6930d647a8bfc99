"""What coord's speed costs as a cluster grows: curves over clients, keys, members, the size of values and of the log.

    python bench/curves.py --json curves.json --draw docs/performance        every curve; about seven minutes
    python bench/curves.py keys --json curves.json --draw docs/performance   one of them; the others stay as they are
    python bench/curves.py --quick                                           a try; about a minute
    python bench/curves.py --plot curves.json --draw docs/performance        draw what was measured, and measure nothing

- `clients`: 1 to 4 096 callers on up to 10 connections to three nodes, puts and gets;
- `keys`: the same 1 000 callers with 1 000 to a million keys, all of which are there;
- `members`: the same in clusters of 1, 3, 5 and 7 nodes, all of them on this machine;
- `values`: values of 64 bytes to 1 MiB, by as many callers as have 8 MiB under way, but at most 100;
- `log`: a node alone is killed with `kill -9` and started again: from the start of the process to the first
  linearizable read, by how many puts of 1 000 keys its log holds. It has to read all of these again, and its store:
  once with a revision for each put, and once when these are compacted away.

Each curve has a cluster of its own, and each point of the first four a load by `bench/coordload.py`, closed loop. CPU
is of all nodes and of the loading program; beside operations a second it tells what bounds a point. A curve that fails
is told of on standard error; the others go on, and the status is 1 in the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import coord
from cluster import Cluster, running
from coord.limits import KIB, MIB
from plots import draw
from sides import BENCH, QUOTA_BYTES, Usage, described, machine

CONNECTIONS = 10
CALLERS = 1_000
KEYS = 100_000
VALUE_BYTES = 256
MODES = ("put", "get")
FLAGS = (f"--quota-backend-bytes={QUOTA_BYTES}",)
"""No point may end in an alarm."""
UNDER_WAY_BYTES = 8 * MIB
VALUE_CALLERS = 100
VALUE_KEYS = 100
LOG_KEYS = 1_000
"""Few, so that once it is compacted a start has little to read but the log."""
KEPT_ENTRIES = 100_000_000
SPARE_S = 300.0
"""What a load may take beyond its time before it is given up."""
RECOVER_TIMEOUT_S = 120.0

Point = dict[str, Any]
Curve = dict[str, Any]


def load(cluster: Cluster, options: argparse.Namespace, mode: str, **sizes: int) -> Point:
    """Load a cluster once, and return the figures of one point."""
    sizes = {"conns": CONNECTIONS, "clients": CALLERS, "keys": KEYS, "value_bytes": VALUE_BYTES, **sizes}
    flags = [f"--{name.replace('_', '-')}={size}" for name, size in sizes.items()]
    usage = Usage([node.pid for node in cluster.nodes])
    flags += [f"--endpoints={leader_first(cluster)}", f"--mode={mode}", f"--seconds={options.seconds}"]
    report = json.loads(run("coordload.py", flags, options.seconds + SPARE_S).splitlines()[-1])
    operations = report["operations"]
    return {
        "mode": mode,
        **{name: report[name] for name in ("ops_per_s", "p50_ms", "p99_ms", "max_ms", "errors")},
        "mb_per_s": report["ops_per_s"] * sizes["value_bytes"] / 1e6,
        "server_cpu_us": usage.cpu_s() / operations * 1e6,
        "client_cpu_us": report["cpu_s"] / operations * 1e6,
    }


def run(program: str, flags: list[str], timeout_s: float) -> str:
    """Run one of the programs beside this one, and return what it prints."""
    command = [sys.executable, str(BENCH / program), *flags]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=timeout_s, check=True).stdout


def leader_first(cluster: Cluster) -> str:
    """Return the endpoints; what has one connection has it to the leader."""
    leader = cluster.leader()
    return ",".join([leader.endpoint, *(node.endpoint for node in cluster.nodes if node is not leader)])


def over_clients(options: argparse.Namespace) -> Iterator[Point]:
    keys = 1_000 if options.quick else KEYS
    with running(3, *FLAGS) as cluster:
        load(cluster, options, "fill", keys=keys)
        for clients in (1, 64, 4096) if options.quick else (1, 4, 16, 64, 256, 1024, 4096):
            for mode in MODES:
                conns = min(clients, CONNECTIONS)
                yield {"x": clients, **load(cluster, options, mode, conns=conns, clients=clients, keys=keys)}


def over_keys(options: argparse.Namespace) -> Iterator[Point]:
    with running(3, *FLAGS) as cluster:
        for keys in (1_000, 10_000) if options.quick else (1_000, 10_000, 100_000, 1_000_000):
            load(cluster, options, "fill", keys=keys)
            for mode in MODES:
                yield {"x": keys, **load(cluster, options, mode, keys=keys)}


def over_members(options: argparse.Namespace) -> Iterator[Point]:
    keys = 1_000 if options.quick else KEYS
    for members in (1, 3) if options.quick else (1, 3, 5, 7):
        with running(members, *FLAGS) as cluster:
            load(cluster, options, "fill", keys=keys)
            for mode in MODES:
                yield {"x": members, **load(cluster, options, mode, keys=keys)}


def over_values(options: argparse.Namespace) -> Iterator[Point]:
    with running(3, *FLAGS) as cluster:
        for value_bytes in (64, 16 * KIB, MIB) if options.quick else (64, 256, KIB, 16 * KIB, 128 * KIB, MIB):
            clients = min(VALUE_CALLERS, UNDER_WAY_BYTES // value_bytes)
            sizes = {"clients": clients, "keys": VALUE_KEYS, "value_bytes": value_bytes}
            load(cluster, options, "fill", **sizes)
            for mode in MODES:
                yield {"x": value_bytes, **load(cluster, options, mode, **sizes)}


def over_log(options: argparse.Namespace) -> Iterator[Point]:
    for puts in (1_000, 10_000) if options.quick else (1_000, 10_000, 100_000, 1_000_000):
        with running(1, *FLAGS, f"--snapshot-count={KEPT_ENTRIES}") as cluster:
            (node,) = cluster.nodes
            flags = [f"--endpoints={node.endpoint}", f"--total={puts}", f"--keys={LOG_KEYS}"]
            run("load.py", [*flags, "--mode=put", f"--value-bytes={VALUE_BYTES}"], SPARE_S)
            entries = cluster.metrics()["coord_disk_wal_entries_total"]
            yield {"x": puts, "mode": "with all history", "recovery_s": recovery_s(cluster), "entries": entries}
            with coord.connect_sync(node.endpoint, timeout=RECOVER_TIMEOUT_S) as client:
                client.compact(client.put(b"last", b""), physical=True, timeout=RECOVER_TIMEOUT_S)
            yield {"x": puts, "mode": "compacted", "recovery_s": recovery_s(cluster), "entries": entries}


def recovery_s(cluster: Cluster) -> float:
    """Kill a node that is alone, start it again, and return how long that took till its first linearizable read."""
    (node,) = cluster.nodes
    node.kill()
    started = time.perf_counter()
    node.start(cluster.initial_cluster)
    node.wait_ready(RECOVER_TIMEOUT_S)
    with coord.connect_sync(node.endpoint, timeout=RECOVER_TIMEOUT_S) as client:
        client.get(b"%08d" % 0)
    return time.perf_counter() - started


CURVES: dict[str, Callable[[argparse.Namespace], Iterator[Point]]] = {
    "clients": over_clients,
    "keys": over_keys,
    "members": over_members,
    "values": over_values,
    "log": over_log,
}


def line(curve: str, point: Point) -> str:
    figures = {name: value for name, value in point.items() if name not in ("x", "mode")}
    return f"{curve:8} {point['x']:>9} {point['mode']:16}" + "".join(
        f" {name} {value:.4g}" if value < 1000 else f" {name} {value:.0f}" for name, value in figures.items()
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", nargs="*", metavar="CURVE", help=f"of {', '.join(CURVES)}; all by default")
    parser.add_argument("--seconds", type=float, default=0.0, help="of each load [default: 4; 0.5 if --quick]")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller points")
    parser.add_argument("--json", type=Path, metavar="FILE", help="put each curve there, in place of what it was there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="take the curves from there, and measure nothing")
    parser.add_argument("--draw", type=Path, metavar="DIR", help="draw each curve there")
    options = parser.parse_args()
    if unknown := set(options.curves) - set(CURVES):
        parser.error(f"no such curve: {', '.join(sorted(unknown))}")
    options.curves = options.curves or list(CURVES)
    options.seconds = options.seconds or (0.5 if options.quick else 4.0)
    return options


def measured(name: str, options: argparse.Namespace) -> Curve:
    """Measure a curve, and tell each point as it is there."""
    points = []
    for point in CURVES[name](options):
        points.append(point)
        print(line(name, point), flush=True)
    about = machine(Path(tempfile.gettempdir()))
    return {"coord": described(), "machine": about, "seconds": options.seconds, "points": points}


def read(path: Path | None) -> dict[str, Curve]:
    """Return the curves that a file has."""
    found: dict[str, Curve] = json.loads(path.read_text()) if path is not None and path.exists() else {}
    return found


def main() -> int:
    options = parse_arguments()
    failed = []
    for name in options.curves:
        try:
            curve = measured(name, options) if options.plot is None else read(options.plot).get(name)
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        if curve is None:
            continue
        if options.json is not None:
            options.json.write_text(json.dumps({**read(options.json), name: curve}, indent=1) + "\n")
        if options.draw is not None:
            for path in draw(name, curve["points"], options.draw):
                print(path, flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

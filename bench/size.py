"""How much memory a node takes, how soon it serves after a start, and how long its loop is ever held up.

    python bench/size.py                       every figure, some minutes
    python bench/size.py idle                  memory of a node that does nothing
    python bench/size.py load                  memory with a million keys, stalls while they are put
    python bench/size.py start                 from the start of the process to the first linearizable read
    python bench/size.py compact               stalls while half of the records are compacted away
    python bench/size.py snapshot              stalls of a loop beside a snapshot of the store
    python bench/size.py watches               memory of 100 000 watches on 100 connections

Figures that need the million keys put them first. With `--data-dir` they stay there, and are not put again.
A stall is what a client sees that reads one key every 5 ms, from a process of its own, served from local state; beside
it stand the turns that the node itself counted as stalled (`coord_loop_stalls_total`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from attrs import asdict, define

from cluster import free_port, metrics
from coord.codec import decode, encode
from coord.disk import RealDisk
from coord.limits import MIB
from coord.protocol.ops import SUBPROTOCOL, ClientMessage, Method, Op, ServerMessage
from coord.store.store import open_store
from coord.transport.blocking import BlockingLink
from load import cpu_s, node

FIGURES = ("idle", "load", "start", "compact", "snapshot", "watches")
TIMEOUT_S = 60.0
FRAME_PUTS = 200
FRAMES_OPEN = 8
WATCHES_PER_FRAME = 1_000
PROBE_EVERY_S = 0.005
SWITCH_INTERVAL_S = 0.0005
"""A node's."""
SETTLE_S = 2.0
"""What the node has under way after a load, flushes above all, ends in this time."""
SCATTER = 2_654_435_761
"""Odd, so that multiplying by it permutes the numbers below 2³²: keys come in no order."""


@define
class Figure:
    """One line of the table; `limit` is what it must not exceed, None if it only explains another."""

    what: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return ""
        return "holds" if self.value <= self.limit else "FAILS"

    @property
    def line(self) -> str:
        limit = "" if self.limit is None else f"<= {self.limit:g}"
        return f"{self.what:62} {self.value:10.1f} {self.unit:4}{limit:>8} {self.verdict}"


class RawClient:
    """A connection that sends frames as they are."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self.link = BlockingLink.open(host, int(port), subprotocol=SUBPROTOCOL, timeout=TIMEOUT_S)
        self.link.receive(TIMEOUT_S)

    def send(self, *message: Any) -> None:
        self.link.send(encode(list(message)), TIMEOUT_S)

    def replies(self) -> list[Any]:
        """Return the next replies, past notifications. Raises `RuntimeError` for one that is an error."""
        while True:
            message = decode(self.link.receive(TIMEOUT_S))
            if message[0] == ServerMessage.REPLIES:
                break
        for reply in message[5]:
            if len(reply) > 3:
                raise RuntimeError(f"the node answered {reply[3]}")
        replies: list[Any] = message[5]
        return replies

    def call(self, method: Method, *arguments: Any) -> tuple[int, Any]:
        """Return the revision of the reply, and its result."""
        self.send(int(ClientMessage.REQUESTS), [[1, int(method), 0, list(arguments)]])
        _, revision, result = self.replies()[0]
        return revision, result

    def write(self, op: Op, *arguments: Any) -> Any:
        self.send(int(ClientMessage.WRITES), 0, 0, [[1, 60_000]], encode([[0, int(op), None, list(arguments)]]))
        return self.replies()[0]

    def put_many(self, keys: Iterator[bytes], value_bytes: int) -> None:
        """Put all keys, with a few frames on their way at any time."""
        chance = random.Random(1)
        unanswered = request_id = 0
        while True:
            some = list(islice(keys, FRAME_PUTS))
            writes = [[0, int(Op.PUT), None, [key, chance.randbytes(value_bytes)]] for key in some]
            while unanswered > (FRAMES_OPEN * FRAME_PUTS if writes else 0):
                unanswered -= len(self.replies())
            if not writes:
                return
            ids = [[request_id + place + 1, 60_000] for place in range(len(writes))]
            request_id = (request_id + len(writes)) % 2**31
            unanswered += len(writes)
            self.send(int(ClientMessage.WRITES), 0, 0, ids, encode(writes))


def keys_of(count: int, first: int = 0) -> Iterator[bytes]:
    """Return keys of 8 bytes in no order."""
    return (b"%08x" % (number * SCATTER % 2**32) for number in range(first, first + count))


def memory_mib(pid: int, *names: str) -> float:
    """Return the sum of some lines of a process's smaps_rollup, in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    table = {name: int(rest.split()[0]) for name, rest in (line.split(":", 1) for line in lines)}
    return sum(table[name] for name in names) / 1024


def private_mib(pid: int) -> float:
    return memory_mib(pid, "Private_Clean", "Private_Dirty")


def stalled_turns(endpoint: str) -> int:
    return int(metrics(endpoint)["coord_loop_stalls_total"])


def probe(endpoint: str, pid: int, control: Connection) -> None:
    """Read a key every 5 ms until told to end; send back what each read took, and without the loop's own waits.

    Both in milliseconds; a wait is the time in which the machine had no processor for the node's loop.
    """
    client = RawClient(endpoint)
    took: list[tuple[float, float]] = []
    control.send(None)
    while not control.poll():
        waited, began = waited_ms(pid), time.perf_counter()
        client.call(Method.RANGE, b"probe", b"", 0, 0, 0, 0, True)
        read_ms = (time.perf_counter() - began) * 1e3
        took.append((read_ms, max(0.0, read_ms - (waited_ms(pid) - waited))))
        time.sleep(max(0.0, began + PROBE_EVERY_S - time.perf_counter()))
    control.send(took)


@contextmanager
def probing(name: str, endpoint: str, pid: int, figures: list[Figure]) -> Iterator[None]:
    """Watch the loop from outside while the body runs, and append what was seen to `figures`."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=probe, args=(endpoint, pid, theirs))
    process.start()
    ours.recv()
    turns, waited, started, cpu = stalled_turns(endpoint), waited_ms(pid), time.perf_counter(), cpu_s(pid)
    yield
    took, cpu = time.perf_counter() - started, cpu_s(pid) - cpu
    ours.send(None)
    reads = ours.recv()
    process.join()
    latencies = sorted(read_ms for read_ms, _ in reads)
    figures += [
        Figure(f"{name}: wall time", took, "s"),
        Figure(f"{name}: CPU of the node", cpu, "s"),
        Figure(f"{name}: longest read beside it", latencies[-1], "ms", 50.0),
        Figure(f"{name}: and without its waits for a processor", max(own_ms for _, own_ms in reads), "ms"),
        Figure(f"{name}: p99 read beside it", latencies[len(latencies) * 99 // 100], "ms"),
        Figure(f"{name}: reads above 50 ms", sum(latency > 50 for latency in latencies), ""),
        Figure(f"{name}: turns that stalled", stalled_turns(endpoint) - turns, "", 0),
        Figure(f"{name}: the loop's wait for a processor, in all", waited_ms(pid) - waited, "ms"),
    ]


def waited_ms(pid: int) -> float:
    """Return how long a process's main thread has been ready to run without a processor: noise of the machine."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e6


def measure_idle() -> list[Figure]:
    with node() as (_, pid):
        time.sleep(SETTLE_S)
        return [
            Figure("idle: resident memory", memory_mib(pid, "Rss"), "MiB", 80),
            Figure("idle: private memory", private_mib(pid), "MiB"),
        ]


def measure_watches(connections: int, watches: int) -> list[Figure]:
    """Watch different keys, as service discovery and locks do."""
    figures: list[Figure] = []
    with node() as (endpoint, pid):
        time.sleep(SETTLE_S)
        before = private_mib(pid)
        clients = [RawClient(endpoint) for _ in range(connections)]
        connected = private_mib(pid)
        with probing("watches", endpoint, pid, figures):
            for number, client in enumerate(clients):
                watch(client, number, watches // connections)
        figures += [
            Figure(f"watches: private memory of {connections} connections", connected - before, "MiB"),
            Figure(f"watches: private memory of {watches} and those", private_mib(pid) - before, "MiB", 200),
        ]
        with probing("ending watches", endpoint, pid, figures):
            for client in clients:
                client.link.close()
            time.sleep(SETTLE_S)
    return figures


def watch(client: RawClient, connection: int, count: int) -> None:
    for first in range(0, count, WATCHES_PER_FRAME):
        wanted = range(first, min(first + WATCHES_PER_FRAME, count))
        requests = [
            [number + 1, int(Method.WATCH_CREATE), 60_000, [b"services/%03d/%06d" % (connection, number)]]
            for number in wanted
        ]
        client.send(int(ClientMessage.REQUESTS), requests)
        answered = 0
        while answered < len(wanted):
            answered += len(client.replies())


@define
class Home:
    """Where a node lives that is started again: the same directory and addresses each time."""

    directory: Path

    @contextmanager
    def node(self) -> Iterator[tuple[str, int]]:
        client, peer = (f"http://127.0.0.1:{port}" for port in self._ports())
        with node(
            f"--data-dir={self.directory}/data",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            "--quota-backend-bytes=8589934592",
            ready_at=client.removeprefix("http://"),
        ) as running:
            yield running

    @property
    def is_loaded(self) -> bool:
        return self._mark.exists()

    def mark_loaded(self) -> None:
        self._mark.touch()

    @property
    def _mark(self) -> Path:
        return self.directory / "loaded"

    def _ports(self) -> list[int]:
        kept = self.directory / "ports"
        if not kept.exists():
            kept.write_text(f"{free_port()} {free_port()}")
        return [int(port) for port in kept.read_text().split()]


def measure_load(home: Home, keys: int, value_bytes: int) -> list[Figure]:
    figures: list[Figure] = []
    with home.node() as (endpoint, pid):
        with probing("load", endpoint, pid, figures):
            RawClient(endpoint).put_many(keys_of(keys), value_bytes)
        at_once = private_mib(pid)
        time.sleep(SETTLE_S)
        figures += [
            Figure(f"load: private memory, {keys} keys", private_mib(pid), "MiB", 500),
            Figure("load: at once, with what is not flushed yet", at_once, "MiB"),
            Figure("load: resident memory", memory_mib(pid, "Rss"), "MiB"),
        ]
    home.mark_loaded()
    return figures


def measure_start(home: Home, keys: int) -> list[Figure]:
    started = time.perf_counter()
    with home.node() as (endpoint, pid):
        client = RawClient(endpoint)
        _, [records, _, _] = client.call(Method.RANGE, next(keys_of(1)))
        took = time.perf_counter() - started
        if len(records) != 1:
            raise RuntimeError("the first key is missing")
        at_once = private_mib(pid)
        cpu = cpu_s(pid)
        time.sleep(SETTLE_S)
        return [
            Figure(f"start: to the first linearizable read, {keys} keys", took, "s", 6),
            Figure("start: CPU of the node till then", cpu, "s"),
            Figure("start: private memory", at_once, "MiB", 500),
            Figure(f"start: and {SETTLE_S:g} s later", private_mib(pid), "MiB", 500),
        ]


def measure_compact(home: Home, keys: int, value_bytes: int) -> list[Figure]:
    """Put every key again, then compact away what it was before."""
    figures: list[Figure] = []
    with home.node() as (endpoint, pid):
        client = RawClient(endpoint)
        client.put_many(keys_of(keys), value_bytes)
        time.sleep(SETTLE_S)
        figures.append(Figure(f"compact: private memory before, {2 * keys} records", private_mib(pid), "MiB"))
        with probing("compact", endpoint, pid, figures):
            revision, _ = client.call(Method.RANGE, b"probe")
            client.write(Op.COMPACT, revision, True)
        time.sleep(SETTLE_S)
        figures.append(Figure(f"compact: private memory after, {keys} records", private_mib(pid), "MiB", 500))
    return figures


def measure_snapshot(home: Home) -> list[Figure]:
    """Take a snapshot of the store beside a loop that only looks at the clock, switching threads as a node does."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    store = open_store(RealDisk(), home.directory / "data" / "store")
    with tempfile.TemporaryDirectory(dir=home.directory) as directory:
        job = store.snapshot_job(Path(directory))
        thread = threading.Thread(target=job.run)
        longest = 0.0
        started, cpu = time.perf_counter(), time.process_time()
        thread.start()
        while thread.is_alive():
            asleep = time.perf_counter()
            time.sleep(0.001)
            longest = max(longest, time.perf_counter() - asleep - 0.001)
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
        size = job.path.stat().st_size / MIB
    store.close()
    return [
        Figure("snapshot: wall time", took, "s"),
        Figure("snapshot: CPU", cpu, "s"),
        Figure("snapshot: size", size, "MiB"),
        Figure("snapshot: longest time that a loop was held up", longest * 1e3, "ms", 50),
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all by default")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value-bytes", type=int, default=256)
    parser.add_argument("--watches", type=int, default=100_000)
    parser.add_argument("--conns", type=int, default=100)
    parser.add_argument("--data-dir", type=Path, default=None, help="keep the keys here between runs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.figures) - set(FIGURES):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    options.figures = options.figures or list(FIGURES)
    return options


def measure(options: argparse.Namespace, directory: Path) -> Iterator[list[Figure]]:
    """Measure what is asked for, in the order in which one figure leaves the data of the next."""
    wanted = set(options.figures)
    home = Home(directory)
    if "idle" in wanted:
        yield measure_idle()
    if "load" in wanted or (wanted & {"start", "compact", "snapshot"} and not home.is_loaded):
        yield measure_load(home, options.keys, options.value_bytes)
    if "start" in wanted:
        yield measure_start(home, options.keys)
    if "snapshot" in wanted:
        yield measure_snapshot(home)
    if "compact" in wanted:
        yield measure_compact(home, options.keys, options.value_bytes)
    if "watches" in wanted:
        yield measure_watches(options.conns, options.watches)


def tell(measured: Iterable[list[Figure]], *, is_json: bool) -> None:
    """Print figures as they come, or as one JSON document when all are there."""
    told: list[Figure] = []
    for figures in measured:
        told += figures
        for figure in figures if not is_json else ():
            print(figure.line, flush=True)
    if is_json:
        print(json.dumps([asdict(figure) for figure in told]))


def main() -> None:
    options = parse_arguments()
    if options.data_dir is not None:
        options.data_dir.mkdir(parents=True, exist_ok=True)
    place = nullcontext(options.data_dir) if options.data_dir else tempfile.TemporaryDirectory(prefix="coord-bench-")
    with place as directory:
        tell(measure(options, Path(directory).absolute()), is_json=options.json)


if __name__ == "__main__":
    main()

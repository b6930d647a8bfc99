"""How many events a second a crowd of watchers is given, how late, and what a watch takes of the node's memory.

    python bench/watchers.py                                 1 000, 10 000 and 100 000 watchers on 100 connections
    python bench/watchers.py --counts 1000,10000 --conns 10  other crowds
    python bench/watchers.py --json                          for programs

All watch one prefix of one node, so that each put is an event for each of them. Ten puts are on their way at any time,
from a process of their own; another one has all the connections, a thread each, which takes frames apart and notes when
they came. An event is late by the time from the sending of its put to the arrival of its frame. Memory is
`Private_Clean` + `Private_Dirty` of the node, before the first event; limits are what etcd takes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from coord.codec import decode, encode
from coord.limits import KIB, MIB
from coord.protocol.ops import ClientMessage, Method, Notification, Op, ServerMessage
from coord.types import prefix_end
from load import cpu_s, node
from size import SETTLE_S, TIMEOUT_S, Figure, RawClient, private_mib, tell

PREFIX = b"bench/watchers/"
PUTS_OPEN = 10
PUTS_MIN = 50
PUTS_MAX = 2_000
WATCHES_PER_FRAME = 1_000
ETCD_WATCH_BYTES = 350
ETCD_CONNECTION_KIB = 17

Arrivals = list[tuple[int, float, int]]
"""`(put, when its frame came, how many watches it was for)` on one connection."""


def watch(client: RawClient, count: int) -> None:
    for first in range(0, count, WATCHES_PER_FRAME):
        numbers = range(first, min(first + WATCHES_PER_FRAME, count))
        arguments = [PREFIX, prefix_end(PREFIX)]
        requests = [[number + 1, int(Method.WATCH_CREATE), 60_000, arguments] for number in numbers]
        client.send(int(ClientMessage.REQUESTS), requests)
        answered = 0
        while answered < len(numbers):
            answered += len(client.replies())


def receive(client: RawClient, watches: int, puts: int, arrivals: Arrivals) -> None:
    """Take events until all watches of a connection were given all puts."""
    missing = watches * puts
    while missing:
        frame = decode(client.link.receive(TIMEOUT_S), is_counted=False)
        now = time.perf_counter()
        if frame[0] != ServerMessage.NOTIFICATIONS:
            continue
        for notification in frame[5]:
            if notification[0] != Notification.EVENTS:
                raise RuntimeError(f"not an event: {notification}")
            ids, events = notification[1], notification[3]
            missing -= len(ids) * len(events)
            arrivals += [(int(event[1][0][len(PREFIX) :]), now, len(ids)) for event in events]


def follow(endpoint: str, conns: int, shares: Sequence[int], puts: int, control: Connection) -> None:
    """Connect, watch and receive, each when told to; send back what came, one list a connection."""
    clients = [RawClient(endpoint) for _ in range(conns)]
    control.send(None)
    control.recv()
    for client, share in zip(clients, shares, strict=True):
        watch(client, share)
    arrivals: list[Arrivals] = [[] for _ in clients]
    threads = [
        threading.Thread(target=receive, args=(client, share, puts, came))
        for client, share, came in zip(clients, shares, arrivals, strict=True)
    ]
    for thread in threads:
        thread.start()
    control.send(None)
    for thread in threads:
        thread.join()
    control.send(arrivals)


def put_all(endpoint: str, puts: int) -> list[float]:
    """Put a key for each number, and return when."""
    client, sent, unanswered = RawClient(endpoint), [0.0] * puts, 0
    for number in range(puts):
        while unanswered >= PUTS_OPEN:
            unanswered -= len(client.replies())
        body = encode([[0, int(Op.PUT), None, [PREFIX + b"%d" % number, b"v"]]])
        sent[number] = time.perf_counter()
        client.send(int(ClientMessage.WRITES), 0, 0, [[number + 1, 60_000]], body)
        unanswered += 1
    while unanswered:
        unanswered -= len(client.replies())
    return sent


def percentile(weighted: Sequence[tuple[float, int]], share: float) -> float:
    """Return the value that no more than `1 - share` of the weight lies above; the values are in order."""
    below, wanted = 0, share * sum(weight for _, weight in weighted)
    for value, weight in weighted:
        below += weight
        if below >= wanted:
            return value
    raise ValueError("no values")


def measure(count: int, conns: int, events: int) -> list[Figure]:
    puts = min(max(events // count, PUTS_MIN), PUTS_MAX)
    shares = [len(range(at, count, conns)) for at in range(conns)]
    ours, theirs = multiprocessing.Pipe()
    with node() as (endpoint, pid):
        time.sleep(SETTLE_S)
        process = multiprocessing.get_context("fork").Process(
            target=follow, args=(endpoint, conns, shares, puts, theirs)
        )
        alone_mib = private_mib(pid)
        process.start()
        ours.recv()
        connected_mib = private_mib(pid)
        ours.send(None)
        ours.recv()
        watched_mib, cpu = private_mib(pid), cpu_s(pid)
        sent = put_all(endpoint, puts)
        arrivals: list[Arrivals] = ours.recv()
        cpu = cpu_s(pid) - cpu
        process.join()
    late_s = sorted((when - sent[number], watches) for came in arrivals for number, when, watches in came)
    took_s = max(when for came in arrivals for _, when, _ in came) - sent[0]
    given = count * puts
    name = f"{count} watchers"
    return [
        Figure(f"{name}: puts a second", puts / took_s, "/s"),
        Figure(f"{name}: events a second", given / took_s, "/s"),
        Figure(f"{name}: CPU of the node for an event", cpu / given * 1e9, "ns"),
        Figure(f"{name}: an event is late, p50", percentile(late_s, 0.5) * 1e3, "ms"),
        Figure(f"{name}: an event is late, p99", percentile(late_s, 0.99) * 1e3, "ms"),
        Figure(f"{name}: an event is late, at most", percentile(late_s, 1.0) * 1e3, "ms"),
        Figure(f"{name}: memory of a watch", (watched_mib - connected_mib) * MIB / count, "B", ETCD_WATCH_BYTES),
        Figure(
            f"{name}: memory of a connection",
            (connected_mib - alone_mib) * MIB / KIB / conns,
            "KiB",
            ETCD_CONNECTION_KIB,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="1000,10000,100000", help="comma-separated numbers of watchers")
    parser.add_argument("--conns", type=int, default=100, help="connections, over which they are spread")
    parser.add_argument("--events", type=int, default=5_000_000, help="about as many for each count")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    counts = map(int, options.counts.split(","))
    tell((measure(count, options.conns, options.events) for count in counts), is_json=options.json)


if __name__ == "__main__":
    main()

"""What the state machine costs: CPU of a put, memory and stalls of the index at a million keys, CPU of a restart.

python bench/mvcc.py [KEYS]
"""

from __future__ import annotations

import gc
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from coord.codec import encode
from coord.mvcc.index import KeyIndex
from coord.mvcc.machine import StateMachine
from coord.protocol.bodies import encode_body
from coord.protocol.entries import NOTHING, Frame, WritesHeader, encode_writes
from coord.protocol.ops import Op
from coord.testing.memory_backend import MemoryBackend

VALUE = b"x" * 256
WRITES_PER_ENTRY = 200


def resident_mib() -> float:
    """Return the memory of this process that lies in RAM, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def entry(body: bytes, client: int = 0, low: int = 0) -> bytes:
    """Return an entry of one frame."""
    return encode_writes(WritesHeader(1, 1, 128), [Frame(client, low, "", NOTHING, body)])


def puts(name: str, key: Callable[[int], bytes], *, client: int) -> None:
    """Apply 40 000 puts in entries of 200 and print the CPU time of one, decoding included."""
    machine = StateMachine(MemoryBackend())
    register = encode([[0, int(Op.REGISTER), None, []]])
    machine.apply(1, 1, entry(register))
    entries = []
    for number in range(0, 40_000, WRITES_PER_ENTRY):
        first = number + 1 if client else 0
        writes = [
            [first and first + place, int(Op.PUT), None, [key(number + place), VALUE]]
            for place in range(WRITES_PER_ENTRY)
        ]
        entries.append(entry(encode_body(writes), client, first))
    print(f"put, {name:<24} {apply(machine, entries) / 40_000 * 1e6:6.2f} µs")


def transactions() -> None:
    """Apply 400 transactions of 100 puts and print the CPU time of one put, decoding included."""
    entries = []
    for number in range(400):
        operations = [[int(Op.PUT), [b"key%05d" % (number * 100 + place), VALUE]] for place in range(100)]
        entries.append(entry(encode([[0, int(Op.TXN), None, [[], operations, []]]])))
    spent = apply(StateMachine(MemoryBackend()), entries, first=1)
    print(f"put, {'100 in a transaction':<24} {spent / 40_000 * 1e6:6.2f} µs")


def apply(machine: StateMachine, entries: list[bytes], first: int = 2) -> float:
    """Apply entries and return the CPU seconds that this took."""
    started = time.process_time()
    for index, data in enumerate(entries, first):
        machine.apply(index, 1, data)
    return time.process_time() - started


def index(count: int) -> None:
    """Fill an index with `count` random keys; print memory, the longest put and the longest collection."""
    chance = random.Random(1)
    before = resident_mib()
    keys = KeyIndex()
    longest = 0.0
    started = time.process_time()
    for number in range(count):
        key = b"%08x" % chance.getrandbits(32)
        put = time.thread_time()
        keys.replace(key, keys.latest(key), (number + 2, 0, number + 2, 1, 0))
        longest = max(longest, time.thread_time() - put)
    spent = time.process_time() - started
    print(f"index, {count} keys: {resident_mib() - before:.0f} MiB, {spent / count * 1e6:.2f} µs a key")
    print(f"index, longest put {longest * 1e3:.2f} ms")
    collected = time.thread_time()
    gc.collect()
    print(f"index, full collection {(time.thread_time() - collected) * 1e3:.2f} ms")


def restart(count: int) -> None:
    """Rebuild a machine from `count` records; print the CPU time for a million and the longest slice."""
    backend = MemoryBackend()
    machine = StateMachine(backend)
    for number in range(0, count, WRITES_PER_ENTRY):
        writes = [[0, int(Op.PUT), None, [b"%08d" % (number + place), VALUE]] for place in range(WRITES_PER_ENTRY)]
        machine.apply(number // WRITES_PER_ENTRY + 1, 1, entry(encode(writes)))
    machine.flush_rows()
    restarted = StateMachine(backend)
    longest = 0.0
    started = last = time.process_time()
    for _ in restarted.load():
        now = time.process_time()
        longest, last = max(longest, now - last), now
    spent = (last - started) / count
    print(f"restart, {spent * 1e6:.2f} s of CPU for a million records, longest slice {longest * 1e3:.1f} ms")


def main() -> None:
    """Run all of it."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    puts("100 keys, no client", lambda number: b"key%05d" % (number % 100), client=0)
    puts("100 keys, numbered", lambda number: b"key%05d" % (number % 100), client=1)
    puts("new keys in order", lambda number: b"key%05d" % number, client=0)
    puts("new keys at random", lambda number: b"%08x" % (number * 2654435761 % 2**32), client=0)
    transactions()
    index(count)
    restart(count // 4)


if __name__ == "__main__":
    main()

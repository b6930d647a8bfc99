"""Load on a cluster by clients that go on whatever happens, and what must be found of it in the end."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter

import trio
from attrs import define, field

import coord
from coord.errors import ConnectionFailed, CoordError, OutcomeUnknown

RETRY_S = 0.01
_numbers = itertools.count(1)


@define(eq=False)
class ClusterLoad:
    """Writers that each put one key after the other, each key once, until told to stop; in a thread.

    An unnumbered write whose answer is `OutcomeUnknown`, or that failed otherwise, is not repeated: its writer goes on
    with its next key.
    """

    endpoints: str
    connections: int = 4
    writers: int = 5
    timeout_s: float = 2.0
    value_bytes: int = 100
    prefix: str = field(factory=lambda: f"load{next(_numbers)}/")
    """No two loads write the same key."""
    acknowledged: dict[str, int] = field(factory=dict)
    """The revision that each key's answer named."""
    answered_at: list[float] = field(factory=list)
    issued: set[str] = field(factory=set)
    errors: Counter[str] = field(factory=Counter)
    longest: dict[str, float] = field(factory=dict)
    """How long the slowest failure of each kind took."""
    _stop: threading.Event = field(factory=threading.Event)
    _thread: threading.Thread | None = None
    _failure: list[BaseException] = field(factory=list)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._main, name="load", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let each writer finish its write."""
        assert self._thread is not None
        self._stop.set()
        self._thread.join(self.timeout_s + 20)
        assert not self._thread.is_alive()
        if self._failure:
            raise self._failure[0]

    def wait_for_writes(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until so many more writes are acknowledged."""
        wanted, deadline = len(self.acknowledged) + count, time.monotonic() + timeout_s
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < deadline, f"no {count} writes within {timeout_s} s: {self.errors}"
            assert not self._failure, self._failure
            time.sleep(0.01)

    @property
    def longest_gap_s(self) -> float:
        """The longest time between two acknowledged writes."""
        times = sorted(self.answered_at)
        return max((later - sooner for sooner, later in itertools.pairwise(times)), default=0.0)

    def check(self) -> None:
        """Find each acknowledged write, once and at the revision that was told, and nothing that was not issued."""
        with coord.connect_sync(self.endpoints, timeout=20) as client:
            found = {pair.key.decode(): pair for pair in client.range(self.prefix, prefix=True)}
        missing = self.acknowledged.keys() - found.keys()
        assert not missing, f"{len(missing)} acknowledged writes are lost: {sorted(missing)[:5]}"
        assert found.keys() <= self.issued
        for key, revision in self.acknowledged.items():
            assert found[key].mod_revision == revision, key
            assert found[key].version == 1, f"{key} was written twice"

    def _main(self) -> None:
        try:
            trio.run(self._run)
        except BaseException as failure:
            self._failure.append(failure)

    async def _run(self) -> None:
        nodes = self.endpoints.split(",")
        async with trio.open_nursery() as nursery:
            for number in range(self.connections):
                at = number % len(nodes)
                nursery.start_soon(self._connection, number, ",".join(nodes[at:] + nodes[:at]))

    async def _connection(self, number: int, endpoints: str) -> None:
        while not self._stop.is_set():
            try:
                async with coord.connect(endpoints, timeout=self.timeout_s) as client, trio.open_nursery() as nursery:
                    for writer in range(self.writers):
                        nursery.start_soon(self._write, client, f"{self.prefix}{number}/{writer}")
            except ConnectionFailed:
                continue  # nobody let it in within its time
            return

    async def _write(self, client: coord.Client, prefix: str) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            key = f"{prefix}/{number}"
            self.issued.add(key)
            started = time.monotonic()
            try:
                revision = await client.put(key, bytes(self.value_bytes))
            except CoordError as error:
                kind = type(error).__name__
                self.errors[kind] += 1
                self.longest[kind] = max(self.longest.get(kind, 0.0), time.monotonic() - started)
                if not isinstance(error, OutcomeUnknown):
                    await trio.sleep(RETRY_S)
                continue
            self.acknowledged[key] = revision
            self.answered_at.append(time.monotonic())

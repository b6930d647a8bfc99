"""Every crash point of a workload recovers to acknowledged ⊆ recovered ⊆ issued, twice.

The workload rolls segments, flushes, syncs, compacts, releases the log and writes snapshots. At every change of the
disk and around every commit of the store, the test takes an image of what a power loss would leave, and what was
acknowledged by then. Each image is recovered, compared with a machine that applied exactly the recovered entries, run
until it serves, crashed again and recovered again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field
from tests.node.conftest import play

from coord.errors import ApiError
from coord.mvcc.backend import Table
from coord.mvcc.machine import StateMachine
from coord.node.node import Node
from coord.protocol.messages import RaftMessage
from coord.protocol.ops import Op
from coord.protocol.ranges import parse_range
from coord.raft.types import Entry, HardState
from coord.testing.memory_backend import MemoryBackend
from coord.testing.sim_node import SimClient, SimHost, SimSettings

SEGMENT_BYTES = 16 * 1024
IMAGES = 3
"""Power losses tried at each point; which unsynced writes survive is drawn anew for each."""


@define
class Moment:
    """An image, and how far the log was acknowledged when it was taken."""

    where: str
    host: SimHost
    acknowledged: int


class WatchedEngine:
    """The store's engine, telling before and after it changes what a power loss leaves."""

    def __init__(self, engine: Any, tell: Callable[[str], None]) -> None:
        self._engine, self._tell = engine, tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def commit(self, segments: Any) -> None:
        self._tell("before a commit of the store")
        self._engine.commit(segments)
        self._tell("after a commit of the store")

    def sync(self) -> None:
        self._tell("before a sync of the store")
        self._engine.sync()
        self._tell("after a sync of the store")


@define
class Recorder:
    """Follows a node: what it handed to its log, what it answered, and images on the way."""

    host: SimHost
    entries: dict[int, Entry] = field(factory=dict)
    moments: list[Moment] = field(factory=list)
    answered_index: int = 0

    def follow(self, node: Node) -> None:
        outlets = node.consensus.outlets
        to_log = outlets.to_log

        def record(entries: Sequence[Entry], state: HardState, messages: Sequence[RaftMessage]) -> None:
            self.entries.update({entry[0]: entry for entry in entries})
            to_log(entries, state, messages)

        outlets.to_log = record
        self.host.disk.observer = self.take
        self.host.store.engine = WatchedEngine(self.host.store.engine, self.take)

    def take(self, where: str) -> None:
        for _ in range(IMAGES):
            self.moments.append(Moment(where, self.host.image(), self.answered_index))


async def work(host: SimHost, node: Node, recorder: Recorder) -> None:
    """Write what a client may write, enough for several segments."""

    def answered(reply: object) -> None:
        recorder.answered_index = node.machine.applied_index

    client = SimClient(node, answered=answered)
    lease, _ = await client.write(Op.LEASE_GRANT, [3600])
    registered = await client.write(Op.REGISTER, [])
    numbered = SimClient(node, client=registered, answered=answered)
    for number in range(60):
        await client.put(b"k%02d" % (number % 20), bytes([number]) * 700)
        await numbered.write(Op.PUT, [b"own", b"%d" % number, lease if number % 3 else 0], number=number + 1)
        if number % 7 == 0:
            await client.write(Op.DELETE_RANGE, [b"k00", b"k05", True])
        if number % 10 == 9:
            numbered.low = number - 3
            await client.write(Op.COMPACT, [node.revision - 10, number % 20 == 9])
        if number == 40:
            await client.write(Op.LEASE_REVOKE, [lease])
            lease, _ = await client.write(Op.LEASE_GRANT, [60])
        if number in (25, 50):
            job = host.store.snapshot_job(host.medium.directory)
            job.run()
        await trio.sleep(0.03)


def state_of(machine: StateMachine) -> dict[str, object]:
    """Everything that a client can tell states apart by."""
    steps = machine.range(parse_range([b"\0", b"\0"]))
    records: object = None
    while records is None:
        try:
            next(steps)
        except StopIteration as stop:
            records = stop.value
    machine.flush_rows()
    tables = {str(table): list(machine.backend.rows(table)) for table in Table if table is not Table.META}
    return {
        "revision": machine.revision,
        "compacted": machine.compact_revision,
        "cluster": machine.cluster_id,
        "records": records,
        "tables": tables,
    }


def states_by_index(entries: dict[int, Entry]) -> list[dict[str, object]]:
    """The state after each entry, from a machine that never crashes."""
    machine = StateMachine(MemoryBackend())
    states = [state_of(machine)]
    for index in range(1, len(entries) + 1):
        machine.apply(*entries[index])
        states.append(state_of(machine))
    return states


def recovered_state(host: SimHost, entries: dict[int, Entry]) -> tuple[int, dict[str, object]]:
    """Recover as a start does; return the last index, and the state after applying the log to its end."""
    node = host.recover(host.workers())
    log = node.raft.log
    for entry in log.slice(log.base_index + 1, log.last_index) if log.last_index > log.base_index else ():
        assert entries[entry[0]] == entry, "an entry came back that was never written like this"
        if entry[0] > log.applied:
            node.machine.apply(*entry)
    return log.last_index, state_of(node.machine)


def check(moment: Moment, entries: dict[int, Entry], states: list[dict[str, object]]) -> None:
    last, state = recovered_state(moment.host, entries)
    assert last >= moment.acknowledged, f"lost at {moment.where}: acknowledged {moment.acknowledged}, found {last}"
    assert last <= len(entries)
    assert state == states[last], f"another state at {moment.where}"

    moment.host.lose_power()
    again, state_again = recovered_state(moment.host, entries)
    assert again >= moment.acknowledged
    assert state_again == states[again], f"another state at {moment.where}, recovered twice"


def long_run() -> list[int]:
    """The seeds of `make sim`: the one that SEED names, or ten."""
    seed = int(os.environ.get("SEED", "0"))
    return [seed] if seed else list(range(2, 12))


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.sim) for seed in long_run())])
def test_every_crash_point_recovers(seed: int) -> None:
    host = SimHost(seed, SimSettings(segment_bytes=SEGMENT_BYTES))
    recorder = Recorder(host)

    async def scenario(host: SimHost, node: Node) -> None:
        recorder.entries.update({entry[0]: entry for entry in node.raft.log.slice(1, node.raft.log.last_index)})
        recorder.follow(node)
        await work(host, node, recorder)
        await node.stop()
        host.disk.observer = None

    play(scenario, host)
    states = states_by_index(recorder.entries)

    for moment in recorder.moments:
        check(moment, recorder.entries, states)

    assert len(recorder.moments) > 500
    assert host.log.of("wal.segment.rolled")
    assert host.log.of("wal.segment.released")
    assert host.log.of("store.compaction.finished")


def test_a_node_that_crashed_anywhere_serves_and_keeps_what_it_acknowledged() -> None:
    """The whole way: start, write, lose power at a random moment, start again, many times over."""
    host = SimHost(99, SimSettings(segment_bytes=SEGMENT_BYTES))
    chance = random.Random(99)
    promised: dict[bytes, int] = {}
    tried: dict[bytes, int] = {}

    async def life(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        for key, number in promised.items():
            value = await client.get(key)
            assert value is not None, "an acknowledged key is gone"
            assert number <= int(value) <= tried[key]

        async def write(key: bytes) -> None:
            while True:
                tried[key] = tried.get(key, 0) + 1
                number = tried[key]
                try:
                    await client.put(key, b"%d" % number)
                except ApiError:
                    return
                promised[key] = number

        with trio.move_on_after(chance.uniform(0, 0.5)):
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(write, b"key%d" % number)

    for _ in range(40):
        play(life, host)

    assert sum(promised.values()) > 1000

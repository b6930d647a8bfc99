"""Power loss at every point of a snapshot's installation: what is found is a state that was, and nothing acknowledged
is gone; and the member that starts from it catches up.

A member that was away for long is brought a snapshot while the others go on. At every change of its disk, and around
every step of its store, the test takes images of what a power loss would leave.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
from attrs import define, field
from tests.node.cluster_rig import Trial, play_three
from tests.node.test_crash_points import IMAGES, Moment, check, states_by_index

from coord.node.node import Node
from coord.protocol.messages import AppendReply, RaftMessage, VoteReply
from coord.protocol.ops import Op
from coord.raft.types import Entry, HardState
from coord.testing.sim_node import SimHost

SETTINGS: dict[str, Any] = {"segment_bytes": 16 * 1024, "options": {"catch_up_entries": 10, "catch_up_entries_max": 10}}
"""What members keep of the log is bounded, which is long in real life."""
Tell = Callable[[str], None]


class WatchedEngine:
    """A store's engine, telling before and after it changes what a power loss leaves."""

    def __init__(self, engine: Any, tell: Tell) -> None:
        self._engine, self._tell = engine, tell

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if name not in ("commit", "sync", "switch"):
            return found

        def told(*arguments: Any) -> Any:
            self._tell(f"before a {name} of the store")
            result = found(*arguments)
            self._tell(f"after a {name} of the store")
            return result

        return told

    def stage(self) -> Any:
        self._tell("before a stage of the store")
        return _WatchedStage(self._engine.stage(), self._tell)


class _WatchedStage:
    def __init__(self, stage: Any, tell: Tell) -> None:
        self._stage, self._tell = stage, tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage, name)

    def finish(self, index: int, term: int) -> None:
        self._tell("before the end of a stage")
        self._stage.finish(index, term)
        self._tell("after the end of a stage")


@define
class Follower:
    """Follows a member: what went to its log, and what it has acknowledged."""

    entries: dict[int, Entry]
    tell: Tell
    index: int = 0
    term: int = 0

    def follow(self, host: SimHost, node: Node) -> None:
        outlets, writer = node.consensus.outlets, node.log_writer
        to_log = outlets.to_log

        def record(entries: Sequence[Entry], state: HardState, messages: Sequence[RaftMessage]) -> None:
            self.entries.update({entry[0]: entry for entry in entries})
            to_log(entries, state, messages)

        outlets.to_log = record
        outlets.send, writer.send = self._noting(outlets.send), self._noting(writer.send)
        host.disk.observer = self.tell
        host.store.engine = WatchedEngine(host.store.engine, self.tell)

    def _noting(self, send: Callable[[Sequence[Any]], None]) -> Callable[[Sequence[Any]], None]:
        def noting(messages: Sequence[Any]) -> None:
            self._note(messages)
            send(messages)

        return noting

    def _note(self, messages: Sequence[Any]) -> None:
        for message in messages:
            if isinstance(message, AppendReply) and not message.is_rejected:
                self.index, self.term = max(self.index, message.index), max(self.term, message.term)
            elif isinstance(message, VoteReply) and not message.refusal and not message.is_pre:
                self.term = max(self.term, message.term)


@define
class Story:
    """One member is away while much is written, comes back, and is brought a snapshot under load."""

    tell: Callable[[Trial, str], None]
    """Called at every point of the member that was away."""
    until_back: Callable[[Trial], Awaitable[None]]
    entries: dict[int, Entry] = field(factory=dict)
    away: str = ""
    follower: Follower = field(init=False)

    async def play(self, trial: Trial) -> None:
        leader = await trial.leader()
        for node in trial.nodes.values():
            self._record(node)
        self.away = trial.followers()[0]
        await trial.client(leader).put(b"before", b"v")
        await trial.agree()
        await trial.kill(self.away)
        assert await trial.leader() == leader
        await self._write(trial, leader, range(150))
        self.follower = Follower(self.entries, lambda where: self.tell(trial, where))
        host = trial.hosts[self.away]
        host.settings.on_node = lambda name, node: self.follower.follow(host, node)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, trial, leader, range(150, 300))
            await trial.start(self.away)
            await self.until_back(trial)

    def _record(self, node: Node) -> None:
        log = node.raft.log
        self.entries.update({entry[0]: entry for entry in log.slice(log.base_index + 1, log.last_index)})
        to_log = node.consensus.outlets.to_log

        def record(entries: Sequence[Entry], state: HardState, messages: Sequence[RaftMessage]) -> None:
            self.entries.update({entry[0]: entry for entry in entries})
            to_log(entries, state, messages)

        node.consensus.outlets.to_log = record

    @staticmethod
    async def _write(trial: Trial, leader: str, numbers: range) -> None:
        client = trial.client(leader)
        lease = 0
        for number in numbers:
            if number % 40 == 0:
                lease, _ = await client.write(Op.LEASE_GRANT, [3600])
            await client.put(b"k%02d" % (number % 50), b"v" * 300, lease if number % 2 else 0)
            if number % 30 == 29:
                await client.write(Op.COMPACT, [trial.nodes[leader].revision - 10, False])
            await trio.sleep(0.01)


async def agree_for_a_while(trial: Trial) -> None:
    await trial.agree()
    await trio.sleep(2)


def test_every_crash_point_of_an_installation_recovers() -> None:
    moments: list[tuple[Moment, int]] = []

    def take(trial: Trial, where: str) -> None:
        follower = story.follower
        for _ in range(IMAGES):
            image = trial.hosts[story.away].image()
            image.settings.on_node = lambda name, node: None
            moments.append((Moment(where, image, follower.index), follower.term))

    story = Story(take, agree_for_a_while)
    trial = play_three(story.play, **SETTINGS)
    log = trial.hosts[story.away].log
    assert log.of("snapshot.state.installed")
    states = states_by_index(story.entries)
    for moment, term in moments:
        check(moment, story.entries, states)
        assert moment.host.recover(moment.host.workers()).raft.term >= term
    seen = {moment.where for moment, _ in moments}
    assert {"before a switch of the store", "after the end of a stage"} <= seen
    assert len(moments) > 300


def points() -> list[Any]:
    """At which of the points the power fails: around the installation, and some behind it; all with `make sim`."""
    few = (8, 12, 13, 14, 15, 16, 17, 18, 40, 90)
    if seed := os.environ.get("SEED"):
        return [pytest.param(int(seed), marks=pytest.mark.sim)]
    return [*few, *(pytest.param(at, marks=pytest.mark.sim) for at in range(1, 121) if at not in few)]


@pytest.mark.parametrize("at", points())
def test_a_member_that_lost_power_in_an_installation_catches_up(at: int) -> None:
    images: list[SimHost] = []
    lost = trio.Event()
    count = 0

    def tell(trial: Trial, where: str) -> None:
        nonlocal count
        count += 1
        if count == at:
            host = trial.hosts[story.away]
            # Nothing leaves it from here on.
            trial.network.stop(story.away)
            images.append(host.image())
            lost.set()

    async def come_back(trial: Trial) -> None:
        await lost.wait()
        await trial.kill(story.away)
        image = trial.hosts[story.away] = images[0]
        image.settings.on_node = lambda name, node: None
        await trial.start(story.away)
        await trial.agree()
        client = trial.client(story.away)
        await client.put(b"after", b"v")
        await trial.agree()
        assert await client.get(b"before") == b"v"

    story = Story(tell, come_back)
    play_three(story.play, **SETTINGS)
    assert lost.is_set()

"""Three members over a network in memory: elect, replicate, forward, lose some, catch up."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from attrs import define, field
from tests.node.cluster_rig import NAMES, Trial, play_three, until
from tests.node.conftest import play

from coord.codec import decode, encode
from coord.errors import ApiError, OutcomeUnknown
from coord.node.consensus import Consensus
from coord.node.node import Node
from coord.node.waiters import Load
from coord.node.worker import Done, Job
from coord.protocol.bodies import encode_body
from coord.protocol.entries import encode_entry
from coord.protocol.id_run import IdRun
from coord.protocol.messages import AppendReply
from coord.protocol.ops import AlarmAction, EntryKind, Method, Notification, Op
from coord.testing.sim_node import SimClient, SimHost
from coord.testing.sim_worker import SimWorker
from coord.types import AlarmType, Role


def test_three_members_elect_one_and_hold_the_same() -> None:
    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        assert trio.current_time() < 1.0
        for name in NAMES:
            await trial.client(name).put(name.encode(), b"1")
        for name in NAMES:
            for key in NAMES:
                assert await trial.client(name).get(key.encode()) == b"1"
        await trial.agree()
        assert [node.raft.role for node in trial.nodes.values()].count(Role.LEADER) == 1
        assert trial.nodes[leader].machine.cluster_id == trial.nodes["n2"].machine.cluster_id != 0

    play_three(story)


def test_every_member_has_joined_once_all_were_met() -> None:
    """S1: the incarnations of those who were met stand in the log, and nobody is blank."""

    async def story(trial: Trial) -> None:
        await trial.leader()
        await trio.sleep(1)
        for node in trial.nodes.values():
            incarnations = {row.name: row.incarnation for row in node.machine.members.values()}
            assert incarnations == {name: trial.nodes[name].options.incarnation for name in NAMES}
            assert not node.raft.configuration.blank

    play_three(story)


def test_an_answer_comes_after_the_own_apply() -> None:
    """S14: whoever wrote through a follower reads it there without a round."""

    async def story(trial: Trial) -> None:
        await trial.leader()
        client = trial.client(trial.followers()[0])
        for number in range(20):
            await client.put(b"k", b"%d" % number)
            arguments = [b"k", b"", 0, 0, 0, 0, True]
            records, _, _ = await client.request(Method.RANGE, arguments)
            assert records[0][5] == b"%d" % number

    play_three(story)


def test_many_frames_of_a_follower_travel_together() -> None:
    async def story(trial: Trial) -> None:
        await trial.leader()
        follower = trial.nodes[trial.followers()[0]]
        client = trial.client(follower.name)
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(client.put, b"%d" % number, b"v")
        assert len(client.acknowledged) == 300
        assert not follower.waiters.sent
        assert not follower.waiters.placed
        assert follower.waiters.sent_load == follower.waiters.placed_load == Load()

    play_three(story)


def test_leader_killed_is_replaced_at_once_and_loses_nothing() -> None:
    async def story(trial: Trial) -> None:
        for round_number in range(6):
            leader = await trial.leader()
            client = trial.client(trial.followers()[0])
            await client.put(b"%d" % round_number, b"v")
            await trial.kill(leader)
            killed_at = trio.current_time()
            await trial.leader()
            assert trio.current_time() - killed_at < 0.3
            await client.put(b"%d after" % round_number, b"v")
            await trial.start(leader)
        await trial.agree()
        for name in NAMES:
            for number in range(6):
                assert await trial.client(name).get(b"%d" % number) == b"v"
                assert await trial.client(name).get(b"%d after" % number) == b"v"

    play_three(story)


def test_writes_under_changes_of_leader_are_applied_once_or_unknown() -> None:
    """Nothing acknowledged is missing, and nothing that was refused happened."""

    async def story(trial: Trial) -> None:
        await trial.leader()
        done: set[bytes] = set()
        refused: set[bytes] = set()

        async def write(name: str, low: int) -> None:
            for number in range(low, low + 60):
                if name not in trial.nodes:
                    return
                key = b"%s/%d" % (name.encode(), number)
                try:
                    with trio.move_on_after(8):
                        await trial.client(name).put(key, b"v")
                        done.add(key)
                except OutcomeUnknown:
                    pass
                except ApiError:
                    refused.add(key)
                await trio.sleep(0.01)

        for low in (0, 100, 200):
            async with trio.open_nursery() as nursery:
                for name in NAMES:
                    nursery.start_soon(write, name, low)
                await trio.sleep(0.3)
                leader = await trial.leader()
                await trial.kill(leader)
                nursery.cancel_scope.deadline = trio.current_time() + 20
            await trial.start(leader)
            await trial.leader()
        await trial.agree()
        records, _, _ = await trial.client("n1").request(Method.RANGE, [b"\0", b"\0"])
        found = {record[0] for record in records}
        assert len(done) > 200
        assert done <= found
        assert not refused & found

    play_three(story)


def test_all_lose_power_at_once() -> None:
    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        client = trial.client(trial.followers()[0])
        for number in range(50):
            await client.put(b"%d" % number, b"v" * 500)
        for name in NAMES:
            await trial.kill(name)
        await trial.start(*NAMES)
        leader = await trial.leader()
        for number in range(50):
            assert await trial.client(leader).get(b"%d" % number) == b"v" * 500
        await trial.agree()
        assert not any(host.log.of("snapshot.transfer.started") for host in trial.hosts.values())

    play_three(story)


def test_follower_that_was_away_catches_up_by_the_log() -> None:
    async def story(trial: Trial) -> None:
        await trial.leader()
        away = trial.followers()[0]
        await trial.kill(away)
        leader = await trial.leader()
        for number in range(100):
            await trial.client(leader).put(b"%d" % number, b"v")
        await trial.start(away)
        await trial.agree()
        assert not trial.hosts[away].log.of("snapshot.state.installed")

    play_three(story)


def test_follower_that_was_away_for_long_catches_up_by_a_snapshot() -> None:
    """A follower that is gone holds no log; when it comes back it gets the state, and its watchers the history."""

    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        away = trial.followers()[0]
        await trial.client(leader).put(b"before", b"v")
        await trial.kill(away)
        leader = await trial.leader()
        for number in range(300):
            await trial.client(leader).put(b"%d" % (number % 50), b"v" * 100)
            await trio.sleep(0.01)
        assert trial.nodes[leader].raft.log.base_index > 200
        await trial.start(away)
        await trial.agree()
        assert trial.hosts[away].log.of("snapshot.state.installed")
        await trial.client(away).put(b"after", b"v")
        assert await trial.client(leader).get(b"after") == b"v"
        # What it was given is its own: it starts from it.
        await trial.kill(away)
        await trial.start(away)
        await trial.agree()
        await trial.kill(leader)
        await trial.leader()
        assert await trial.client(away).get(b"before") == b"v"
        assert await trial.client(away).get(b"after") == b"v"

    play_three(story, options={"catch_up_entries": 10, "catch_up_entries_max": 10})


def test_cut_off_follower_is_given_a_snapshot_while_it_lives() -> None:
    """S30: its watches go on from their own revisions, with every event once."""

    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        away = trial.followers()[0]
        watcher = trial.client(away)
        # Its clients would go elsewhere; this one stays.
        trial.nodes[away].standing.on_leaderless = lambda reason: None
        await watcher.request(Method.WATCH_CREATE, [b"k", b"l"])
        others = [name for name in NAMES if name != away]
        for other in others:
            trial.network.cut(other, away)
            trial.network.cut(away, other)
        first = trial.nodes[leader].revision + 1
        for number in range(300):
            await trial.client(leader).put(b"k%d" % (number % 50), b"v" * 100)
            await trio.sleep(0.03)
        trial.network.heal()
        await trial.agree()
        assert trial.hosts[away].log.of("snapshot.state.installed")
        await trio.sleep(1)
        seen = [
            event[1][2] for note in watcher.notifications if note[0] == int(Notification.EVENTS) for event in note[3]
        ]
        assert seen == list(range(first, first + 300))

    play_three(story, options={"catch_up_entries": 10, "catch_up_entries_max": 10})


def test_without_a_quorum_writes_end_in_time_and_say_why() -> None:
    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        follower = trial.followers()[0]
        await trial.client(leader).put(b"a", b"1")
        await trial.agree()
        for name in NAMES:
            if name != follower:
                await trial.kill(name)
        await trio.sleep(3)
        client = trial.client(follower)
        began = trio.current_time()
        with pytest.raises(ApiError, match=f"no leader: {follower} waits for ") as refused:
            await client.write_many([[0, int(Op.PUT), None, [b"b", b"1"]]], timeout_ms=700)
        assert not isinstance(refused.value, OutcomeUnknown)
        assert 0.6 < trio.current_time() - began < 1.0
        with pytest.raises(ApiError, match="no leader"):
            await client.request(Method.RANGE, [b"a"], timeout_ms=700)
        records, _, _ = await client.request(Method.RANGE, [b"a", b"", 0, 0, 0, 0, True])
        assert records[0][5] == b"1"

    play_three(story)


def test_writes_wait_for_the_next_leader() -> None:
    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        follower = trial.followers()[0]
        trial.network.stop(leader)
        await trio.sleep(0.5)
        client = trial.client(follower)
        stopped = trial.nodes[leader].member_id
        await until(lambda: trial.nodes[follower].raft.leader_id != stopped)
        await client.put(b"a", b"1")
        assert trial.nodes[follower].revision == 2

    play_three(story)


def test_one_member_alone_keeps_its_term_and_leads_when_another_comes() -> None:
    async def story(trial: Trial) -> None:
        alone = trial.nodes["n1"]
        await trio.sleep(60)
        assert alone.raft_term <= 1
        assert not alone.machine.cluster_id
        assert alone.standing.missing() == ["n2", "n3"]
        began = trio.current_time()
        await trial.start("n2")
        await trial.leader()
        assert trio.current_time() - began < 2.0
        await trial.client("n2").put(b"a", b"1")
        assert await trial.client("n1").get(b"a") == b"1"
        await trial.start("n3")
        await trial.agree()
        await trial.client("n3").put(b"a", b"2")

    play_three(story, start=("n1",))


def test_orderly_stop_hands_the_lead_over() -> None:
    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        client = trial.client(trial.followers()[0])
        await client.put(b"a", b"1")
        node = trial.nodes[leader]
        applied = node.machine.applied_index
        began = trio.current_time()
        await node.stop()
        assert trio.current_time() - began < 0.5
        assert node.raft.role is Role.FOLLOWER
        assert node.raft.leader_id not in (0, node.member_id)
        assert trial.hosts[leader].store.synced_index >= applied
        await client.put(b"b", b"1")
        await trial.kill(leader)
        assert trio.current_time() - began < 1.0

    play_three(story)


def test_stop_after_a_stall_hands_the_lead_over_when_somebody_is_heard() -> None:
    """S12: when it is to stop it has heard nobody for a while, as after a stall of its machine or of the network."""

    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        node, log = trial.nodes[leader], trial.hosts[leader].log
        for name in trial.followers():
            trial.network.cut(name, leader)
        await trio.sleep(0.3)
        trial.nursery.start_soon(node.stop)
        await trio.sleep(0.1)
        assert not log.of("raft.transfer.started")
        trial.network.heal()
        await until(lambda: node.raft.role is Role.FOLLOWER)
        assert len(log.of("raft.transfer.finished")) == len(log.of("raft.transfer.started")) == 1
        assert await trial.leader(but=leader) != leader

    play_three(story)


def test_rolling_restart_under_load_fails_no_write_elsewhere() -> None:
    async def story(trial: Trial) -> None:
        await trial.leader()
        written = 0
        failures: list[ApiError] = []

        async def load(name: str) -> None:
            nonlocal written
            while name in trial.nodes and not trial.nodes[name].leadership.is_stopping:
                written += 1
                try:
                    await trial.client(name).put(b"%d" % written, b"v")
                except ApiError as error:
                    failures.append(error)
                await trio.sleep(0.005)

        for stopping in NAMES:
            async with trio.open_nursery() as nursery:
                for name in NAMES:
                    if name != stopping:
                        nursery.start_soon(load, name)
                await trio.sleep(0.2)
                await trial.nodes[stopping].stop()
                await trial.kill(stopping, power=False)
                await trio.sleep(0.5)
                await trial.start(stopping)
                await trio.sleep(0.5)
                nursery.cancel_scope.cancel()
        await trial.agree()
        assert written > 300
        assert not failures

    play_three(story)


def test_new_leader_clears_the_alarm_of_the_one_before() -> None:
    """S16: all hold the same, so that an alarm whose member leads no more would else stay for ever."""

    async def story(trial: Trial) -> None:
        name = await trial.leader()
        leader = trial.nodes[name]
        former = trial.nodes[trial.followers()[0]].member_id
        body = encode([int(AlarmAction.ACTIVATE), former, int(AlarmType.NOSPACE)])
        leader.consensus.propose_internal(encode_entry(EntryKind.ALARM, None, body))
        await until(lambda: bool(trial.hosts[name].log.of("alarm.state.cleared")) and not leader.machine.alarms)
        await trial.agree()
        await trial.client(trial.followers()[0]).put(b"a", b"1")

    play_three(story)


def test_new_leader_compacts_on_in_the_old_rhythm() -> None:
    async def story(trial: Trial) -> None:
        await trial.leader()
        for number in range(10):
            await trial.client("n1").put(b"a", b"%d" % number)
        await trio.sleep(38)
        await trial.client("n1").put(b"a", b"again")
        await trial.kill(await trial.leader())
        leader = trial.nodes[await trial.leader()]
        await until(lambda: leader.machine.compact_revision > 1, 8)

    play_three(story, options={"compaction_retention": 20.0})


def test_paused_leader_that_goes_on_follows_the_next() -> None:
    """S11, S14: what it had taken is not lost, and what it answers is not wrong."""

    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        await trial.client(leader).put(b"a", b"1")
        trial.network.stop(leader)
        stopped = trial.nodes.pop(leader)
        await trial.leader()
        await trial.client(trial.followers()[0]).put(b"a", b"2")
        stale = SimClient(stopped)
        with pytest.raises(ApiError):
            await stale.request(Method.RANGE, [b"a"], timeout_ms=100)
        trial.network.resume(leader)
        trial.nodes[leader] = stopped
        await trial.leader()
        assert await stale.get(b"a") == b"2"
        await trial.agree()

    play_three(story)


def test_leader_whose_disk_stands_still_holds_the_others_back_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 4: they commit without it and their clients write on, but its memory ends somewhere."""
    monkeypatch.setattr("coord.node.compose.LOG_BYTES_OPEN_MAX", 20_000)

    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        node, client = trial.nodes[leader], trial.client(trial.followers()[0])
        stuck: list[tuple[Job, Done]] = []
        worker, log = node.log_writer.worker, node.raft.log
        node.log_writer.worker = _Stuck(stuck)

        async def write(number: int) -> None:
            await client.put(b"%d" % number, bytes(1000))

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(write, number)
                await trio.sleep(0.01)
            assert 10 < len(client.acknowledged) < 40
            assert log.bytes_above(log.persisted_index) < 40_000
            assert node.raft.role is Role.LEADER
            node.log_writer.worker = worker
            for job, done in stuck:
                worker.submit(job, done)
        assert len(client.acknowledged) == 100
        await trial.agree()

    play_three(story)


@define
class _Stuck:
    """A worker that does nothing."""

    jobs: list[tuple[Job, Done]]
    is_quick: bool = False

    def submit(self, job: Job, done: Done, *, is_short: bool = False) -> None:
        self.jobs.append((job, done))

    def close(self) -> bool:
        return True


@define
class _AtOnce:
    """A worker on a disk that takes no time; it notes what waited to be applied as each job began."""

    node: Node
    lags: list[int] = field(factory=list)
    is_quick: bool = True

    def submit(self, job: Job, done: Done, *, is_short: bool = False) -> None:
        self.lags.append(self.node.applier.lag)
        job()
        done(None)

    def close(self) -> bool:
        return True


def test_a_leader_answers_what_is_committed_before_it_writes_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(trial: Trial) -> None:
        node = trial.nodes[await trial.leader()]
        worker = node.log_writer.worker = _AtOnce(node)
        follower = trial.nodes[trial.followers()[0]]
        acknowledging = follower.log_writer.worker = _AtOnce(follower)
        client = SimClient(node)
        received, body = Consensus.received, encode_body([[0, int(Op.PUT), None, [b"new", b"v"]]])
        numbers = list(range(1000, 1050))

        def receive(self: Consensus, message: Any) -> None:
            """Have a write come with each acknowledgement."""
            received(self, message)
            if self is node.consensus and isinstance(message, AppendReply) and numbers:
                number = numbers.pop()
                node.writes(client, 0, 0, IdRun(range(number, number + 1), 0), body, decode(body))

        monkeypatch.setattr(Consensus, "received", receive)
        await client.put(b"first", b"v")
        await until(lambda: not numbers)
        assert len(worker.lags) > 20
        assert set(worker.lags) == {0}
        assert max(acknowledging.lags), "the leader waits for a follower, and nobody for what that one applies"

    play_three(story)


def test_what_a_late_write_commits_is_applied_at_once() -> None:
    """A leader that is alone commits by its own write, behind the applier's turn."""

    async def scenario(host: SimHost, node: Node) -> None:
        node.log_writer.worker = _AtOnce(node)
        node.log_writer.is_answer_due = lambda: True
        client = SimClient(node)
        for number in range(20):
            began = trio.current_time()
            await client.put(b"k", b"%d" % number)
            assert trio.current_time() == began

    play(scenario)


def test_a_leader_whose_disk_hangs_hands_over() -> None:
    """Its heartbeats go on, so that without this nobody would replace it, and its clients would wait for ever."""

    async def story(trial: Trial) -> None:
        old = await trial.leader()
        await trial.client(old).put(b"a", b"1")
        stuck = trial.nodes[old]
        assert isinstance(stuck.log_writer.worker, SimWorker)
        stuck.log_writer.worker.delay_s_max = 1e6
        # The others are a quorum.
        await trial.client(old).put(b"b", b"2")
        await until(lambda: stuck.raft.role is not Role.LEADER, within_s=3.0)
        new = await trial.leader(but=old)
        assert new != old
        await trial.client(new).put(b"c", b"3")

    play_three(story)


def test_members_that_have_nothing_to_do_cost_little() -> None:
    """A pass for each heartbeat, and for each that comes, not for every tick."""

    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        await trio.sleep(5)
        before = {name: node.loop.passes for name, node in trial.nodes.items()}
        await trio.sleep(10)
        for name, node in trial.nodes.items():
            passes_a_second = (node.loop.passes - before[name]) / 10
            assert passes_a_second < (45 if name == leader else 25), name
        assert await trial.leader() == leader

    play_three(story)

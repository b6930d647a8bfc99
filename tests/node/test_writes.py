"""Every write gets exactly one answer, and nothing of a connection that went is kept."""

from __future__ import annotations

import itertools
from typing import Any

import trio

from coord.codec import decode, encode
from coord.node.node import Node
from coord.node.worker import Done, Job
from coord.protocol.bodies import encode_body
from coord.protocol.id_run import IdRun
from coord.protocol.ops import Op
from coord.testing.sim_node import SimClient, SimHost, SimSettings

from .conftest import play


def test_a_request_id_of_zero_is_answered_like_any_other() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        answers: list[list[object]] = []
        client.answered = answers.append
        writes = [[0, int(Op.PUT), None, [b"a", b"1"]]]
        node.writes(client, 0, 0, [(0, 0)], encode(writes), writes)
        await trio.sleep(1)
        assert answers == [[0, 2, None]]

    play(scenario)


def test_frames_of_one_turn_share_an_entry_and_each_is_answered_its_own() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        answers: dict[int, list[list[object]]] = {}
        clients: list[SimClient] = []
        held = Held()
        node.log_writer.worker = held
        last_index = node.raft.log.last_index
        for number in range(4):
            client = SimClient(node)
            client.answered = answers.setdefault(number, []).append
            writes = [[0, int(Op.PUT), None, [b"k%d" % number, b"1"]] for _ in range(number + 1)]
            writes[0][3] = [b"", b"1"] if number == 2 else writes[0][3]
            ids = [(position, 0) for position in range(number + 1)]
            node.writes(client, 0, 0, ids, encode(writes), writes)
            clients.append(client)
        await trio.testing.wait_all_tasks_blocked()
        node.forget(clients[1])
        held.release()
        await trio.sleep(1)
        assert node.raft.log.last_index == last_index + 1
        assert answers[0] == [[0, 2, None]]
        assert answers[1] == []
        assert [answer[:2] for answer in answers[2]] == [[0, 4], [1, 5], [2, 6]]
        assert [len(answer) for answer in answers[2]] == [4, 3, 3]
        assert answers[3] == [[0, 7, None], [1, 8, None], [2, 9, None], [3, 10, None]]
        assert node.consensus.is_idle

    play(scenario)


def test_a_frame_that_timed_out_is_not_answered_again() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        answers: list[list[object]] = []
        client.answered = answers.append
        writes = [[0, int(Op.PUT), None, [b"a", b"1"]], [0, int(Op.PUT), None, [b"b", b"1"]]]
        node.writes(client, 0, 0, [(0, 1), (7, 0)], encode(writes), writes)
        await trio.testing.wait_all_tasks_blocked()
        node.consensus.expire(node.consensus.clock() + 1)
        await trio.sleep(1)
        assert [answer[0] for answer in answers] == [0, 7]
        assert len(answers[0]) == 4
        assert answers[1] == [7, 3, None]

    play(scenario)


def test_a_run_of_ids_is_answered_at_once_where_all_are_put() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = RawClient(node)
        run, puts = IdRun(range(5, 8), 0), [0, b"a", b"1", b"b", b"1", b"a", b"2"]
        node.writes(client, 0, 0, run, encode(puts), puts)
        await trio.sleep(1)
        assert client.replies == [[5, 2, None, None, 3]]
        client.replies.clear()
        delete = [0, int(Op.DELETE_RANGE), None, [b"a"]]
        node.writes(client, 0, 0, run, encode([delete] * 3), [delete] * 3)
        await trio.sleep(1)
        assert client.replies == [[5, 5, [1, []]], [6, 5, [0, []]], [7, 5, [0, []]]]
        assert node.consensus.is_idle

    play(scenario)


def test_runs_that_share_an_entry_have_their_own_revisions() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        clients = [RawClient(node) for _ in range(3)]
        for number, client in enumerate(clients):
            puts: list[Any] = [0, b"a", b"1", b"b", b"1"]
            ids = [(8, 0), (9, 0)] if number == 1 else IdRun(range(8, 10), 0)
            node.writes(client, 0, 0, ids, encode(puts), puts)
        await trio.sleep(1)
        assert clients[0].replies == [[8, 2, None, None, 2]]
        assert clients[1].replies == [[8, 4, None], [9, 5, None]]
        assert clients[2].replies == [[8, 6, None, None, 2]]

    play(scenario)


def test_a_run_that_timed_out_is_not_answered_again() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        early, late = RawClient(node), RawClient(node)
        puts = [0, b"a", b"1", b"b", b"1"]
        node.writes(early, 0, 0, IdRun(range(5, 7), 1), encode(puts), puts)
        node.writes(late, 0, 0, IdRun(range(5, 7), 0), encode(puts), puts)
        await trio.testing.wait_all_tasks_blocked()
        node.consensus.expire(node.consensus.clock() + 1)
        await trio.sleep(1)
        assert [(reply[0], len(reply)) for reply in early.replies] == [(5, 4), (6, 4)]
        assert late.replies == [[5, 4, None, None, 2]]

    play(scenario)


def test_a_node_whose_disk_stands_still_is_not_ready() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        assert node.health()["linearizable_read"] is None
        held = Held()
        node.log_writer.worker = held
        writes = [[0, int(Op.PUT), None, [b"a", b"1"]]]
        node.writes(client, 0, 0, [(99, 0)], encode(writes), writes)
        await trio.sleep(6)
        assert str(node.health()["linearizable_read"]) == "etcdserver: request timed out"
        held.release()
        assert await client.get(b"a") == b"1"
        assert node.health()["linearizable_read"] is None

    play(scenario)


class RawClient(SimClient):
    """A client that keeps its replies as they came."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.replies: list[list[Any]] = []

    def reply(self, reply: bytes) -> None:
        self.replies.append(decode(reply))


class Held:
    """A worker that does nothing until it is released."""

    is_quick = False

    def __init__(self) -> None:
        self.jobs: list[tuple[Job, Done]] = []
        self.is_held = True

    def submit(self, job: Job, done: Done, *, is_short: bool = False) -> None:
        self.jobs.append((job, done))
        if not self.is_held:
            self.release()

    def release(self) -> None:
        self.is_held = False
        while self.jobs:
            job, done = self.jobs.pop(0)
            job()
            done(None)

    def close(self) -> bool:
        return True


def test_a_write_that_is_too_large_is_refused_also_beside_others() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        answers: list[list[object]] = []
        client.answered = answers.append
        large = [0, int(Op.PUT), None, [b"a", bytes(1100)]]
        small = [0, int(Op.PUT), None, [b"b", bytes(600)]]
        for writes, form in itertools.product(([large], [small, large, small]), (encode, encode_body)):
            ids = [(90 + position, 0) for position in range(len(writes))]
            body = form(writes)
            node.writes(client, 0, 0, ids, body, decode(body))
            await trio.sleep(1)
            assert [answer[3][1] if len(answer) > 3 else None for answer in answers] == [  # type: ignore[index]
                "etcdserver: request is too large" if write is large else None for write in writes
            ]
            answers.clear()
        assert await client.get(b"a") is None

    play(scenario, SimHost(1, SimSettings(options={"max_request_bytes": 1000})))

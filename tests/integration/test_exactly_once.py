"""Real processes whose answers are lost: every write is applied once, and few outcomes are unknown (S17–S21).

Clients count in keys of their own by plain puts: the version of a key tells how often it was written, so that a write
which was applied twice or not at all shows.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from attrs import define, field

import coord
from coord.codec import encode
from coord.errors import ApiError, CoordError, OutcomeUnknown, SequenceClosed, Unavailable
from coord.limits import CLIENT_RECORDS_MAX
from coord.protocol import client_protocol as protocol
from coord.protocol.ops import SUBPROTOCOL, Op
from coord.transport.blocking import BlockingLink

from .cluster import free_port
from .processes import ProcessCluster, until

TIMEOUT_S = 20.0


@pytest.fixture
def cluster(shared: ProcessCluster) -> ProcessCluster:
    return shared


@define(eq=False)
class AnswerThief:
    """A relay between clients and one node. While it steals, requests pass and answers vanish; then the link breaks."""

    target_port: int
    port: int = field(factory=free_port)
    is_stealing: bool = False
    stolen: int = 0
    passages: set[trio.CancelScope] = field(factory=set)
    token: trio.lowlevel.TrioToken | None = None

    async def run(self) -> None:
        self.token = trio.lowlevel.current_trio_token()
        await trio.serve_tcp(self._serve, self.port, host="127.0.0.1")

    async def _serve(self, client: trio.SocketStream) -> None:
        try:
            node = await trio.open_tcp_stream("127.0.0.1", self.target_port)
            async with node, trio.open_nursery() as nursery:
                self.passages.add(nursery.cancel_scope)
                nursery.start_soon(self._carry, client, node, False)
                await self._carry(node, client, True)
                nursery.cancel_scope.cancel()
        except* OSError:
            pass
        except* trio.BrokenResourceError:
            pass

    async def _carry(self, source: trio.SocketStream, target: trio.SocketStream, is_answer: bool) -> None:
        while data := await source.receive_some():
            if is_answer and self.is_stealing:
                self.stolen += len(data)
            else:
                await target.send_all(data)

    def stop_stealing(self) -> None:
        """To be called from another thread than the relay's."""
        trio.from_thread.run_sync(self._break_links, trio_token=self.token)

    def _break_links(self) -> None:
        self.is_stealing = False
        for scope in self.passages:
            scope.cancel()
        self.passages.clear()


@define(eq=False)
class Counters:
    """Clients in a thread, each with one key that its tasks put again and again."""

    endpoints: str
    ports: dict[int, AnswerThief] = field(factory=dict)
    clients: int = 4
    tasks: int = 3
    acknowledged: dict[str, int] = field(factory=dict)
    unknown: dict[str, int] = field(factory=dict)
    refused: list[CoordError] = field(factory=list)
    _failure: list[BaseException] = field(factory=list)
    _stop: threading.Event = field(factory=threading.Event)
    _ready: threading.Event = field(factory=threading.Event)

    @property
    def total(self) -> int:
        return sum(self.acknowledged.values())

    def wait_for(self, more: int) -> None:
        wanted = self.total + more
        until(lambda: self.total >= wanted or self._failure, 60, f"{more} more writes")
        assert not self._failure, self._failure

    def check(self, endpoints: str, *, unknown_max: int = 0) -> None:
        """Find each acknowledged write once, and each of unknown outcome at most once."""
        with coord.connect_sync(endpoints, timeout=TIMEOUT_S) as client:
            for key, count in self.acknowledged.items():
                pair = client.get(key)
                assert pair is not None
                assert count <= pair.version <= count + self.unknown.get(key, 0), key
        assert not self.refused, self.refused[:3]
        assert sum(self.unknown.values()) <= unknown_max

    def main(self) -> None:
        try:
            trio.run(self._run)
        except BaseException as failure:
            self._failure.append(failure)

    def stop(self) -> None:
        self._stop.set()

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            for thief in self.ports.values():
                nursery.start_soon(thief.run)
            async with trio.open_nursery() as clients:
                for number in range(self.clients):
                    clients.start_soon(self._client, f"once/{time.monotonic_ns()}/{number}")
            nursery.cancel_scope.cancel()

    async def _client(self, key: str) -> None:
        self.acknowledged[key] = self.unknown[key] = 0
        endpoints = self.endpoints.split(",")
        random.shuffle(endpoints)
        async with coord.connect(endpoints, timeout=TIMEOUT_S) as client, trio.open_nursery() as nursery:
            for _ in range(self.tasks):
                nursery.start_soon(self._count, client, key)

    async def _count(self, client: coord.Client, key: str) -> None:
        while not self._stop.is_set():
            try:
                await client.put(key, b"v")
            except OutcomeUnknown:
                self.unknown[key] += 1
            except CoordError as error:
                self.refused.append(error)
            else:
                self.acknowledged[key] += 1


@contextmanager
def counting(counters: Counters, check_at: str, *, unknown_max: int = 0) -> Iterator[Counters]:
    thread = threading.Thread(target=counters.main, name="counters", daemon=True)
    thread.start()
    try:
        counters.wait_for(50)
        yield counters
        counters.wait_for(50)
    finally:
        counters.stop()
        thread.join(60)
    assert not thread.is_alive()
    assert not counters._failure, counters._failure
    counters.check(check_at, unknown_max=unknown_max)


def test_lost_answers_lose_no_increment_and_double_none(cluster: ProcessCluster) -> None:
    thieves = {node.client_port: AnswerThief(node.client_port) for node in cluster.nodes.values()}
    endpoints = ",".join(f"127.0.0.1:{thief.port}" for thief in thieves.values())
    with counting(Counters(endpoints, thieves), cluster.endpoints) as counters:
        for thief in [*thieves.values()] * 2:
            thief.is_stealing = True
            counters.wait_for(50)
            thief.stop_stealing()
            counters.wait_for(50)
    assert any(thief.stolen for thief in thieves.values())
    cluster.check_agreement()


def test_leaders_that_die_between_append_and_answer_leave_nothing_unknown(cluster: ProcessCluster) -> None:
    with counting(Counters(cluster.endpoints), cluster.endpoints) as counters:
        for _ in range(3):
            leader = cluster.leader()
            cluster[leader].kill()
            counters.wait_for(100)
            cluster[leader].start()
    cluster.check_agreement()


def test_a_follower_that_is_paused_with_forwarded_writes_inside(cluster: ProcessCluster) -> None:
    """What it forwarded before is answered elsewhere; what it still held arrives later, and is recognized."""
    follower, other = cluster.followers()
    # The leader is not among the endpoints, so that every write is forwarded.
    endpoints = f"{cluster[follower].endpoint},{cluster[other].endpoint}"
    with counting(Counters(endpoints), cluster.endpoints) as counters:
        for _ in range(2):
            cluster.pause(follower)
            counters.wait_for(100)
            cluster.resume(follower)
            counters.wait_for(20)
    cluster.check_agreement()


def a_link(endpoint: str) -> BlockingLink:
    host, _, port = endpoint.partition(":")
    link = BlockingLink.open(host, int(port), subprotocol=SUBPROTOCOL, timeout=5.0)
    link.receive(5.0)
    return link


def ask(link: BlockingLink, client: int, low: int, writes: list[tuple[Any, ...]]) -> list[Any]:
    """Send writes in one frame and return their replies in order."""
    ids = [(1000 + place, 5000) for place, _ in enumerate(writes)]
    link.send(protocol.writes_frame(ids, writes, client, low), 5.0)
    replies: dict[int, Any] = {}
    while len(replies) < len(writes):
        frame = protocol.decode_message(link.receive(10.0))
        assert isinstance(frame, protocol.Frame)
        replies.update({reply[0]: reply for reply in frame.items})
    return [replies[request_id] for request_id, _ in ids]


def register(link: BlockingLink) -> int:
    ((_, _, client_id),) = ask(link, 0, 0, [(0, int(Op.REGISTER), None, [])])
    assert isinstance(client_id, int)
    return client_id


def test_requests_that_are_doubled_and_reordered_are_applied_once(cluster: ProcessCluster) -> None:
    chance = random.Random(7)
    links = [a_link(node.endpoint) for node in cluster.nodes.values()]
    client = register(links[0])
    key = b"reordered/%d" % time.monotonic_ns()
    writes = [(number, int(Op.PUT), None, [key, b"%d" % number]) for number in range(1, 101)]
    sent = [(place, write) for write in writes for place in range(3)]
    chance.shuffle(sent)
    answers: dict[int, set[tuple[Any, ...]]] = {}
    for start in range(0, len(sent), 10):
        for place in range(3):
            batch = [write for at, write in sent[start : start + 10] if at == place]
            if batch:
                for write, reply in zip(batch, ask(links[place], client, 1, batch), strict=True):
                    answers.setdefault(write[0], set()).add(tuple(reply[1:]))
    assert all(len(told) == 1 for told in answers.values()), "each sending gets the answer of the first"
    with coord.connect_sync(cluster.endpoints, timeout=TIMEOUT_S) as reader:
        pair = reader.get(key)
        assert pair is not None
        assert pair.version == 100
    # What is below `low` is over: late sendings of it are refused and change nothing.
    ((_, _, _, error),) = ask(links[1], client, 101, [writes[0]])
    assert type(ApiError.from_wire(error)) is SequenceClosed
    for link in links:
        link.close()


def test_a_client_that_was_evicted_registers_anew(cluster: ProcessCluster) -> None:
    with coord.connect_sync(cluster.endpoints, timeout=TIMEOUT_S) as client:
        client.put("evicted", b"1")
        link = a_link(cluster[cluster.leader()].endpoint)
        frame = encode([2, 0, 0, [[1, 60_000]], encode([[0, int(Op.REGISTER), None, []]])])
        for place in range(CLIENT_RECORDS_MAX):
            link.send(frame.replace(encode([1, 60_000]), encode([place + 1, 60_000])), 60.0)
        answered = 0
        while answered < CLIENT_RECORDS_MAX:
            message = protocol.decode_message(link.receive(60.0))
            assert isinstance(message, protocol.Frame)
            answered += len(message.items)
        link.close()
        before = client._calls._numbering.client_id
        client.put("evicted", b"2")
        assert client._calls._numbering.client_id > before
        pair = client.get("evicted")
        assert pair is not None
        assert (pair.value, pair.version) == (b"2", 2)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the children only make calls, and end
def test_forked_processes_number_their_writes_apart(cluster: ProcessCluster) -> None:
    key = f"forked/{time.monotonic_ns()}"
    with coord.connect_sync(cluster.endpoints, timeout=TIMEOUT_S) as client:
        client.put(key, b"0")
        children = []
        for _ in range(3):
            child = os.fork()
            if not child:
                status = 1
                try:
                    for _ in range(20):
                        client.put(key, b"child")
                    status = 0
                finally:
                    os._exit(status)
            children.append(child)
        for _ in range(20):
            client.put(key, b"parent")
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        pair = client.get(key)
        assert pair is not None
        assert pair.version == 1 + 4 * 20


def test_without_a_quorum_the_outcome_is_unknown_and_later_settled(cluster: ProcessCluster) -> None:
    """What cannot be known is said so; nothing of it is applied once a later write was."""
    leader = cluster.leader()
    key = f"unknown/{time.monotonic_ns()}"
    with coord.connect_sync(cluster[leader].endpoint, timeout=TIMEOUT_S) as client:
        client.put(key, b"1")
        for name in cluster.followers():
            cluster.pause(name)
        with pytest.raises((OutcomeUnknown, Unavailable)):
            client.put(key, b"2", timeout=2.0)
        for name in cluster.nodes:
            cluster.resume(name)
        client.put(key, b"3")
        pair = client.get(key)
        assert pair is not None
        assert pair.value == b"3"
        assert 2 <= pair.version <= 3
        time.sleep(0.5)
        assert client.get(key) == pair

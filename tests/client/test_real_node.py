"""Both clients against a real node: the guide's examples, and what only a real process can do."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import coord
from coord.errors import Compacted, FailedPrecondition, InvalidArgument, NotFound, OutcomeUnknown
from coord.types import EventType

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "client.md").read_text(encoding="utf-8"), re.M | re.S)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class RealNode:
    """A node on loopback that can be killed and brought back."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.endpoint = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        url = f"http://{self.endpoint}"
        options = [
            "--data-dir",
            str(self.directory / "data"),
            "--listen-client-urls",
            url,
            "--advertise-client-urls",
            url,
            "--listen-peer-urls",
            "http://127.0.0.1:0",
        ]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "coord", "serve", *options], stdout=log, stderr=log)
        give_up = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                    return
            except OSError:
                assert time.monotonic() < give_up, (self.directory / "log").read_text()
                time.sleep(0.02)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    real = RealNode(tmp_path_factory.mktemp("node"))
    real.start()
    yield real
    real.kill()


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_guides_examples_run(node: RealNode, number: int) -> None:
    environment = {**os.environ, "COORD_ENDPOINTS": node.endpoint}
    command = [sys.executable, "-W", "error", "-c", EXAMPLES[number]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_both_clients_agree_with_the_node(node: RealNode) -> None:
    async def main() -> None:
        with coord.connect_sync(node.endpoint) as blocking:
            async with coord.connect(node.endpoint) as client:
                await client.put("both/a", b"1")
                assert blocking.get("both/a") == await client.get("both/a", serializable=True)
                blocking.put("both/b", b"2")
                assert await client.range_response("both/", prefix=True) == blocking.range_response(
                    "both/", prefix=True
                )
                with pytest.raises(InvalidArgument, match="duplicate key"):
                    await client.txn(then=[coord.op.put("k", b""), coord.op.put("k", b"")])
                with pytest.raises(InvalidArgument, match="request is too large"):
                    await client.put("large", bytes(1_600_000))
                assert (await client.health(node.endpoint)).is_healthy
                assert blocking.status().raft_term == (await client.status(node.endpoint)).raft_term

    trio.run(main)


def test_members_come_and_go(node: RealNode) -> None:
    url, other = "http://127.0.0.1:1", "http://127.0.0.1:2"

    async def main() -> None:
        with coord.connect_sync(node.endpoint) as blocking:
            async with coord.connect(node.endpoint) as client:
                (own,) = (await client.member_list()).members
                # It never starts; a learner's silence holds up nobody.
                learner = (await client.member_add([url], is_learner=True)).member
                assert (learner.peer_urls, learner.is_learner, learner.incarnation) == ((url,), True, 0)
                assert {member.id for member in blocking.member_list().members} == {own.id, learner.id}
                with pytest.raises(FailedPrecondition, match="in sync with leader"):
                    await client.member_promote(learner.id)
                with pytest.raises(FailedPrecondition, match="bad leader transferee"):
                    blocking.move_leader(learner.id)
                assert (await client.move_leader(own.id)).leader_id == own.id
                updated = blocking.member_update(learner.id, [other]).members
                assert (other,) in [member.peer_urls for member in updated]
                second = blocking.member_add(url).member
                assert second.becomes_voter
                assert (await client.member_remove(learner.id, second.id)).members == [own]
                for gone in (learner.id, second.id):
                    with pytest.raises(NotFound):
                        await client.member_remove(gone)
                with pytest.raises(FailedPrecondition, match="not enough started"):
                    await client.member_remove(own.id)
                await client.put("after", b"all")

    trio.run(main)


def test_a_large_range_and_a_large_transaction_arrive_whole(node: RealNode) -> None:
    async def main() -> None:
        async with coord.connect(node.endpoint) as client, client.watch("large/", prefix=True) as watch:
            puts = [coord.op.put(f"large/{number:03}", bytes(10_000)) for number in range(100)]
            await client.txn(then=puts)
            async for batch in watch:
                assert len(batch.events) == 100
                break
            keys = [pair.key async for pair in client.range("large/", prefix=True, page=7)]
            assert len(keys) == 100
            assert len((await client.range_response("large/", prefix=True)).kvs) == 100
            await client.delete("large/", prefix=True)
            async for batch in watch:
                assert {event.type for event in batch.events} == {EventType.DELETE}
                break

    trio.run(main)


def test_compacted_names_the_lowest_revision_left(node: RealNode) -> None:
    async def main() -> None:
        async with coord.connect(node.endpoint) as client:
            revision = await client.put("c", b"1")
            await client.put("c", b"2")
            await client.compact(revision + 1, physical=True)
            with pytest.raises(Compacted):
                await client.get("c", revision=revision)
            async with client.watch("c", since=revision) as watch:
                with pytest.raises(Compacted) as caught:
                    await watch.__anext__()
            assert caught.value.compact_revision == revision + 1

    trio.run(main)


def test_calls_and_watches_go_on_after_the_node_was_killed(tmp_path: Path) -> None:
    node = RealNode(tmp_path)
    node.start()
    acknowledged: list[bytes] = []
    seen: list[bytes] = []

    async def write(client: coord.Client) -> None:
        for number in range(400):
            key = b"k%03d" % number
            try:
                await client.put(key, b"v", timeout=20)
            except OutcomeUnknown:
                continue
            acknowledged.append(key)
            await trio.sleep(0.002)

    async def watch(client: coord.Client, task_status: trio.TaskStatus[None]) -> None:
        async with client.watch("k", prefix=True) as batches:
            task_status.started()
            async for batch in batches:
                seen.extend(event.kv.key for event in batch.events)
                if seen[-1] == b"k399":
                    return

    async def main() -> None:
        with trio.fail_after(60):
            async with coord.connect(node.endpoint) as client, trio.open_nursery() as nursery:
                await nursery.start(watch, client)
                nursery.start_soon(write, client)
                await trio.sleep(0.3)
                node.kill()
                await trio.to_thread.run_sync(node.start)

    try:
        trio.run(main)
    finally:
        node.kill()
    assert set(acknowledged) <= set(seen)
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen)

"""The members' port on real sockets: links, strangers, and how fast a dead process is seen."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from tests.node.peer_rig import Place, Rig, beat

from coord.config import Url
from coord.errors import ConfigError
from coord.limits import PEER_FRAME_BYTES_MAX
from coord.observe.log import RecordingLog
from coord.protocol.messages import Append
from coord.protocol.ops import PEER_SUBPROTOCOL, SUBPROTOCOL
from coord.server import peer_gateway as peer_gateway_module
from coord.server.peer_gateway import PeerGateway, SocketNetwork
from coord.testing.sim_network import SimNetwork
from coord.transport.link import LinkFailed
from coord.transport.websocket import open_link

ROOT = Path(__file__).parent.parent.parent


class Member:
    """A member's links on real ports, without a node."""

    def __init__(self, place: Place, number: int, boot: int = 1) -> None:
        self.rig = Rig(place, number, boot)
        self.rig.peers.network = SocketNetwork()
        self.log = RecordingLog()
        self.gateway = PeerGateway(self.rig.peers, self.log, ())
        self.scope = trio.CancelScope()
        [self.url] = self.gateway.listen([Url("127.0.0.1", 0)])

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.gateway.serve)
                nursery.start_soon(self.rig.peers.run)
                task_status.started()


@asynccontextmanager
async def members(count: int) -> AsyncIterator[list[Member]]:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            place = Place(SimNetwork(random.Random(1)), nursery, count)
            made = [Member(place, number) for number in range(1, count + 1)]
            for member in made:
                others = {one.rig.number: (str(one.url),) for one in made if one is not member}
                member.rig.peers.set_members(others)
                await nursery.start(member.run)
            yield made
            nursery.cancel_scope.cancel()


async def until(rig: Rig, *event: object) -> float:
    """Wait until the handler was told this, and return when that was."""
    while event not in rig.names(str(event[0])):  # noqa: ASYNC110  # a handler has nothing to wait for
        await trio.sleep(0.001)
    return rig.time_of(*event)


def test_members_find_each_other_and_talk() -> None:
    async def main() -> None:
        async with members(3) as (one, two, three):
            for rig, others in ((one.rig, (2, 3)), (two.rig, (1, 3)), (three.rig, (1, 2))):
                for other in others:
                    await until(rig, "up", other)
                    await until(rig, "introduced", other, 1)
            large = Append(1, 2, 1, 0, 0, 0, [(1, 1, bytes(PEER_FRAME_BYTES_MAX // 2))])
            one.rig.say(beat(1, 2, 1), large, beat(1, 2, 2), beat(1, 3, 3))
            await until(three.rig, "received", 1, 1)
            while len(two.rig.got.get(1, ())) < 3:  # noqa: ASYNC110
                await trio.sleep(0.001)
            assert two.rig.got[1] == [beat(1, 2, 1), large, beat(1, 2, 2)]
            assert one.log.names[0] == "peer.listener.opened"

    trio.run(main)


CHILD = """
import sys, trio
from tests.server.test_peer_gateway import members

async def main():
    async with members(2) as (one, two):
        two.scope.cancel()
        one.rig.peers.set_members({2: (sys.argv[1],)})
        print(one.url, flush=True)
        await trio.sleep(30)

trio.run(main)
"""


def test_killed_process_is_seen_at_once() -> None:
    async def main() -> None:
        async with members(2) as (one, two):
            one.scope.cancel()
            await trio.sleep(0.05)
            command = [sys.executable, "-c", CHILD, str(two.url)]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            child = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT)
            assert child.stdout is not None
            async with child.stdout:
                url = (await child.stdout.receive_some()).decode().strip()
                two.rig.events.clear()
                two.rig.peers.set_members({1: (url,)})
                await until(two.rig, "up", 1)
                await until(two.rig, "introduced", 1, 1)
                await trio.sleep(0.5)
                child.kill()
                killed_at = trio.current_time()
                seen_at = await until(two.rig, "broken", 1, True)
                assert seen_at - killed_at < 0.25, "some milliseconds, on a machine that has nothing else to do"
                assert two.rig.names("broken")[0] == ("broken", 1, False)
                await child.wait()

    trio.run(main)


def test_client_that_calls_the_members_port_is_told_where_to_go() -> None:
    async def main() -> None:
        async with members(1) as (one,):
            with pytest.raises(LinkFailed, match="--advertise-client-urls") as failed:
                await open_link("127.0.0.1", one.url.port, subprotocol=SUBPROTOCOL)
            assert failed.value.status == 400
            assert one.log.of("peer.connection.refused")[0]["status"] == 400

    trio.run(main)


def test_dial_says_what_is_wrong() -> None:
    async def main() -> None:
        network = SocketNetwork()
        async with members(1) as (one,):
            link = await network.dial(str(one.url))
            assert link.subprotocol == PEER_SUBPROTOCOL
            await link.aclose()
            one.scope.cancel()
            await trio.sleep(0.01)
            with pytest.raises(LinkFailed) as failed:
                await network.dial(str(one.url))
            assert failed.value.is_refused
            with pytest.raises(LinkFailed, match="no URL of a member"):
                await network.dial("nonsense")

    trio.run(main)


@pytest.mark.parametrize(
    ("head", "status", "text"),
    [
        (b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200", b"coordserver"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404", b"--advertise-client-urls"),
        (b"POST /version HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", b"405", b"GET"),
        (b"GET /version HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"403", b"evil.example"),
        (b"GET /version HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n", b"403", b"origin"),
        (b"\x16\x03\x01 rubbish", b"400", b""),
    ],
)
def test_plain_http(head: bytes, status: bytes, text: bytes) -> None:
    async def main() -> None:
        async with members(1) as (one,):
            answer = b""
            async with await trio.open_tcp_stream("127.0.0.1", one.url.port) as stream:
                await stream.send_all(head)
                async for data in stream:
                    answer += data
            assert answer.split()[1] == status
            assert text in answer

    trio.run(main)


def test_too_many_links_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with members(1) as (one,):
            held = [await trio.open_tcp_stream("127.0.0.1", one.url.port) for _ in range(2)]
            await trio.sleep(0.05)
            async with await trio.open_tcp_stream("127.0.0.1", one.url.port) as turned_away:
                assert await turned_away.receive_some() == b""
            assert one.log.of("peer.connection.refused")[0]["status"] == 503
            for stream in held:
                await stream.aclose()
            await trio.sleep(0.05)
            link = await SocketNetwork().dial(str(one.url))
            link.abort()

    monkeypatch.setattr(peer_gateway_module, "PEER_LINKS_MAX", 2)
    trio.run(main)


def test_port_that_is_taken() -> None:
    async def main() -> None:
        async with members(1) as (one,):
            with pytest.raises(ConfigError, match="cannot listen on"):
                PeerGateway(one.rig.peers, one.log, ()).listen([one.url])

    trio.run(main)

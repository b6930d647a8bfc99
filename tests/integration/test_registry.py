"""Services that register with three real nodes, and what those see who look for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import trio

import coord

from .processes import ProcessCluster

TTL_S = 3
SERVICE = f"""
import sys, signal, trio, coord

async def answer(stream):
    await stream.receive_some(1000)
    await stream.send_all(b"HTTP/1.1 %d OK\\r\\n\\r\\n" % status)

async def main():
    global status
    status = 200
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = "127.0.0.1:%d" % listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        async with coord.connect(sys.argv[1]) as client, client.session(ttl={TTL_S}) as session:
            check = f"http://{{address}}/healthz"
            async with session.register("api", address, check=check, check_interval=0.1) as registration:
                await registration.wait_registered()
                print(address, flush=True)
                with trio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as signals:
                    async for number in signals:
                        if number == signal.SIGTERM:
                            break
                        status = 500 if status == 200 else 200
        print("left", flush=True)
        nursery.cancel_scope.cancel()

trio.run(main)
"""


@contextmanager
def a_service(cluster: ProcessCluster) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that serves and is registered, and its address."""
    command = [sys.executable, "-W", "error", "-c", SERVICE, cluster.endpoints]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


async def shown(api: coord.Discovery, addresses: set[str], within_s: float) -> float:
    """Wait until just these are shown; return how long it took."""
    began = time.monotonic()
    with trio.fail_after(within_s):
        while {instance.address for instance in api} != addresses:
            await api.changed()
    return time.monotonic() - began


def test_services_come_and_go_and_an_outage_is_not_theirs(shared: ProcessCluster) -> None:
    with a_service(shared) as (one, first), a_service(shared) as (two, second):

        async def main() -> None:
            async with coord.connect(shared.endpoints) as client, client.discover("api") as api:
                await shown(api, {first, second}, 5)
                # Its check fails, and passes again.
                one.send_signal(signal.SIGUSR1)
                await shown(api, {second}, 5)
                one.send_signal(signal.SIGUSR1)
                await shown(api, {first, second}, 5)
                # The whole cluster is away for longer than any lease.
                for name in shared.nodes:
                    shared[name].kill()
                await trio.sleep(2 * TTL_S)
                assert {api.pick().address for _ in range(2)} == {first, second}
                assert api.is_stale
                await trio.to_thread.run_sync(shared.restore)
                with trio.fail_after(20):
                    while api.is_stale:  # noqa: ASYNC110  # nothing tells of it
                        await trio.sleep(0.05)
                await trio.sleep(2 * TTL_S)
                assert {instance.address for instance in api} == {first, second}
                # One ends in order, the other does not.
                one.send_signal(signal.SIGTERM)
                assert one.stdout is not None
                assert await trio.to_thread.run_sync(one.stdout.readline) == "left\n"
                await shown(api, {second}, 1)
                two.kill()
                assert await shown(api, set(), TTL_S + 10) > TTL_S / 2

        trio.run(main)

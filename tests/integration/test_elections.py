"""Elections, barriers and queues of real processes on three real nodes."""

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
HEAD = f"""
import sys, trio, coord

endpoints, name, TTL = sys.argv[1], sys.argv[2], {TTL_S}

def say(*words):
    print(*words, flush=True)
"""
CANDIDATE = """
async def main():
    async with coord.connect(endpoints) as client, client.session(ttl=TTL) as session:
        say("stands")
        async with session.lead("db/primary", name.encode()) as leadership:
            say("leads")
            number = 0
            while True:
                number += 1
                await leadership.proclaim(b"%s %d" % (name.encode(), number))
                await trio.sleep(0.05)

try:
    trio.run(main)
except coord.errors.CoordError as error:
    say(type(error).__name__)
"""
PARTY = """
async def main():
    async with coord.connect(endpoints) as client, client.session(ttl=TTL) as session:
        say("waits")
        await client.barrier("start").wait()
        await client.put("started/" + name, b"")
        for step in range(3):
            async with session.double_barrier("step", 3):
                await client.queue("in").put(b"%d" % step)
            await client.queue("out").put(b"%d" % step)

trio.run(main)
"""
TAKER = """
async def main():
    async with coord.connect(endpoints) as client:
        jobs = client.queue("jobs")
        say("takes")
        while (job := await jobs.get()) != b"end":
            say(job.decode())

trio.run(main)
"""


@contextmanager
def program(cluster: ProcessCluster, text: str, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs beside the cluster."""
    command = [sys.executable, "-W", "error", "-c", HEAD + text, cluster.endpoints, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            yield process
        finally:
            process.kill()


def expect(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{word}\n"


def test_who_leads_is_replaced_when_it_stops_and_all_see_it(shared: ProcessCluster) -> None:
    async def main() -> None:
        seen: list[coord.Owner | None] = []

        async def until(name: str, within_s: float) -> None:
            with trio.fail_after(within_s):
                async for owner in owners:
                    seen.append(owner)
                    if owner is not None and owner.value.startswith(name.encode()):
                        return

        async with coord.connect(shared.endpoints) as client, client.observe("db/primary") as owners:
            await until("first", 5)
            # The cluster's leader is another thing: killed, it costs no owner anything but time.
            leader = await trio.to_thread.run_sync(shared.leader)
            shared[leader].kill()
            fence = seen[-1].fence  # type: ignore[union-attr]
            for _ in range(20):
                await until("first", 5)
                assert seen[-1].fence == fence  # type: ignore[union-attr]
            first.send_signal(signal.SIGSTOP)
            await until("second", TTL_S + 10)
            first.send_signal(signal.SIGCONT)
            for _ in range(20):
                await until("second", 5)
            fences = [owner.fence for owner in seen if owner is not None]
            assert fences == sorted(fences)
            assert len(set(fences)) == 2

    with program(shared, CANDIDATE, "first") as first:
        expect(first, "stands")
        expect(first, "leads")
        with program(shared, CANDIDATE, "second") as second:
            expect(second, "stands")
            trio.run(main)
            expect(first, "LeadershipLost")
            expect(second, "leads")


def test_three_meet_step_by_step(shared: ProcessCluster) -> None:
    with coord.connect_sync(shared.endpoints) as client:
        assert client.barrier("start").hold()
        with program(shared, PARTY, "a") as a, program(shared, PARTY, "b") as b, program(shared, PARTY, "c") as c:
            for process in (a, b, c):
                expect(process, "waits")
            time.sleep(0.5)
            assert client.range_response("started/", prefix=True).kvs == []
            assert client.barrier("start").release()
            for process in (a, b, c):
                assert process.wait(timeout=60) == 0

    async def main() -> None:
        async with coord.connect(shared.endpoints) as client:
            went_in = [kv async for kv in client.range("in/", prefix=True)]
            went_out = [kv async for kv in client.range("out/", prefix=True)]
            for step in (b"0", b"1", b"2"):
                ins = [kv.create_revision for kv in went_in if kv.value == step]
                outs = [kv.create_revision for kv in went_out if kv.value == step]
                nexts = [kv.create_revision for kv in went_in if kv.value > step]
                assert len(ins) == len(outs) == 3
                assert max(ins) < min(outs), "nobody is out before all were in"
                assert all(max(ins) < revision for revision in nexts)
            assert [kv async for kv in client.range("step/", prefix=True)] == []

    trio.run(main)


def test_each_job_is_done_by_one_of_two(shared: ProcessCluster) -> None:
    count = 100

    async def main() -> None:
        async with coord.connect(shared.endpoints) as client:
            jobs = client.queue("jobs")
            for number in range(count):
                await jobs.put(b"%d" % number)
                if number == count // 2:
                    leader = await trio.to_thread.run_sync(shared.leader)
                    shared[leader].kill()
            await jobs.put(b"end")
            await jobs.put(b"end")

    with program(shared, TAKER, "one") as one, program(shared, TAKER, "other") as other:
        expect(one, "takes")
        expect(other, "takes")
        trio.run(main)
        done = [[int(job) for job in process.communicate(timeout=60)[0].split()] for process in (one, other)]
    assert sorted(done[0] + done[1]) == list(range(count))
    assert done == [sorted(done[0]), sorted(done[1])]

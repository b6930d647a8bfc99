"""The recipes with real clients on simulated clusters: stories, seeds, and a cancel at every await."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import cache

import pytest
import trio

from coord.client.client import Client
from coord.errors import LockTimeout
from coord.testing import Cluster
from coord.testing.cluster_scenes import play
from coord.testing.recipe_scenes import SCENES
from coord.testing.recipe_sim import KINDS, MUST_HAPPEN, ONE_BY_ONE, Plan, Report, main, run

SEEDS = range(len(KINDS))
RARE = {"ownerships lost", "sessions lost", "resigned"}
"""Not to be expected of so few seeds; the command asks for them over many."""


@pytest.mark.parametrize("name", SCENES)
def test_a_rule_holds(name: str) -> None:
    play(SCENES[name])


@cache
def played(seed: int) -> Report:
    plan = Plan.of(seed)
    plan.seconds, plan.kinds, plan.programs, plan.tracks = 20.0, KINDS[seed], 3, 2
    plan.faults = (
        "pause program",
        "cut off",
        "kill program",
        "drop answers",
        "reset links",
        "kill",
        "pause",
        "isolate",
    )
    return run(seed, plan=plan)


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: "-".join(KINDS[seed]))
def test_no_two_own_what_one_may_and_nothing_is_left(seed: int) -> None:
    assert played(seed).found == []


def test_one_fault_at_a_time_costs_no_session() -> None:
    """S30: be it the silence of the node that a program talks to, or of the leader."""
    plan = Plan.of(1)
    plan.seconds, plan.kinds, plan.programs, plan.tracks, plan.faults = 40.0, KINDS[0], 3, 0, ONE_BY_ONE
    plan.options["client_records_max"] = 10_000
    assert run(1, plan=plan).found == []


def test_much_has_happened() -> None:
    happened = sum((played(seed).happened for seed in SEEDS), Counter())
    never = [name for name in MUST_HAPPEN if not happened[name] and name not in RARE]
    assert not never, happened


@pytest.mark.sim
def test_more_seeds() -> None:
    """`SEED=n` plays that one alone, and tells all of it."""
    seed = int(os.environ.get("SEED", "0"))
    assert main(["--seed", str(seed), "--trace"] if seed else ["--seeds", "1000:1080"]) == 0


# -- a cancel at every await ------------------------------------------------------------------------------------------

Recipe = Callable[[Client, str], Awaitable[None]]
STEP_S = 0.0009
"""Less than a message takes, so that each wait for one is cancelled."""


async def session(client: Client, name: str) -> None:
    async with client.session(60):
        pass


async def lock(client: Client, name: str) -> None:
    async with client.session(60) as one, one.lock(name):
        await client.put("effect", b"")


async def contended(client: Client, name: str) -> None:
    """The second one waits until the first leaves."""
    async with client.session(60) as one, client.session(60) as other, trio.open_nursery() as nursery:
        held = trio.Event()

        async def hold() -> None:
            async with one.write_lock(name):
                held.set()
                await trio.sleep(0.005)

        nursery.start_soon(hold)
        await held.wait()
        async with other.read_lock(name):
            pass


async def timed_out(client: Client, name: str) -> None:
    async with client.session(60) as one, client.session(60) as other, one.semaphore(name, 1):
        with pytest.raises(LockTimeout):
            async with other.semaphore(name, 1, wait=0.01):
                raise AssertionError("not reached")


async def election(client: Client, name: str) -> None:
    async with client.observe(name) as owners, client.session(60) as one, one.lead(name, value=b"a") as leadership:
        await leadership.proclaim(b"b")
        async for owner in owners:
            if owner is not None and owner.value == b"b":
                break
        await leadership.resign()


async def registry(client: Client, name: str) -> None:
    async with client.discover(name) as view, client.session(60) as one, one.register(name, "here") as registration:
        await registration.wait_registered()
        while not view.instances:
            await view.changed()
        await registration.update({"zone": "a"})


async def double_barrier(client: Client, name: str) -> None:
    async def take_part() -> None:
        async with client.session(60) as one, one.double_barrier(name, 2):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_part)
        nursery.start_soon(take_part)


async def barrier(client: Client, name: str) -> None:
    async with client.session(60) as one:
        await client.put(name, b"", lease=one.lease)
        with trio.move_on_after(0.01):
            await client.barrier(name).wait()


async def queue(client: Client, name: str) -> None:
    with trio.move_on_after(0.01):
        await client.queue(name).get()


RECIPES = (session, lock, contended, timed_out, election, registry, double_barrier, barrier, queue)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_a_cancel_at_any_await_leaves_nothing(recipe: Recipe) -> None:
    """No key, lease, watch or task; and it ends within a second."""

    async def scene(cluster: Cluster) -> None:
        async with cluster.client() as client:
            await client.put("effect", b"")
            await recipe(client, "name/0")
            await cluster.advance(1.0)
            tasks = len(client._nursery.child_tasks)
            was_cancelled, count = True, 0
            while was_cancelled:
                count += 1
                began = trio.current_time()
                with trio.move_on_after(count * STEP_S) as scope:
                    await recipe(client, f"name/{count}")
                was_cancelled = scope.cancelled_caught
                assert trio.current_time() - began < count * STEP_S + 1.0
                await _assert_nothing_left(cluster, client, tasks)
            assert count > 5

    play(scene)


async def _assert_nothing_left(cluster: Cluster, client: Client, tasks: int) -> None:
    await cluster.advance(0.05)
    left = [pair.key async for pair in client.range("", prefix=True, keys_only=True)]
    assert left == [b"effect"]
    assert await client.leases() == []
    assert sum(cluster.node(name).watches.watch_count for name in cluster.names) == 0
    assert len(client._nursery.child_tasks) == tasks

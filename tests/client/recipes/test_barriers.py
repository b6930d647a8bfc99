"""Barriers: held by one, or entered and left together; whoever crashes holds up nobody for ever."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
import trio
from tests.client.trio_fakes import Network, settle

from coord.client.client import Client
from coord.client.recipes.barriers import Party, party_of
from coord.client.recipes.session import Session
from coord.client.recipes.steps import Ask
from coord.client.recipes.tenure import Tenure
from coord.errors import SessionLost
from coord.protocol.ops import Op
from coord.types import LeaseId

from .machine_node import MachineNode, Walker
from .test_locks import ONE, told

NAME = "step-1"


def watches(node: MachineNode) -> int:
    return sum(len(session.watches) for session in node.sessions)


def test_a_barrier_holds_up_all_until_it_is_released() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        passed: list[float] = []

        async def wait(client: Client) -> None:
            await client.barrier("maintenance").wait()
            passed.append(trio.current_time())

        barrier = opened[0].barrier("maintenance")
        await barrier.wait()
        assert await barrier.hold(b"by me")
        assert not await opened[1].barrier(b"maintenance").hold(b"by her")
        assert node.rig.get(b"maintenance")[5] == b"by me"
        async with trio.open_nursery() as nursery:
            for client in opened:
                nursery.start_soon(wait, client)
            await trio.sleep(5)
            # An outage is no release, and neither is a change of its value.
            network.cut(ONE)
            await trio.sleep(60)
            network.down.clear()
            await opened[0].put("maintenance", b"still")
            await trio.sleep(10)
            assert passed == []
            released_at = trio.current_time()
            assert await opened[1].barrier("maintenance").release()
        assert passed == [released_at] * 2
        assert not await barrier.release()
        await settle()
        assert watches(node) == 0

    told(story, 2)


def test_a_barrier_with_a_lease_comes_down_with_its_session() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        barrier = opened[0].barrier("maintenance")
        async with trio.open_nursery() as nursery:
            async with opened[0].session() as session:
                assert await barrier.hold(lease=session.lease)
                nursery.start_soon(barrier.wait)
                await trio.sleep(30)
            with trio.fail_after(1):
                await barrier.wait()

    told(story)


def test_parties_enter_and_leave_together_round_after_round() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        entered: list[int] = []
        left: list[int] = []

        async def take_part(number: int) -> None:
            async with opened[number % len(opened)].session() as session:
                for step in range(4):
                    await trio.sleep(number)
                    async with session.double_barrier(NAME, 3):
                        entered.append(step)
                        assert len(entered) > 3 * step
                        assert len(left) == 3 * step, "nobody enters while one of the round before is inside"
                        await trio.sleep(3 - number)
                        assert entered.count(step) == 3, "all were let in together"
                    left.append(step)
                    assert entered.count(step) == 3

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(take_part, number)
        assert sorted(left) == sorted(3 * [0, 1, 2, 3])
        await settle()
        assert node.rig.keys() == []
        assert watches(node) == 0

    told(story, 2)


def test_who_comes_beyond_the_number_makes_the_next_round() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        inside: set[int] = set()
        most = 0

        async def take_part(number: int) -> None:
            nonlocal most
            async with opened[0].session() as session, session.double_barrier(NAME, 2):
                inside.add(number)
                most = max(most, len(inside))
                await trio.sleep(1)
                assert len(inside) == 2
                await trio.sleep(number / 10)
                inside.discard(number)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(take_part, number)
        assert most == 2
        assert node.rig.keys() == []

    told(story)


def test_who_fails_holds_up_nobody() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        left: list[str] = []

        async def stay(name: str) -> None:
            async with opened[0].session() as session:
                async with session.double_barrier(NAME, 3):
                    await trio.sleep(1)
                left.append(name)

        stumbled_at: list[float] = []

        async def stumble(session: Session) -> None:
            async with session.double_barrier(NAME, 3):
                stumbled_at.append(trio.current_time())
                raise ZeroDivisionError

        async def raise_inside() -> None:
            async with opened[0].session() as session:
                with pytest.raises(ZeroDivisionError):
                    await stumble(session)
                assert trio.current_time() == stumbled_at[0], "it waits for nobody"
                await trio.sleep(10)

        async def crash_inside() -> None:
            async with opened[1].session() as session, session.double_barrier(NAME, 3):
                node.expire(session.lease)
                await trio.sleep(0.5)
                left.append("who has lost its session goes on")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stay, "one")
            nursery.start_soon(raise_inside)
            nursery.start_soon(crash_inside)
        assert len(left) == 2
        assert node.rig.keys() == []

    told(story, 2)


def test_what_a_round_left_behind_holds_up_nobody() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async def take_part() -> None:
            async with opened[0].session() as session, session.double_barrier(NAME, 2):
                pass

        for left_behind in (b'{"1": 5, "2": 6}', b"foreign", b"[1]", b'{"1": "5"}', b"[" * 5000):
            node.guarded(None, Op.PUT, [b"step-1/party/round", left_behind])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take_part)
                nursery.start_soon(take_part)
            assert node.rig.keys() == []

    told(story)


def test_losing_the_session_while_waiting_to_enter_is_told() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        client = opened[0]

        async def enter(how: str) -> None:
            async with client.session() as session, trio.open_nursery() as nursery:

                async def wait() -> None:
                    async with session.double_barrier(how, 2):
                        raise AssertionError("it is alone")

                async def wait_in_vain() -> None:
                    with pytest.raises(SessionLost):
                        await wait()

                nursery.start_soon(wait_in_vain)
                await trio.sleep(1)
                with pytest.raises(ValueError, match="use a session for each task"):
                    await wait()
                if how == "expired":
                    node.expire(session.lease)
                elif how == "cut off":
                    network.cut(ONE)
                elif how == "deleted":
                    await client.delete(b"deleted/party/%x" % session.lease)
                elif how == "closed":
                    await session.close()
                elif how == "silence":
                    network.stop(ONE)

        for how in ("expired", "deleted", "closed", "cut off", "silence"):
            with trio.fail_after(15):
                await enter(how)
            network.down.clear()
        network.resume(ONE)
        async with client.session() as session:
            network.stop(ONE)
            with pytest.raises(SessionLost, match="no renewal"):
                await session.double_barrier(NAME, 2).__aenter__()
        with pytest.raises(ValueError, match="1 to 10000 parties, not 0"):
            client.session().double_barrier(NAME, 0)

    told(story)


@pytest.mark.parametrize("steps", range(1, 40))
def test_cancelling_at_any_step_leaves_nothing(steps: int) -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async def take_part(seconds: float) -> None:
            async with opened[0].session() as session:
                for _ in range(2):
                    async with session.double_barrier(NAME, 2):
                        await trio.sleep(seconds)

        async with trio.open_nursery() as others:
            others.start_soon(take_part, 0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take_part, 0)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await settle()
            others.cancel_scope.cancel()
        await settle()
        assert node.rig.keys() == []
        assert node.leases_left == []
        assert watches(node) == 0

    told(story)


def a_party(node: MachineNode, number: int, size: int) -> Party:
    lease = LeaseId(100 + number)
    node.guarded(None, Op.LEASE_GRANT, [10, lease])
    tenure = Tenure(lambda: 0.0, lease)
    tenure.acknowledged(0.0, 10)
    return party_of(tenure, NAME, size)


def begins_round(verb: Any) -> bool:
    return verb.code == Op.TXN and any(
        put[1][0] == b"step-1/party/round" for put in verb.arguments[1] if put[0] == Op.PUT
    )


def test_a_round_that_is_written_late_does_not_end_another() -> None:
    node = MachineNode()
    one, two, three = (a_party(node, number, 2) for number in range(3))
    first, second = Walker(node, one.enter()), Walker(node, two.enter())
    first.go_on()
    while not begins_round(second.step.verb if isinstance(second.step, Ask) else second.asked[-1]):
        second.go()
    late = second.step.verb
    # It is cancelled with this under way, and others come together meanwhile.
    Walker(node, two.leave()).go_on()
    third = Walker(node, three.enter())
    third.go_on()
    assert third.is_done
    node.guarded(None, late.code, late.arguments)
    first.go_on()
    assert first.is_done
    Walker(node, one.leave()).go_on()
    waiting = Walker(node, one.await_others())
    waiting.go_on()
    assert not waiting.is_done, "the third is inside"
    Walker(node, three.leave()).go_on()
    waiting.go_on()
    assert waiting.is_done
    assert node.rig.keys() == []


@pytest.mark.parametrize("seed", range(60))
def test_in_every_order_nobody_enters_alone_and_nobody_is_forgotten(seed: int) -> None:
    chance = Random(seed)
    node = MachineNode()
    size = chance.choice([1, 2, 3])
    crowd = size * chance.choice([1, 2, 3])
    parties: list[Party] = []
    walkers: dict[int, Walker] = {}
    stages: dict[int, str] = {}
    gathered: dict[int, int] = {}

    begun = 0
    for number in range(crowd):
        parties.append(a_party(node, number, size))
        walkers[number], stages[number] = Walker(node, parties[number].enter()), "entering"
    for _ in range(100_000):
        able = [number for number, walker in walkers.items() if not walker.is_blocked and stages[number] != "out"]
        if not able:
            break
        number = chance.choice(able)
        walker = walkers[number]
        if not walker.is_done:
            walker.go()
            continue
        assert walker.error is None
        if stages[number] == "entering":
            round_ = json.loads(node.rig.get(b"step-1/party/round")[5])
            assert len(round_) == size
            gathered[number] = min(round_.values())
            begun += sum(begins_round(verb) for verb in walker.asked)
            # Of two rounds never any two are inside at the same time.
            inside = {gathered[other] for other, stage in stages.items() if stage == "inside"}
            assert inside <= {gathered[number]}
            stages[number] = "inside"
        elif stages[number] == "inside":
            walkers[number], stages[number] = Walker(node, parties[number].leave()), "leaving"
        elif stages[number] == "leaving":
            walkers[number], stages[number] = Walker(node, parties[number].await_others()), "waiting"
        else:
            others = [other for other, of in gathered.items() if of == gathered[number]]
            assert all(stages[other] in ("leaving", "waiting", "out") for other in others)
            assert len(others) == size
            stages[number] = "out"
    assert set(stages.values()) == {"out"}
    if crowd == size:
        assert begun == 1, "one of them says that they are complete, not all at once"
    assert node.rig.keys() == []


def test_nobody_enters_with_a_lease_that_has_ended() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session() as session:
            # Its next renewal has not told it yet.
            node.expire(session.lease)
            with pytest.raises(SessionLost, match="ended its lease"):
                async with session.double_barrier(NAME, 1):
                    raise AssertionError("entered")

    told(story)

"""Elections in virtual time, on a node whose state is real: who leads, what others see, and how it ends."""

from __future__ import annotations

import pytest
import trio
from tests.client.trio_fakes import Network, settle

from coord.client.client import Client
from coord.client.recipes.leadership import Leadership
from coord.client.recipes.observation import Observation
from coord.client.recipes.owners import Owner, owner_among
from coord.errors import ClientClosed, FenceLost, LeadershipLost, LockTimeout, SessionLost
from coord.protocol.ops import Op
from coord.types import KeyValue, LeaseId, Revision

from .machine_node import MachineNode
from .test_locks import ONE, told

NAME = "db/primary"


async def next_of(owners: Observation, within_s: float = 10.0) -> Owner | None:
    with trio.fail_after(within_s):
        return await owners.__anext__()


async def assert_nothing_comes(owners: Observation) -> None:
    with trio.move_on_after(1) as scope:
        await owners.__anext__()
    assert scope.cancelled_caught


def watches(node: MachineNode) -> int:
    return sum(len(session.watches) for session in node.sessions)


def test_candidates_lead_in_the_order_in_which_they_came_and_everybody_sees_it() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        led: list[tuple[bytes, int]] = []

        async def lead(client: Client, value: bytes) -> None:
            async with client.session() as session, session.lead(NAME, value) as leadership:
                assert leadership.value == value
                led.append((value, leadership.fence))
                await client.put("state", value, fence=leadership)
                await trio.sleep(5)

        async with opened[2].observe(NAME) as owners, trio.open_nursery() as nursery:
            assert await next_of(owners) is None
            await assert_nothing_comes(owners)
            for client, value in zip(opened[:2], (b"n1", b"n2"), strict=True):
                nursery.start_soon(lead, client, value)
                await settle()
            seen = [await next_of(owners) for _ in range(3)]
        assert [value for value, _ in led] == [b"n1", b"n2"]
        assert [(owner.value, owner.fence) for owner in seen if owner] == led
        assert seen[-1] is None
        assert led[0][1] < led[1][1]
        await settle()
        assert node.keys_below(b"db/") == []
        assert watches(node) == 0

    told(story, 3)


def test_who_leads_may_be_registered_and_meet_others_under_the_same_name() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with (
            opened[0].session() as session,
            opened[0].session() as other,
            session.register("db", "a:1"),
            session.lead("db", b"a:1", wait=0) as leadership,
            session.double_barrier("db", 1),
            other.register("db", "b:1"),
            opened[0].observe("db") as owners,
            opened[0].discover("db") as instances,
        ):
            await opened[0].queue("db").put(b"item")
            owner = await next_of(owners)
            assert owner is not None
            assert owner.key == leadership.key == b"db/%x" % session.lease
            assert [instance.address for instance in instances] == ["a:1", "b:1"]
            assert await opened[0].queue("db").get() == b"item"
        assert node.rig.keys() == []

    told(story)


def test_an_owner_proclaims_and_stays_the_owner() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        client, other = opened
        async with client.observe(NAME) as owners, client.session() as session, other.session() as waiting:
            async with session.lead(NAME, b"starting") as leadership, trio.open_nursery() as nursery:

                async def wait() -> None:
                    with pytest.raises(LockTimeout, match=rf"election '{NAME}' was not acquired.*has it, b'ready'"):
                        async with waiting.lead(NAME, b"other", wait=2):
                            raise AssertionError("two lead")

                nursery.start_soon(wait)
                first = await next_of(owners)
                assert first == Owner(leadership.key, b"starting", leadership.fence, session.lease)
                revision = await leadership.proclaim(b"ready")
                assert leadership.value == b"ready"
                assert revision > leadership.fence
                assert await next_of(owners) == Owner(leadership.key, b"ready", leadership.fence, session.lease)
                await client.put("k", b"v", fence=leadership)
                await assert_nothing_comes(owners)
                with pytest.raises(TypeError):
                    await leadership.proclaim("text")  # type: ignore[arg-type]
            with pytest.raises(LeadershipLost, match="it was released"):
                await leadership.proclaim(b"too late")
            assert node.keys_below(b"db/") == []

    told(story, 2)


def test_the_past_cannot_proclaim() -> None:
    # Its key is gone, and it does not know yet: a put without a guard would queue it anew, behind its own back.
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session() as session:

            async def lead() -> None:
                async with session.lead(NAME) as leadership:
                    node.guarded(None, Op.DELETE_RANGE, [leadership.key])
                    with pytest.raises(LeadershipLost, match="its key was deleted"):
                        await leadership.proclaim(b"me")
                    assert node.keys_below(b"db/") == []
                    await trio.sleep_forever()

            with pytest.raises(LeadershipLost, match="its key was deleted"):
                await lead()
            assert not session.is_lost

    told(story)


def test_losing_the_session_ends_the_leaders_block() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        client, other = opened
        leaderships: list[Leadership] = []
        async with client.session() as session:

            async def lead() -> None:
                async with session.lead(NAME) as leadership:
                    leaderships.append(leadership)
                    network.cut(ONE)
                    await trio.sleep_forever()

            with pytest.raises(LeadershipLost, match="election 'db/primary' is lost: no renewal of its lease"):
                await lead()
            network.down.clear()
            node.expire(session.lease)
            async with other.session() as next_session, next_session.lead(NAME, wait=1) as successor:
                assert successor.fence > leaderships[0].fence
                with pytest.raises(LeadershipLost):
                    await client.put("k", b"v", fence=leaderships[0])
                # What does not know it yet is refused by the cluster.
                with pytest.raises(FenceLost):
                    node.guarded([leaderships[0].key, leaderships[0].fence], Op.PUT, [b"k", b"v"])
            with pytest.raises(SessionLost):
                await session.lead(NAME).__aenter__()

    told(story, 2)


def test_resigning_ends_the_block_and_only_then_another_leads() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        client, other = opened
        steps: list[str] = []

        async def lead() -> None:
            async with client.session() as session:
                async with session.lead(NAME) as leadership:
                    leaderships.append(leadership)
                    try:
                        await trio.sleep_forever()
                    finally:
                        with trio.CancelScope(shield=True):
                            await trio.sleep(3)
                        steps.append("cleaned up")
                steps.append("left without an error")
                assert not session.is_lost
                assert session.lease in node.leases_left
                async with session.lead(NAME):
                    steps.append("leads again")

        async def follow() -> None:
            async with other.session() as session, session.lead(NAME):
                steps.append("the next one leads")
                await trio.sleep(1)

        leaderships: list[Leadership] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lead)
            await settle()
            nursery.start_soon(follow)
            await settle()
            await leaderships[0].resign()
            steps.append("has resigned")
            with pytest.raises(LeadershipLost, match="it was resigned"):
                await leaderships[0].resign()
            with pytest.raises(LeadershipLost):
                await client.put("k", b"v", fence=leaderships[0])
        assert steps[0] == "cleaned up"
        assert sorted(steps[1:4]) == ["has resigned", "left without an error", "the next one leads"]
        assert steps[4:] == ["leads again"]

    told(story, 2)


def test_resigning_from_inside_goes_to_the_end_of_the_block() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session() as session:
            async with session.lead(NAME) as leadership:
                await leadership.resign()
                raise AssertionError("the block goes on")
            assert node.keys_below(b"db/") == []

            async def stumble() -> None:
                async with session.lead(NAME) as leadership:
                    try:
                        await leadership.resign()
                    finally:
                        raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await stumble()
            assert node.keys_below(b"db/") == []

    told(story)


def test_the_owner_is_the_first_contender_that_stands() -> None:
    def pair(key: bytes, lease: int, created: int) -> KeyValue:
        return KeyValue(key, Revision(created), Revision(created + 1), 2, LeaseId(lease), b"v")

    kvs = [pair(b"n/b", 0xB, 5), pair(b"n/a", 0xA, 4), pair(b"n/x", 0xC, 2), pair(b"n/0d", 0xD, 1), pair(b"n/", 0, 3)]
    assert owner_among(b"n/", kvs) == Owner(b"n/a", b"v", 4, LeaseId(0xA))
    assert owner_among(b"n/", kvs[2:]) is None


@pytest.mark.parametrize("is_compacted", [False, True])
def test_observing_goes_on_after_an_outage_with_what_is_so_then(is_compacted: bool) -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].observe(NAME) as owners:
            assert await next_of(owners) is None
            assert not owners.is_stale
            network.cut(ONE)
            await settle()
            assert owners.is_stale
            # Three owners come and go; who looks only now is told of the one that stands.
            for lease in (1, 2, 3):
                node.guarded(None, Op.LEASE_GRANT, [10, lease])
                node.guarded(None, Op.PUT, [b"db/primary/%x" % lease, b"n%d" % lease, lease, False, False, False])
            node.expire(1)
            node.expire(2)
            if is_compacted:
                node.guarded(None, Op.COMPACT, [node.revision])
                node.compact_revision = node.revision
            network.down.clear()
            owner = await next_of(owners, 60.0)
            while owner is None or owner.value != b"n3":
                # What the watch brings after a break is history, in order.
                assert owner is None or owner.value in (b"n1", b"n2")
                assert not is_compacted
                owner = await next_of(owners)
            assert not owners.is_stale
            node.expire(3)
            assert await next_of(owners) is None
        await settle()
        assert watches(node) == 0

    told(story)


def test_slow_observers_are_told_the_newest() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].observe(NAME) as owners:
            for lease in range(1, 50):
                node.guarded(None, Op.LEASE_GRANT, [10, lease])
                node.guarded(None, Op.PUT, [b"db/primary/%x" % lease, b"v", lease, False, False, False])
                if lease > 1:
                    node.expire(lease - 1)
            await settle()
            owner = await next_of(owners)
            assert owner is not None
            assert owner.key == b"db/primary/31"
            await assert_nothing_comes(owners)

    told(story)


def test_observers_read_no_more_than_the_contenders() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        for key in ("db/primary/users/1", "db/primary/read/1", "db/primary/0"):
            await opened[0].put(key, b"v")
        async with opened[0].observe(NAME) as owners:
            assert await next_of(owners) is None
            await opened[0].put("db/primary/users/2", b"v")
            await assert_nothing_comes(owners)
            assert owners._live.kvs == {}

    told(story)


def test_observing_ends_with_the_client() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].observe(NAME) as owners:
            await next_of(owners)
            opened[0]._driver.close()
            with pytest.raises(ClientClosed):
                await next_of(owners)

    told(story)

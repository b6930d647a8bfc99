"""Registrations in virtual time, on a node whose state is real: what is wanted stands, whatever happens to leases."""

from __future__ import annotations

import json

import pytest
import trio
from tests.client.trio_fakes import Network, settle

from coord.client.client import Client
from coord.client.recipes.registrar import RETRY_S, Registrar
from coord.client.recipes.registration import Registration
from coord.errors import ClientClosed, FailedPrecondition, SessionLost, Unavailable
from coord.protocol.ops import Op

from .machine_node import MachineNode, Walker
from .test_locks import ONE, told

ADDRESS = "10.0.0.5:80"


def registered(node: MachineNode, service: bytes = b"api") -> list[tuple[bytes, str]]:
    """The instances that stand there, as (key, address)."""
    found, _, _ = node.rig.range(service + b"/", service + b"0")
    return [(kv[0], json.loads(kv[5])["address"]) for kv in found]


def test_an_instance_is_there_as_long_as_its_block() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        client = opened[0]
        async with client.session() as session, client.discover("api") as api:
            async with session.register("api", ADDRESS, metadata={"zone": "a"}) as registration:
                key = b"api/instance/%x" % session.lease
                assert registered(node) == [(key, ADDRESS)]
                assert registration.is_registered
                assert registration.is_healthy
                assert registration.why_not == ""
                await registration.wait_registered()
                await api.changed(0)
                assert list(api) == [registration.instance]
                assert (registration.instance.key, registration.instance.lease) == (key, session.lease)
                await registration.update({"zone": "b"})
                await settle()
                assert api.pick().metadata == {"zone": "b"}
                assert repr(registration) == f"<registration of api at {ADDRESS}, registered>"
                await trio.sleep(60)
                assert registered(node) == [(key, ADDRESS)]
            assert registered(node) == []
            assert not registration.is_registered
            for wait in (registration.wait_registered, lambda: registration.update({})):
                with pytest.raises(ClientClosed, match="the registration of api has ended"):
                    await wait()
            async with session.register(b"api", ADDRESS):
                assert len(registered(node)) == 1

    told(story)


def test_after_its_session_is_lost_it_is_registered_again() -> None:
    # S28: an outage of the cluster's must not become everybody's.
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        client = opened[0]
        async with client.session() as session, session.register("api", ADDRESS) as registration:
            leases = [session.lease]
            for _ in range(2):
                node.expire(leases[-1])
                assert registered(node) == []
                # The next renewal finds it out, and all else takes no time here.
                await trio.sleep(10 / 3 + 0.6)
                assert registration.is_registered
                assert session.is_lost
                (lease,) = node.leases_left
                assert lease not in leases
                leases.append(lease)
                assert registered(node) == [(b"api/instance/%x" % lease, ADDRESS)]
                assert registration.instance.lease == lease
            # The new lease is kept alive as the first one was.
            await trio.sleep(100)
            assert registered(node) == [(b"api/instance/%x" % lease, ADDRESS)]
        assert registered(node) == []
        assert node.leases_left == []
        with pytest.raises(SessionLost):
            await session.register("api", ADDRESS).__aenter__()

    told(story)


def test_an_outage_ends_no_block_and_is_made_up_for() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        client = opened[0]
        async with client.session() as session:
            network.cut(ONE)
            async with session.register("api", ADDRESS) as registration:
                assert not registration.is_registered
                assert "no endpoint reached" in registration.why_not or registration.why_not == "it is being registered"
                assert registered(node) == []
                await trio.sleep(60)
                assert session.is_lost
                assert "connection refused" in registration.why_not
                node.expire(session.lease)
                # What is told meanwhile is told in the end.
                with trio.move_on_after(5) as scope:
                    await registration.update({"zone": "b"})
                assert scope.cancelled_caught
                network.down.clear()
                with trio.fail_after(20):
                    await registration.wait_registered()
                (lease,) = node.leases_left
                assert registered(node) == [(b"api/instance/%x" % lease, ADDRESS)]
                assert json.loads(node.rig.range(b"api/", b"api0")[0][0][5])["metadata"] == {"zone": "b"}
        assert node.leases_left == []

    told(story)


def test_a_lost_session_makes_no_claim_to_be_registered() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session() as session, session.register("api", ADDRESS) as registration:
            network.cut(ONE)
            await trio.sleep(5)
            assert registration.is_registered, "as far as is known"
            await trio.sleep(5)
            assert session.is_lost
            assert not registration.is_registered
            assert registration.instance.lease == 0

    told(story)


def test_what_became_of_a_write_is_found_out_before_it_counts() -> None:
    node = MachineNode()
    lease = node.guarded(None, Op.LEASE_GRANT, [10, 77])[0]
    registrar = Registrar("api", ADDRESS)
    registrar.move_to(lease)
    settling = Walker(node, registrar.settle())
    # Cancelled with the put under way: it may be written, or not.
    settling.steps.close()
    assert not registrar.is_registered
    registrar.is_healthy = False
    assert not registrar.is_settled
    node.guarded(None, Op.PUT, [registrar.key, b"late", lease, False, False, False])
    Walker(node, registrar.settle()).go_on()
    assert registered(node) == []
    assert registrar.is_settled
    # What changes while a write is under way is done behind it.
    registrar.is_healthy = True
    settling = Walker(node, registrar.settle())
    registrar.describe({"a": 1})
    settling.go_on()
    assert settling.error is None
    assert json.loads(node.rig.range(b"api/", b"api0")[0][0][5])["metadata"] == {"a": 1}
    assert len(settling.asked) == 2


def test_what_time_does_not_mend_is_raised_at_once() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session() as session:
            for _ in range(2):
                node.refusals = [FailedPrecondition("no")]
                with pytest.raises(FailedPrecondition):
                    await session.register("api", ADDRESS).__aenter__()
            node.refusals = [Unavailable("later")]
            async with session.register("api", ADDRESS):
                await trio.sleep(RETRY_S + 1)
                assert len(registered(node)) == 1
                with pytest.raises(ValueError, match="use a session for each task"):
                    await session.register("api", "10.0.0.6:80").__aenter__()
                async with session.register("web", ADDRESS):
                    assert len(registered(node, b"web")) == 1

    told(story)


def test_what_cannot_be_registered_is_refused_before_anything_is_asked() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session() as session:
            for arguments in (("", ADDRESS), ("api", ""), ("api/", ADDRESS)):
                with pytest.raises(ValueError):
                    session.register(*arguments)
            for options in (
                {"metadata": {"a": float("inf")}},
                {"check": "udp://a:1"},
                {"check": "tcp://a:1", "check_interval": 0},
                {"check": "tcp://a:1", "check_timeout": 0},
                {"fail_after": 0},
                {"pass_after": 0},
            ):
                with pytest.raises(ValueError):
                    session.register("api", ADDRESS, **options)  # type: ignore[arg-type]
            async with session.register("api", ADDRESS, metadata={"a": 1}) as registration:
                with pytest.raises(TypeError):
                    await registration.update({"a": b"b"})
                assert registration.instance.metadata == {"a": 1}
                assert registration.is_registered

    told(story)


def test_a_key_that_was_deleted_by_mistake_comes_back() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        client = opened[0]
        async with client.session(ttl=10) as session, session.register("api", ADDRESS) as registration:
            await client.delete("api/", prefix=True)
            await trio.sleep(11)
            assert len(registered(node)) == 1
            kv = await client.get(registration.instance.key)
            assert kv is not None
            await client.put(kv.key, kv.value)
            await trio.sleep(11)
            assert registered(node) == [(b"api/instance/%x" % session.lease, ADDRESS)]
            assert (await client.get(registration.instance.key)).lease == session.lease  # type: ignore[union-attr]
        assert registered(node) == []

    told(story)


def test_it_is_withdrawn_while_its_check_fails() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        verdict: list[object] = [False]
        asked: list[float] = []

        async def is_well() -> object:
            asked.append(trio.current_time())
            found = verdict[0]
            if found == "hangs":
                await trio.sleep_forever()
            if isinstance(found, Exception):
                raise found
            return found

        async with opened[0].session() as session:
            registration = session.register(
                "api", ADDRESS, check=is_well, check_interval=2, check_timeout=1, fail_after=3, pass_after=2
            )
            async with registration:
                assert not registration.is_healthy
                assert registration.why_not == "it has not been checked yet"
                await trio.sleep(1.5)
                assert (registered(node), registration.why_not) == ([], "is_well: False")
                await registration.update({"told": "while it was withdrawn"})
                for failure, words in (
                    ("hangs", "is_well: no answer within 1 s"),
                    (OSError("refused"), "is_well: OSError: refused"),
                ):
                    # Two passes put it back, three failures withdraw it.
                    verdict[0] = None
                    await trio.sleep(2)
                    assert registered(node) == []
                    await trio.sleep(2)
                    assert len(registered(node)) == 1
                    assert registration.is_registered
                    verdict[0] = failure
                    await trio.sleep(4)
                    assert len(registered(node)) == 1
                    verdict[0] = True
                    await trio.sleep(2)
                    verdict[0] = failure
                    await trio.sleep(4)
                    assert len(registered(node)) == 1, "not in a row"
                    await trio.sleep(2)
                    assert registered(node) == []
                    assert (registration.is_registered, registration.why_not) == (False, words)
            assert asked == [asked[0] + 2 * number for number in range(len(asked))]
            await trio.sleep(10)
            assert trio.current_time() - asked[-1] >= 10, "nobody checks behind the block"

    told(story)


def test_the_first_check_decides_at_once_and_checks_go_on_after_the_session_is_lost() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        is_well = True
        options = {"check_interval": 1, "fail_after": 1, "pass_after": 9}
        async with opened[0].session() as session:
            async with session.register("api", ADDRESS, check=lambda: is_well, **options) as registration:  # type: ignore[arg-type]
                with trio.fail_after(0.1):
                    await registration.wait_registered()
                node.expire(session.lease)
                is_well = False
                await trio.sleep(10)
                assert registered(node) == []
                assert registration.why_not == "<lambda>: False"
                is_well = True
                await trio.sleep(10)
                assert len(registered(node)) == 1
            assert node.leases_left == []

    told(story)


def test_those_who_wait_are_told_when_the_block_ends() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async def wait(registration: Registration) -> None:
            with pytest.raises(ClientClosed, match="has ended"):
                await registration.wait_registered()

        async with (
            opened[0].session() as session,
            trio.open_nursery() as nursery,
            session.register("api", ADDRESS, check=lambda: False) as registration,
        ):
            nursery.start_soon(wait, registration)
            await settle()

    told(story)


def test_what_the_body_raises_leaves_it_as_it_is() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session() as session:
            with pytest.raises(ZeroDivisionError):
                async with session.register("api", ADDRESS):
                    raise ZeroDivisionError
            assert registered(node) == []

    told(story)


def test_what_could_not_be_removed_in_time_is_removed_later() -> None:
    # S26: an instance that is gone must not be found for as long as its session lives.
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session(ttl=60) as session:
            async with session.register("api", ADDRESS):
                network.cut(ONE)
                left_at = trio.current_time()
            assert trio.current_time() - left_at <= 1.0
            network.down.clear()
            await trio.sleep(10)
            assert not session.is_lost
            assert registered(node) == []

    told(story)


def test_a_lease_that_has_ended_already_is_no_reason_not_to_serve() -> None:
    # S28: nor is it told as an error by which a program would fail to start.
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        async with opened[0].session() as session:
            node.expire(session.lease)
            async with session.register("api", ADDRESS) as registration:
                with trio.fail_after(10 / 3 + 1):
                    await registration.wait_registered()
                assert registration.instance.lease != session.lease

    told(story)


def test_closing_the_session_ends_what_it_has_registered() -> None:
    async def story(node: MachineNode, network: Network, opened: list[Client]) -> None:
        session = opened[0].session()
        async with session, session.register("api", ADDRESS) as registration:
            await session.close()
            await trio.sleep(60)
            assert registered(node) == []
            assert node.leases_left == []
            with pytest.raises(ClientClosed, match="has ended"):
                await registration.wait_registered()

    told(story)

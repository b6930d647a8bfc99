"""The simulated network keeps to what TCP does: it delays and cuts, but neither loses nor reorders."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
import trio

from coord.testing.deterministic import run_seeded
from coord.testing.sim_network import SimNetwork
from coord.transport.link import Link, LinkClosed, LinkEnd, LinkFailed

Body = Callable[[SimNetwork, Link, Link], Awaitable[None]]


def play(body: Body) -> None:
    """Run `body` with a link from a to b."""

    async def main() -> None:
        network = SimNetwork(random.Random(1))
        port = network.listen("b", "http://b:1")
        near = await network.endpoint("a", "x").dial("http://b:1")
        far = await port.accept()
        with trio.fail_after(100):
            await body(network, near, far)

    run_seeded(1, main)


def is_silent(link: Link) -> Callable[[], Awaitable[bool]]:
    async def wait() -> bool:
        with trio.move_on_after(5):
            await link.recv()
            return False
        return True

    return wait


def test_what_is_sent_arrives_in_order_after_a_delay() -> None:
    async def body(network: SimNetwork, near: Link, far: Link) -> None:
        began = trio.current_time()
        for place in range(3):
            near.send(b"%d" % place)
        assert [await far.recv() for _ in range(3)] == [b"0", b"1", b"2"]
        assert trio.current_time() > began
        network.slow("a", "b", 2.0)
        near.send(b"slow")
        assert await far.recv() == b"slow"
        assert trio.current_time() > began + 2

    play(body)


def test_a_cut_holds_one_direction_until_it_heals() -> None:
    async def body(network: SimNetwork, near: Link, far: Link) -> None:
        network.cut("a", "b")
        near.send(b"there")
        far.send(b"back")
        assert await near.recv() == b"back"
        assert await is_silent(far)()
        network.heal()
        assert await far.recv() == b"there"

    play(body)


def test_nobody_gets_through_a_cut_and_a_dead_port_refuses() -> None:
    async def body(network: SimNetwork, near: Link, far: Link) -> None:
        network.cut("b", "a")
        with trio.move_on_after(3) as patience:
            await network.endpoint("a", "x").dial("http://b:1")
        assert patience.cancelled_caught
        network.heal("b", "a")
        await network.endpoint("a", "x").dial("http://b:1")
        network.kill("b")
        with pytest.raises(LinkFailed) as refused:
            await network.endpoint("a", "x").dial("http://b:1")
        assert refused.value.is_refused

    play(body)


def test_a_death_breaks_links_for_those_who_can_hear_it() -> None:
    async def body(network: SimNetwork, near: Link, far: Link) -> None:
        network.cut("b", "a")
        network.kill("b")
        assert await is_silent(near)()
        network.heal()
        with pytest.raises(LinkClosed) as broken:
            await near.recv()
        assert broken.value.end is LinkEnd.BROKEN

    play(body)


def test_a_stopped_process_is_silent_and_takes_what_came_later() -> None:
    async def body(network: SimNetwork, near: Link, far: Link) -> None:
        network.stop("b")
        far.send(b"late")
        near.send(b"waits")
        assert await is_silent(near)()
        network.resume("b")
        assert await near.recv() == b"late"
        assert await far.recv() == b"waits"

    play(body)


def test_a_reset_breaks_both_ends() -> None:
    async def body(network: SimNetwork, near: Link, far: Link) -> None:
        assert network.reset("b", "a") == 2
        for link in (near, far):
            with pytest.raises(LinkClosed):
                await link.recv()
        assert network.reset("b", "a") == 0

    play(body)

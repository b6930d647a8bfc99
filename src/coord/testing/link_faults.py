"""What befalls programs and their links to a simulated cluster; drawn and taken back like the faults of its members."""

from __future__ import annotations

from typing import Final

import trio

from coord.testing.cluster_faults import Fault, Nemesis

LASTS_S: Final = ((0.05, 0.5), (0.5, 4.0), (5.0, 12.0))
"""How long a program is out of reach: for as long as a call, or longer than a lease's time to live."""


def _program(nemesis: Nemesis) -> str | None:
    """Return a program that runs and that nothing else is done to; None if there is none."""
    programs = nemesis.cluster.programs.by_name
    free = [name for name, one in programs.items() if not one.ended.is_set() and name not in nemesis.touched]
    return nemesis.chance.choice(free) if free else None


async def _drop_answers(nemesis: Nemesis) -> None:
    """Let requests through and no answers; then, mostly, break the link, so that they never come."""
    cluster, chance = nemesis.cluster, nemesis.chance
    program, member = _program(nemesis), chance.choice(cluster.names)
    if program is None:
        return
    cluster.cut(member, program)
    await nemesis.last(0.05, 3.0)
    if chance.random() < 0.7:
        cluster.reset(member, program)
    cluster.network.heal(member, program)


async def _drop_all_answers(nemesis: Nemesis) -> None:
    """As above, from every member to every program."""
    cluster = nemesis.cluster
    pairs = [(member, program) for member in cluster.names for program in cluster.programs.by_name]
    for member, program in pairs:
        cluster.cut(member, program)
    await nemesis.last(0.05, 1.5)
    for member, program in pairs:
        cluster.reset(member, program)
        cluster.network.heal(member, program)


async def _drop_requests(nemesis: Nemesis) -> None:
    cluster, chance = nemesis.cluster, nemesis.chance
    program, member = _program(nemesis), chance.choice(cluster.names)
    if program is None:
        return
    cluster.cut(program, member)
    await nemesis.last(0.05, 3.0)
    if chance.random() < 0.3:
        cluster.reset(member, program)
    cluster.network.heal(program, member)


async def _reset_links(nemesis: Nemesis) -> None:
    program = _program(nemesis)
    if program is not None:
        nemesis.cluster.reset(program, nemesis.chance.choice(nemesis.cluster.names))
    await trio.lowlevel.checkpoint()


async def _delay(nemesis: Nemesis) -> None:
    """Let what is sent over one link be overtaken by what is sent over another."""
    cluster, chance = nemesis.cluster, nemesis.chance
    program, member = _program(nemesis), chance.choice(cluster.names)
    if program is None:
        return
    pair = chance.choice(((program, member), (member, program)))
    cluster.slow(*pair, chance.choice((0.1, 0.4, 1.5)))
    await nemesis.last(0.3, 4.0)
    cluster.slow(*pair, 0.0)


async def _pause_program(nemesis: Nemesis) -> None:
    """At times for longer than a lease's time to live."""
    name = _program(nemesis)
    if name is None:
        return
    cluster = nemesis.cluster

    async def body() -> None:
        cluster.pause(name)
        await nemesis.last(*nemesis.chance.choice(LASTS_S))
        cluster.resume(name)

    await nemesis.while_touching(name, body)


async def _kill_program(nemesis: Nemesis) -> None:
    name = _program(nemesis)
    if name is not None:
        await nemesis.cluster.kill(name)


async def _cut_off(nemesis: Nemesis) -> None:
    """Cut a program off from all members, at times for longer than a lease's time to live."""
    name = _program(nemesis)
    if name is None:
        return
    cluster = nemesis.cluster
    for member in cluster.names:
        cluster.cut(name, member)
        cluster.cut(member, name)
    await nemesis.last(*nemesis.chance.choice(LASTS_S))
    cluster.network.heal(name, None)
    cluster.network.heal(None, name)


LINK_FAULTS: Final[dict[str, Fault]] = {
    "drop answers": _drop_answers,
    "drop all answers": _drop_all_answers,
    "drop requests": _drop_requests,
    "reset links": _reset_links,
    "delay": _delay,
    "pause program": _pause_program,
    "kill program": _kill_program,
    "cut off": _cut_off,
}

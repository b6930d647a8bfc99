"""What an operator does to a simulated cluster while it works: members come, go and are replaced, stop and hand over.

They are drawn like faults, and beside them; one change of the members at a time, as `coord.testing.cluster_operator`
makes it. A disk is given up only where the cluster can do without: when every other member has joined (S1).
"""

from __future__ import annotations

from typing import Final

import trio

from coord.errors import DataDirError
from coord.testing.cluster import State
from coord.testing.cluster_faults import Fault, Nemesis
from coord.testing.cluster_operator import Operator
from coord.testing.deterministic import fork

GROWN_MAX: Final = 2
"""So many members more than there were at first."""
VOTERS_MIN: Final = 3
"""A cluster is shrunk no further."""


async def _grow(nemesis: Nemesis) -> None:
    """Add a voter; or a learner, which is promoted later, or removed."""
    cluster, chance = nemesis.cluster, nemesis.chance
    if len(cluster.names) >= nemesis.size + GROWN_MAX or not nemesis.begin_change():
        return
    operator = _operator(nemesis)
    name = cluster.new_name()
    is_learner = chance.random() < 0.4

    async def body() -> None:
        if await operator.add(name, is_learner=is_learner) and is_learner:
            await nemesis.last(0.0, 1.0)
            if chance.random() < 0.6:
                await operator.promote(name)
            else:
                await operator.remove(name)

    await nemesis.while_touching(name, body)
    nemesis.is_changing = False


async def _shrink(nemesis: Nemesis) -> None:
    """Remove a member, the leader more often than others."""
    cluster = nemesis.cluster
    name = nemesis.victim()
    if name is None or len(cluster.names) <= VOTERS_MIN or not _have_all_joined(nemesis) or not nemesis.begin_change():
        return

    async def body() -> None:
        await _operator(nemesis).remove(name)

    await nemesis.while_touching(name, body)
    nemesis.is_changing = False


async def _replace(nemesis: Nemesis) -> None:
    """A member loses its disk, and at times is started without it; it is removed and added anew."""
    cluster, chance = nemesis.cluster, nemesis.chance
    name = nemesis.victim()
    if name is None or not _have_all_joined(nemesis) or not nemesis.begin_change():
        return
    operator = _operator(nemesis)

    async def body() -> None:
        await cluster.wipe(name)
        await nemesis.last(0.0, 1.0)
        if chance.random() < 0.5:
            await _start_empty(nemesis, name)
            await nemesis.last(0.0, 2.0)
        await cluster.kill(name)
        # Its process is gone for good: there is nothing to give up.
        await operator.remove(name, must=True)
        await operator.add(name, must=True)

    await nemesis.while_touching(name, body)
    nemesis.is_changing = False


async def _start_empty(nemesis: Nemesis, name: str) -> None:
    """Start a member that has lost its disk as if it had not: the others must not let it in (S1)."""
    with trio.move_on_after(2.0):
        try:
            await nemesis.cluster.start(name)
        except DataDirError as error:
            nemesis.cluster.trace("turned away", member=name, error=str(error))


async def _move(nemesis: Nemesis) -> None:
    cluster, chance = nemesis.cluster, nemesis.chance
    await _operator(nemesis).move(chance.choice((None, *cluster.names)))


async def _stop(nemesis: Nemesis) -> None:
    name = nemesis.victim()
    if name is None:
        return

    async def body() -> None:
        await nemesis.cluster.stop(name)
        await nemesis.last(0.0, 1.0)
        await nemesis.cluster.start(name)

    await nemesis.while_touching(name, body)


async def _roll(nemesis: Nemesis) -> None:
    """Stop and start one member after the other, as for an upgrade."""
    cluster = nemesis.cluster
    for name in list(cluster.names):
        if name not in nemesis.touched and name in cluster.in_state(State.UP):

            async def body(name: str = name) -> None:
                await cluster.stop(name)
                await cluster.start(name)

            await nemesis.while_touching(name, body)
            await nemesis.last(0.0, 0.5)


async def _silence(nemesis: Nemesis) -> None:
    """Clients and some members cannot hear each other, while members can."""
    cluster, chance = nemesis.cluster, nemesis.chance
    names = chance.sample(cluster.names, chance.randint(1, max(len(cluster.names) - 1, 1)))
    for name in names:
        cluster.silence(name)
    await nemesis.last(0.3, 5.0)
    for name in names:
        cluster.unsilence(name)


def _operator(nemesis: Nemesis) -> Operator:
    return Operator(nemesis.cluster, fork(nemesis.chance), lambda: trio.current_time() >= nemesis.ends_at)


def _have_all_joined(nemesis: Nemesis) -> bool:
    """Tell whether every member's incarnation is known to all: until then losing a disk may need more help."""
    cluster = nemesis.cluster
    nodes = [member.node for member in cluster.members.values() if member.node is not None]
    known = [member.incarnation for node in nodes for member in node.machine.members.values()]
    return len(known) == len(nodes) * len(cluster.names) and all(known)


CHANGES: dict[str, Fault] = {
    "grow": _grow,
    "shrink": _shrink,
    "replace": _replace,
    "move": _move,
    "stop": _stop,
    "roll": _roll,
    "silence": _silence,
}

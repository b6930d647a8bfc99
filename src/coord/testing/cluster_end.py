"""The end of a run: faults are taken back, the cluster must come back, and all members must be one."""

from __future__ import annotations

from typing import Any

import trio

from coord.mvcc.machine import StateMachine
from coord.protocol.ops import Op
from coord.testing.cluster import Cluster, State
from coord.testing.cluster_clients import Caller, World
from coord.testing.deterministic import fork
from coord.testing.history_ledger import Replay

BACK_WITHIN_S = 30.0
"""Of virtual time: elections, catching up and snapshots included."""


async def converge(cluster: Cluster, world: World) -> list[str]:
    """Heal everything, write once through every member and wait until all have applied the same; say what did not."""
    cluster.heal()
    for name in cluster.names:
        cluster.unsilence(name)
    for name in cluster.in_state(State.PAUSED):
        cluster.resume(name)
    for name in cluster.in_state(State.DOWN):
        await cluster.start(name)
    with trio.move_on_after(BACK_WITHIN_S):
        for name in cluster.names:
            await _write_through(cluster, world, name)
        while len({_applied(cluster, name) for name in cluster.names}) > 1:  # noqa: ASYNC110  # virtual time
            await trio.sleep(0.05)
        return []
    states = ", ".join(f"{name} {_applied(cluster, name)}" for name in cluster.names)
    return [f"did not come back within {BACK_WITHIN_S:g} s: leader {cluster.leader_now()}, applied {states}"]


async def _write_through(cluster: Cluster, world: World, name: str) -> None:
    member = cluster.members[name]
    only = World([member], world.history, world.chance, world.trace, world.ends_at)
    caller = Caller(f"last-{name}", only, fork(world.chance))
    while not (await caller.write(Op.PUT, [b"last", caller.tag()], is_numbered=False)).is_done:  # noqa: ASYNC110
        await trio.sleep(0.1)


def _applied(cluster: Cluster, name: str) -> tuple[int, int]:
    """Return how far a member is, and what it knows to be committed: equal everywhere when all have caught up."""
    node = cluster.members[name].node
    return (-1, -1) if node is None else (node.machine.applied_index, node.raft.log.committed)


def check_end(cluster: Cluster, played: Replay) -> list[str]:
    """Hold every member's state against the others' and the model's."""
    found = []
    states = {name: state_of(cluster, name) for name in cluster.names}
    first = cluster.names[0]
    for name, state in states.items():
        for what, value in state.items():
            if value != states[first][what]:
                found.append(f"{name} and {first} differ in {what}: {value!r:.200} and {states[first][what]!r:.200}")
    model = played.model
    expected = {
        "revision": model.revision,
        "compact revision": model.compact_revision,
        "leases": dict(sorted(model.leases.items())),
        "attached": {lease: model.attached(lease) for lease in sorted(model.leases)},
        "checkpoints": dict(sorted(model.checkpoints.items())),
    }
    found += [
        f"{first} has another {what} than the model: {states[first][what]!r:.200}, not {value!r:.200}"
        for what, value in expected.items()
        if states[first][what] != value
    ]
    return found


def hash_of(machine: StateMachine) -> tuple[int, int]:
    """Return the hash of a member's keys and their history, and the compacted revision that it begins behind."""
    hashing = machine.hash_kv(machine.revision)
    while True:
        try:
            next(hashing)
        except StopIteration as done:
            hashed: tuple[int, int] = done.value
            return hashed


def state_of(cluster: Cluster, name: str) -> dict[str, Any]:
    """Return everything replicated of a member that can be compared."""
    machine = cluster.node(name).machine
    leases = dict(sorted(machine.leases()))
    return {
        "revision": machine.revision,
        "compact revision": machine.compact_revision,
        "hash": hash_of(machine),
        "leases": leases,
        "attached": {lease: machine.lease_keys(lease) for lease in leases},
        "checkpoints": {lease: left_ms for lease in leases if (left_ms := machine.lease_remaining_ms(lease))},
        "cluster": machine.cluster_id,
        "members": sorted(member.to_wire() for member in machine.members.values()),
        "clients": machine.client_count,
        "alarms": sorted(machine.alarms),
    }

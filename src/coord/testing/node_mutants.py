"""Bugs planted in the actors of a node, its store and its state machine, each one that a safety rule forbids.

The simulator of whole nodes must find them; the Raft core has a list of its own.
"""

from __future__ import annotations

from typing import Final

from coord.testing.mutants import Hunted, Mutant, Patch

SECONDS_MAX: Final = 8.0


def _mutant(name: str, rule: str, *patches: tuple[str, str, str], seeds_max: int = 200) -> Mutant:
    return Mutant(name, rule, tuple(Patch(*patch) for patch in patches), seeds_max)


MUTANTS: Final = (
    # A store that is ahead of its own log: after a power loss they do not belong together.
    _mutant(
        "flush above the own durable log",
        "S3",
        (
            "coord.node.keeper",
            "durable_index = self.raft_log.persisted_index",
            "durable_index = self._sealed_index",
        ),
    ),
    _mutant(
        "release the log before the sync",
        "S4",
        (
            "coord.node.keeper",
            "        _call(self._covered)\n        self._release_log()",
            "        _call(self._covered)\n        self.release_wal(self.store.applied_index)\n"
            "        self._release_log()",
        ),
    ),
    _mutant(
        "trim the overlay before the commit",
        "S7",
        (
            "coord.store.store",
            "        self._job = FlushJob(segments, self.engine, self.reserve)\n",
            "        self._job = FlushJob(segments, self.engine, self.reserve)\n"
            "        self._overlay.trim(segments)\n        self._arrange()\n",
        ),
        (
            "coord.store.store",
            "        # S7: the overlay lets go only here, after the commits have returned.\n"
            "        self._overlay.trim(segments)\n",
            "",
        ),
    ),
    _mutant(
        "answer a read without a round",
        "S8",
        ("coord.raft.reads", "confirmed = agreed(state.configuration, reached)", "confirmed = self.number"),
    ),
    # etcd #14890, jetcd: what may have been applied is sent once more.
    _mutant(
        "send a forwarded write again",
        "S14",
        (
            "coord.node.forwarding",
            "            self.waiters.lose_sent(_BROKEN)",
            "            for frame in list(self.waiters.sent):\n"
            "                self.submit(self.waiters.take_sent(frame))",
        ),
    ),
    _mutant(
        "settle a lease's time at apply",
        "S15",
        (
            "coord.mvcc.apply",
            "lease, ttl_s = settled[1], settled[2]",
            "lease, ttl_s = settled[1], max(arguments[0], 1)",
        ),
    ),
    # etcd #18667: what a member answers its own client is not what the others do.
    _mutant(
        "apply differently for a waiter",
        "S15",
        (
            "coord.node.applier",
            "applied = self.machine.apply(index, term, data, entry=waiter.entry if waiter is not None else None)",
            "applied = self.machine.apply(index, term, data, entry=waiter.entry if waiter is not None else None)\n"
            "        if waiter is not None and index % 50 == 0:\n            self.machine._writer.revision += 1",
        ),
    ),
    _mutant(
        "forget the answers of numbers",
        "S18",
        ("coord.mvcc.apply", "known = record.recall(number, fingerprint)", "known = None"),
    ),
    _mutant(
        "renew a lease without a round",
        "S22",
        (
            "coord.node.requests",
            "        if self.calls.is_here:\n            self.reader.linearizable(read)",
            "        if self.calls.is_here:\n            self.reader.serializable(read)",
        ),
        seeds_max=400,
    ),
    _mutant(
        "let a new leader count less than a lease's time",
        "S23",
        (
            "coord.node.leases",
            "        for lease, ttl_s in self.machine.leases():\n            self._set(lease, now + ttl_s)",
            "        for lease, ttl_s in self.machine.leases():\n            self._set(lease, now + ttl_s / 8)",
        ),
    ),
    _mutant(
        "ignore what the client has seen",
        "S29",
        (
            "coord.node.reads",
            "        elif read.min_revision > self.machine.revision:\n            read.deadline",
            "        elif read.min_revision < 0:\n            read.deadline",
        ),
    ),
    _mutant(
        "lose the event that finds a slow client",
        "S30",
        (
            "coord.node.watches",
            "                        watch.next_revision = revision\n",
            "                        watch.next_revision = revision + 1\n",
        ),
    ),
    # etcd #15220.
    _mutant(
        "let a progress notice overtake events",
        "S30",
        (
            "coord.node.watches",
            "                lowest[asked.sink] = self.late.lowest(asked.sink, self.machine.revision + 1)\n",
            "                lowest[asked.sink] = self.machine.revision + 1\n",
        ),
    ),
)


def hunt(seed: int) -> Hunted:
    """Play one seed of the simulator of whole nodes; three members, since most rules are about more than one."""
    from coord.testing.cluster_sim import VACUOUS, Plan, run

    plan = Plan.of(seed)
    plan.seconds = min(plan.seconds, SECONDS_MAX)
    plan.size = 3
    plan.holders = max(plan.holders, 1)
    if seed % 2:
        plan.options["catch_up_entries"] = 20
    try:
        report = run(seed, plan=plan)
    except Exception as error:
        return Hunted(0, f"a node failed: {_innermost(error)!r}")
    found = [what for what in report.found if not what.startswith(VACUOUS)]
    return Hunted(report.lines, found[0] if found else "")


def _innermost(error: Exception) -> BaseException:
    inner: BaseException = error
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner

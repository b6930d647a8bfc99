"""Bugs planted in the actors of a node, its store and its state machine, each one that a safety rule forbids.

The simulator of whole nodes must find them; the Raft core has a list of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from coord.testing.mutants import Hunted, Mutant, Patch

if TYPE_CHECKING:
    from coord.testing.cluster_sim import Plan

SECONDS_MAX: Final = 8.0


def _mutant(name: str, rule: str, *patches: tuple[str, str, str], seeds_max: int = 200, setting: str = "") -> Mutant:
    return Mutant(name, rule, tuple(Patch(*patch) for patch in patches), seeds_max, setting=setting)


MUTANTS: Final = (
    _mutant(
        "accept a changed incarnation",
        "S1",
        ("coord.node.hello", "    if life[0] != (published or known[0] or life[0]):\n", "    if False:\n"),
        setting="a_wiped_member_votes",
        seeds_max=5,
    ),
    _mutant(
        "take a message of another sender",
        "S2",
        ("coord.node.peers", "        if message.sender != member:\n", "        if False:\n"),
        setting="a_member_speaks_for_another",
        seeds_max=5,
    ),
    # A crash in that moment forgets what others have counted on; the witness at the disks waits for none.
    _mutant(
        "acknowledge entries before the sync",
        "I7",
        (
            "coord.node.log_writer",
            "        write.messages.extend(messages)\n\n    def hold",
            "        self.send(messages)\n\n    def hold",
        ),
        seeds_max=5,
    ),
    _mutant(
        "let a leader count itself before its own sync",
        "I7",
        (
            "coord.node.consensus",
            "            outlets.to_log(ready.entries, self.raft.state_to_save(), ready.durable_messages)\n",
            "            outlets.to_log(ready.entries, self.raft.state_to_save(), ready.durable_messages)\n"
            "            if ready.entries and self.raft.role is Role.LEADER:\n"
            "                index, term, _ = ready.entries[-1]\n"
            "                self.raft.persisted(term, index, self.raft.state_to_save())\n",
        ),
        seeds_max=5,
    ),
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
        ("coord.raft.reads", "if configuration.has_quorum(answering):", "if True:"),
        setting="stale leaders",
    ),
    _mutant(
        "label a snapshot with what is applied",
        "S6",
        (
            "coord.node.snapshots",
            "        job = self.store.snapshot_job(self.directory)\n",
            "        import coord.store.snapshot\n        machine = self.node.node.machine\n"
            "        coord.store.snapshot.LABEL = machine.applied_index, machine.applied_term\n"
            "        job = self.store.snapshot_job(self.directory)\n",
        ),
        ("coord.store.snapshot", "    index, term = view.applied\n", "    index, term = max(view.applied, LABEL)\n"),
        ("coord.store.snapshot", "def write_snapshot(", "LABEL = 0, 0\n\n\ndef write_snapshot("),
        setting="installs",
    ),
    _mutant(
        "let a read join the round that is under way",
        "S8",
        (
            "coord.node.reads",
            "            self.waiting.append(read)\n            self.wake()\n",
            "            next(iter(self._rounds.values()), self.waiting).append(read)\n            self.wake()\n",
        ),
        setting="slow links",
    ),
    # A leader that was cut off has entries in its log that others' take the place of.
    _mutant(
        "find who waits by the index alone",
        "S13",
        (
            "coord.node.waiters",
            "        if proposal is not None and (proposal.term != term or proposal.data != data):\n",
            "        if proposal is None:\n",
        ),
        (
            "coord.node.waiters",
            "                if proposal is not None and proposal.term != term:\n",
            "                if False:\n",
        ),
        ("coord.node.waiters", "self.placed.items() if proposal.term < term]:", "self.placed.items() if False]:"),
        setting="partitions",
    ),
    # etcd #14890, jetcd: what may have been applied is sent once more.
    _mutant(
        "send a forwarded write again",
        "S14",
        (
            "coord.node.forwarding",
            "            self.waiters.lose_sent(_BROKEN)",
            "            for number in list(self.waiters.sent):\n"
            "                list(map(self.submit, self.waiters.take_sent(number).waiters))",
        ),
        setting="broken links",
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
            "applied = self.machine.apply(index, term, data, entry=entry)",
            "applied = self.machine.apply(index, term, data, entry=entry)\n"
            "        if proposal is not None and index % 50 == 0:\n            self.machine._writer.revision += 1",
        ),
    ),
    _mutant(
        "forget the answers of numbers",
        "S18",
        ("coord.mvcc.apply", "known = record.recall(write)", "known = None"),
    ),
    _mutant(
        "renew a lease without a round",
        "S22",
        (
            "coord.node.requests",
            "        if self.calls.is_here:\n            self.reader.linearizable(read)",
            "        if self.calls.is_here:\n            self.reader.serializable(read)",
        ),
        setting="stale leaders",
        seeds_max=400,
    ),
    _mutant(
        "expire what an earlier leader meant to",
        "S22",
        (
            "coord.mvcc.machine",
            "        if proposed_in == term:\n            self._writes.expire(",
            "        if True:\n            self._writes.expire(",
        ),
        setting="an_expiry_of_another_term_comes",
        seeds_max=5,
    ),
    # Such a lease has a checkpoint as well, and whoever waits for its end learns of the expiry before.
    _mutant(
        "renew a lease whose expiry is proposed",
        "S22",
        (
            "coord.node.requests",
            "        if expiring := self.leases.is_expiring(ids):\n",
            "        if expiring := 0:\n",
        ),
        (
            "coord.node.leases",
            "        if self._with_checkpoint.isdisjoint(leases):\n",
            "        if self._with_checkpoint.isdisjoint(leases) or self.is_expiring(leases):\n",
        ),
        setting="many leases",
    ),
    _mutant(
        "let a new leader count less than a lease's time",
        "S23",
        (
            "coord.node.leases",
            "                self._count(lease, now + ttl_s)\n        self.log(",
            "                self._count(lease, now + ttl_s / 8)\n        self.log(",
        ),
    ),
    _mutant(
        "give all leases their full time at a leader change",
        "S23",
        (
            "coord.node.leases",
            "            if remaining_ms := self.machine.lease_remaining_ms(lease):\n",
            "            if remaining_ms := 0:\n",
        ),
        setting="dead leaders",
    ),
    _mutant(
        "acknowledge a renewal without clearing its checkpoint",
        "S23",
        (
            "coord.node.requests",
            "        elif missed := self.leases.clear_checkpoints(ids):\n",
            "        elif missed := 0:\n",
        ),
        setting="a_renewal_comes_late",
        seeds_max=5,
    ),
    _mutant(
        "acknowledge a renewal before its checkpoint is cleared",
        "S23",
        (
            "coord.node.requests",
            "        elif missed := self.leases.clear_checkpoints(ids):\n",
            "        elif (missed := self.leases.clear_checkpoints(ids)) and False:\n",
        ),
        setting="a_renewal_meets_a_checkpoint_on_its_way",
        seeds_max=20,
    ),
    # What is on its way says less than the renewal that was acknowledged meanwhile.
    _mutant(
        "look only at checkpoints that are applied",
        "S23",
        (
            "coord.node.leases",
            "            self._with_checkpoint.update(leases)\n",
            "",
        ),
        (
            "coord.node.leases",
            "        for lease, remaining_ms in applied.leases_checkpointed:\n",
            "        for lease, remaining_ms in applied.leases_checkpointed:\n"
            "            self._with_checkpoint.add(lease)\n",
        ),
        setting="a_renewal_meets_a_checkpoint_on_its_way",
        seeds_max=20,
    ),
    _mutant(
        "take a checkpoint of an earlier leader",
        "S23",
        (
            "coord.mvcc.machine",
            "        if proposed_in == term:\n            self._writes.checkpoint(",
            "        if True:\n            self._writes.checkpoint(",
        ),
        setting="a_checkpoint_of_another_term_comes",
        seeds_max=5,
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
            "                    watch.next_revision = revision\n",
            "                    watch.next_revision = revision + 1\n",
        ),
    ),
    _mutant(
        "skip what a snapshot brought",
        "S30",
        (
            "coord.node.watches",
            "                watch.next_revision = max(watch.next_revision, given + 1)\n",
            "                watch.next_revision = max(watch.next_revision, revision + 1)\n",
        ),
        setting="installs",
    ),
    _mutant(
        "go on inside a revision",
        "S30",
        (
            "coord.node.watches",
            "                lagging = [watch for receiver in wanted for watch in receiver.watches]\n",
            "                lagging = [watch for receiver in wanted for watch in receiver.watches]\n"
            "                self.delivery.deliver(sink, revision, {one: told[:1] for one, told in wanted.items()})\n"
            "                lagging = [one for one in lagging if len(wanted[one.audience or one]) > 1]\n",
        ),
        (
            "coord.node.watches",
            "                    watch.next_revision = revision\n",
            "                    watch.next_revision = revision + 1\n",
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


PLANS: Final[dict[str, dict[str, Any]]] = {
    "installs": {"faults": ("pause",), "catch_up_entries": 20, "snapshot_count": 10, "watchers": 4},
    "partitions": {"faults": ("isolate", "split", "one way", "slow")},
    "stale leaders": {"faults": ("pause", "isolate"), "tracks": 2, "workers": 6, "holders": 6},
    "broken links": {"faults": ("reset", "crash"), "tracks": 6, "workers": 10},
    "slow links": {"faults": ("slow",), "tracks": 2},
    "dead leaders": {"faults": ("kill", "crash"), "leavers": 3, "workers": 5},
    "many leases": {"faults": ("slow disk", "slow"), "tracks": 2, "holders": 8, "workers": 1},
}
"""What to leave of a drawn plan, so that a bug need not wait for what has to do with it."""


def hunt(seed: int, setting: str = "") -> Hunted:
    """Play one seed of the simulator of whole nodes, or of a scene."""
    from coord.testing import cluster_scenes
    from coord.testing.cluster_sim import VACUOUS, run

    try:
        if scene := cluster_scenes.SCENES.get(setting):
            cluster_scenes.play(scene, seed)
            return Hunted(1, "")
        report = run(seed, plan=_plan(seed, setting))
    except Exception as error:
        return Hunted(0, f"a node failed: {_innermost(error)!r}")
    found = [what for what in report.found if not what.startswith(VACUOUS)]
    return Hunted(report.lines, found[0] if found else "")


def _plan(seed: int, setting: str) -> Plan:
    """Return a plan for three members, since most rules are about more than one."""
    from coord.testing.cluster_sim import Plan

    plan = Plan.of(seed)
    plan.seconds = min(plan.seconds, SECONDS_MAX)
    plan.size = 3
    plan.holders = max(plan.holders, 1)
    if seed % 2:
        plan.options["catch_up_entries"] = 20
    for name, value in PLANS.get(setting, {}).items():
        if hasattr(plan, name):
            setattr(plan, name, value)
        else:
            plan.options[name] = value
    return plan


def _innermost(error: Exception) -> BaseException:
    inner: BaseException = error
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner

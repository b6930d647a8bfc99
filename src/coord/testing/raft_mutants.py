"""Bugs planted in the Raft core, each one that a real system had or that a safety rule forbids.

`rule` names the rule of safety that a mutant breaks, or the invariant that it runs into; the comment above it names
the system that shipped it.
"""

from __future__ import annotations

from typing import Final

from coord.testing.mutants import Hunted, Mutant, Patch

_CORE: Final = "coord.raft.core"
_ELECTION: Final = "coord.raft.election"
_FOLLOWING: Final = "coord.raft.following"
_READS: Final = "coord.raft.reads"
_REPLICATION: Final = "coord.raft.replication"
_ROLES: Final = "coord.raft.roles"
_TYPES: Final = "coord.raft.types"


def _mutant(name: str, rule: str, *patches: tuple[str, str, str], seeds_max: int = 1000) -> Mutant:
    return Mutant(name, rule, tuple(Patch(*patch) for patch in patches), seeds_max)


MUTANTS: Final = (
    # LogCabin #44: the thesis' figure 3.7.
    _mutant(
        "count copies of older terms",
        "I4",
        (
            _REPLICATION,
            "if index > log.committed and log.term_at(index) == state.hard_state.term:",
            "if index > log.committed:",
        ),
    ),
    # ZOOKEEPER-4646.
    _mutant(
        "acknowledge before the sync",
        "I7",
        (_FOLLOWING, "index = min(owed, state.log.persisted_index)", "index = owed"),
    ),
    _mutant(
        "acknowledge in a term not yet durable",
        "I7",
        (_FOLLOWING, " or state.durable_term < state.hard_state.term:", ":"),
    ),
    _mutant(
        "send a vote before the sync",
        "I7",
        (
            _ELECTION,
            "        state.durable_messages.append(reply)\n",
            "        state.messages.append(reply)\n",
        ),
    ),
    # PySyncObj: the vote lived in memory alone.
    _mutant(
        "count the own vote before the sync",
        "I2",
        (
            _ROLES,
            "        self.change_role(Role.CANDIDATE, reason)\n",
            "        self.change_role(Role.CANDIDATE, reason)\n"
            "        self.count_vote(state.member_id, VOTE_GRANTED)\n",
        ),
    ),
    # canonical/raft #386.
    _mutant(
        "vote twice in a term", "I2", (_ELECTION, "if state.hard_state.vote not in (0, request.sender):", "if False:")
    ),
    _mutant(
        "vote for a shorter log",
        "I4",
        (
            _ELECTION,
            "if (request.last_term, request.last_index) < (state.log.last_term, state.log.last_index):",
            "if request.last_term < state.log.last_term:",
        ),
    ),
    _mutant(
        "forget the commit at restart",
        "S12",
        (
            _CORE,
            "log.committed = max(log.applied, min(hard_state.commit, log.last_index))",
            "log.committed = log.applied",
        ),
    ),
    _mutant(
        "campaign before a configuration is applied",
        "S12",
        (_ELECTION, "if state.log.applied < state.log.committed:", "if False:"),
        (_ROLES, "if state.log.applied < state.log.committed and not self.stands_back:", "if False:"),
    ),
    # redpanda #17675.
    _mutant(
        "start a second configuration early",
        "I9",
        (_CORE, "elif state.configuration_index > state.log.applied:", "elif False:"),
    ),
    # Ongaro 2015.
    _mutant(
        "change members before the own term",
        "I9",
        (_CORE, "elif not state.has_committed_in_term:\n            reason", "elif False:\n            reason"),
    ),
    _mutant(
        "count only the new side of a joint one", "I7", (_TYPES, "        if self.outgoing:\n", "        if False:\n")
    ),
    _mutant(
        "count a learner",
        "I7",
        (_TYPES, "        yield self.voters\n", "        yield self.voters | self.learners\n"),
    ),
    _mutant(
        "count a blank member",
        "S1",
        ("coord.raft.quorum", "0 if member in blank else reached.get(member, 0)", "reached.get(member, 0)"),
        (_TYPES, "counted = members - self.blank", "counted = members"),
        seeds_max=3000,
    ),
    _mutant(
        "vote while blank",
        "S1",
        (
            _ELECTION,
            'if state.member_id in state.configuration.blank:\n            return "it joined blank',
            'if False:\n            return "it joined blank',
        ),
    ),
    # ZOOKEEPER-1154.
    _mutant(
        "keep a suffix that differs",
        "I3",
        (_FOLLOWING, "            if log.term_at(index) != term:\n", "            if False:\n"),
    ),
    _mutant(
        "tell a follower of commits it lacks",
        "I5",
        (_REPLICATION, "commit = min(progress.match, state.log.committed)", "commit = state.log.committed"),
    ),
    _mutant(
        "believe a completion by its index alone",
        "I7",
        (
            _CORE,
            "if index > log.persisted_index and state.term >= log.replaced_term and log.holds(index, term):",
            "if log.persisted_index < index <= log.last_index:",
        ),
    ),
    # ScyllaDB #9551.
    _mutant(
        "keep the log behind a snapshot",
        "S6",
        (
            "coord.raft.log",
            "        self._entries.clear()\n        self._ends.clear()\n        self._origin = 0\n",
            "        del self._entries[: index - self.base_index]\n        del self._ends[: index - self.base_index]\n"
            "        self._origin = 0\n",
        ),
    ),
    # etcd #7331, TiKV #9239.
    _mutant(
        "read before a commit in the own term",
        "S8",
        (_READS, "if not self._waiting or not state.has_committed_in_term:", "if not self._waiting:"),
    ),
    # etcd #20418.
    _mutant(
        "use a read round again",
        "S8",
        (_READS, "        self.number += 1\n", "        self.number = max(self.number, 1)\n"),
        (
            _READS,
            "answering = {state.member_id, member}",
            "answering = self._who_answered(item)",
        ),
    ),
    _mutant(
        "join a running read round",
        "S8",
        (
            _READS,
            "            self._waiting.append(item)\n",
            "            if self._rounds:\n"
            "                last = self._rounds[-1]\n"
            "                self._rounds.append(_Round(member, round_id, last.number, last.index))\n"
            "                return\n"
            "            self._waiting.append(item)\n",
        ),
    ),
    _mutant(
        "answer a read without asking anybody",
        "S9",
        (_READS, "if configuration.has_quorum(answering):", "if True:"),
    ),
    _mutant(
        "keep a leader whose port refuses",
        "S10",
        (_CORE, "        if is_refused and member == self._state.leader_id:\n", "        if False:\n"),
    ),
    _mutant(
        "take a broken link for a dead leader",
        "S10",
        (
            _CORE,
            "        if is_refused and member == self._state.leader_id:\n",
            "        if member == self._state.leader_id:\n",
        ),
    ),
    # The node's part of S11, which the simulator's hosts play.
    _mutant(
        "count missed ticks before messages",
        "S11",
        (
            "coord.testing.raft_cluster",
            '[event for event in waiting if event[0] != "tick"] + ticks[:1]',
            'ticks * 100 + [event for event in waiting if event[0] != "tick"]',
        ),
    ),
    _mutant(
        "listen to whoever campaigns",
        "§4.2.3",
        (_ELECTION, "return not request.is_transfer and self.hears_leader", "return False"),
    ),
    # Cloudflare, November 2020.
    _mutant(
        "lead without a quorum",
        "I11",
        (_CORE, "if state.configuration.has_quorum(heard):", "if True:"),
    ),
    _mutant(
        "probe a lost follower never again",
        "I11",
        (_REPLICATION, "        progress.is_paused = False\n        is_in_log", "        is_in_log"),
    ),
)

TOO_RARE: Final = (
    # coord's own: a follower's request is an answer too.
    _mutant(
        "take a request for a round for an answer to others",
        "S8",
        (
            _READS,
            "        progress = self._replication.progress\n        for member in sorted(asked):",
            "        progress = self._replication.progress\n"
            "        for member, _ in waiting:\n"
            "            if member in progress:\n"
            "                progress[member].round = self.number\n"
            "        self.confirm()\n"
            "        for member in sorted(asked):",
        ),
    ),
    # coord's own, found by seed 10437 of this simulator while the core was written.
    _mutant(
        "send what an earlier leadership cut",
        "I4",
        (
            _REPLICATION,
            "        # The log may be another when this member leads again.\n        self._slice = (0, 0, ())\n",
            "",
        ),
    ),
    # etcd's raft, testdata async_storage_writes_append_aba_race.
    _mutant(
        "believe a completion by its term alone", "I7", (_CORE, " and state.term >= log.replaced_term and", " and")
    ),
)
"""Random schedules meet these once in some thousand seeds; scripts in tests/raft find them at once."""


def hunt(seed: int) -> Hunted:
    """Run one seed of the Raft simulator."""
    from coord.testing.raft_sim import run_seed

    outcome = run_seed(seed)
    return Hunted(outcome.steps, outcome.failures[0][1] if outcome.failures else "")

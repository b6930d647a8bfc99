"""What must hold after every step of a simulated cluster: I1–I9 and I12, each as cheap as it can be.

The ledger sees all members at once, and what was durable when. It shares no code with the core: quorums are counted
here anew. By induction most checks are O(1): if for every (index, term) there is one predecessor's term and one
content, then two logs that agree on an entry agree on all before it (thesis §3.5), so one comparison at the commit
index stands for the whole prefix. `scan` redoes the long way from time to time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING
from zlib import crc32

from attrs import define, field

from coord.protocol.messages import AppendReply, RaftMessage, VoteReply, VoteRequest
from coord.raft.core import Raft
from coord.raft.types import Configuration, Entry
from coord.testing.raft_disk import Image
from coord.types import Role

if TYPE_CHECKING:
    from coord.testing.raft_host import Host

CONFIGURATION = b"C"
"""An entry that begins so names a configuration by its number in the ledger."""
CLUSTER = b"K"
"""So does this one, which counts only if no cluster id was applied before (S1)."""


class Violation(AssertionError):
    """An invariant is broken; the text begins with its name."""


def next_chain(chain: int, term: int, data: bytes) -> int:
    """Return the checksum of a state after one more entry."""
    return crc32(data, chain ^ (term & 0xFFFF))


def is_quorum(configuration: Configuration, members: Collection[int]) -> bool:
    """Count as the thesis says (§4.3), with S1: blank members are in the size, never towards the majority."""
    for side in (configuration.voters, configuration.outgoing):
        if side:
            votes = 0
            for member in side:
                if member in members and member not in configuration.blank:
                    votes += 1
            if 2 * votes <= len(side):
                return False
    return bool(configuration.voters)


def do_quorums_meet(one: Configuration, other: Configuration) -> bool:
    """Tell whether every quorum of one configuration shares a member with every quorum of the other (I9)."""
    for side in filter(None, (one.voters, one.outgoing)):
        for across in filter(None, (other.voters, other.outgoing)):
            apart = len(side - across), len(across - side), len(side & across)
            short_one, short_other = len(side) // 2 + 1 - apart[0], len(across) // 2 + 1 - apart[1]
            if max(short_one, 0) + max(short_other, 0) > apart[2]:
                return True
    return False


@define(eq=False)
class Ledger:
    """All that was ever promised in one run. `hosts` are all machines, by member."""

    hosts: dict[int, Host] = field(factory=dict)
    leaders: dict[int, int] = field(factory=dict)
    """I1: term → leader."""
    votes: dict[tuple[int, int], int] = field(factory=dict)
    """I2: (voter, term) → candidate, once durable."""
    entries: dict[tuple[int, int], tuple[int, bytes]] = field(factory=dict)
    """I3: (index, term) → (term of the predecessor, data)."""
    terms: list[int] = field(factory=lambda: [0])
    """The terms of all entries that were committed anywhere, by index."""
    marks: list[tuple[int, int]] = field(factory=list)
    """(term of a leader, the highest index it committed), rising."""
    applied: list[tuple[int, int]] = field(factory=lambda: [(0, 0)])
    """(term, chain) by index, as the first member applied it."""
    configurations: list[Configuration] = field(factory=list)
    """All that were proposed, by number."""
    history: list[tuple[int, Configuration]] = field(factory=list)
    """(index, configuration) as applied first."""
    quorum_at_commit: tuple[int, Configuration] | None = None
    counts: dict[str, int] = field(factory=dict)

    @property
    def committed(self) -> int:
        """The highest index that is committed anywhere."""
        return len(self.terms) - 1

    def count(self, name: str) -> None:
        """Count something that should happen sometimes."""
        self.counts[name] = self.counts.get(name, 0) + 1

    def look(self, host: Host, raft: Raft) -> None:
        """Compare a member with what it was (I6), after each of its steps."""
        log = raft.log
        term = raft.term
        if term != host.seen_term:
            if term < host.seen_term:
                raise Violation(f"I2: term of {host.member} falls from {host.seen_term} to {term}")
            host.seen_term = term
        if raft.role is Role.LEADER and host.lead_term != term:
            self._leader_is_elected(host, raft)
        if log.committed != host.seen_commit:
            self._commit_is_moved(host, raft)
        if log.applied != host.seen_applied:
            if log.applied < host.seen_applied:
                raise Violation(f"I6: applied index of {host.member} falls from {host.seen_applied} to {log.applied}")
            host.seen_applied = log.applied
        if not log.applied <= log.committed <= log.last_index:
            raise Violation(f"I6: {host.member} has applied {log.applied} <= {log.committed} <= {log.last_index}")

    def _leader_is_elected(self, host: Host, raft: Raft) -> None:
        term, member, log = raft.term, host.member, raft.log
        host.lead_term = term
        if self.leaders.setdefault(term, member) != member:
            raise Violation(f"I1: both {self.leaders[term]} and {member} lead term {term}")
        configuration = host.image.configuration
        if member not in configuration.voters | configuration.outgoing:
            raise Violation(f"S12: {member} is no voter and leads term {term}")
        if member in configuration.blank:
            raise Violation(f"S1: {member} is blank and leads term {term}")
        voters = [
            voter for voter in self.hosts if member in {self.votes.get((voter, term)), self.votes.get((-voter, term))}
        ]
        if not is_quorum(configuration, voters):
            raise Violation(f"I2: {member} leads term {term} with the durable votes of {voters} in {configuration}")
        # I4, thesis §3.6.3: what leaders of earlier terms committed. A later one may exist already.
        position = bisect_left(self.marks, (term, 0))
        index = self.marks[position - 1][1] if position else 0
        if index > log.last_index or (index >= log.base_index and log.term_at(index) != self.terms[index]):
            raise Violation(f"I4: {member} leads term {term} without the committed entry {index}")
        self.count("leader elected")
        if configuration.is_joint:
            self.count("leader elected in a joint configuration")

    def _commit_is_moved(self, host: Host, raft: Raft) -> None:
        log, index = raft.log, raft.log.committed
        if index < host.seen_commit:
            raise Violation(f"I6: commit of {host.member} falls from {host.seen_commit} to {index}")
        host.seen_commit = index
        known = self.committed
        if index > known:
            if raft.role is not Role.LEADER:
                raise Violation(f"I5: {host.member} follows and commits {index}, but no leader beyond {known}")
            self._leader_commits(host, raft, index)
            self.terms.extend(log.term_at(number) for number in range(known + 1, index + 1))
        if log.term_at(min(index, known)) != self.terms[min(index, known)] and min(index, known) >= log.base_index:
            raise Violation(f"I5: {host.member} commits another entry {min(index, known)} than was committed before")

    def _leader_commits(self, host: Host, raft: Raft, index: int) -> None:
        """I7: a quorum of the configuration in force has the entry on disk."""
        term = raft.log.term_at(index)
        if term != raft.term:
            raise Violation(f"I4: leader {host.member} of term {raft.term} counts copies of {index} of term {term}")
        holders = self._holders(index, term)
        configuration = host.image.configuration
        if not is_quorum(configuration, holders):
            raise Violation(
                f"I7: leader {host.member} commits {index} of term {term}, durable only on {holders} of {configuration}"
            )
        self.quorum_at_commit = (index, configuration)
        if self.marks and self.marks[-1][0] == raft.term:
            self.marks[-1] = (raft.term, index)
        elif self.marks and self.marks[-1][0] > raft.term:
            raise Violation(
                f"I4: leader {host.member} of term {raft.term} commits {index} after term {self.marks[-1][0]}"
            )
        else:
            self.marks.append((raft.term, index))

    def _holders(self, index: int, term: int) -> list[int]:
        """Return whose disks hold a committed entry, in the log or in what replaced it."""
        return [
            member
            for member, host in self.hosts.items()
            if host.disk.term_at(index) == term or max(host.disk.store.index, host.disk.base_index) >= index
        ]

    def entries_are_handed(self, host: Host, raft: Raft, entries: Sequence[Entry]) -> None:
        """I3 and I6: what the core hands to the disk."""
        first, last = entries[0][0], entries[-1][0]
        if first > host.handed_index + 1 or last - first + 1 != len(entries):
            raise Violation(f"I6: {host.member} hands {first} … {last} to the disk after {host.handed_index}")
        if first <= host.handed_index:
            if host.lead_term == raft.term:
                raise Violation(f"I6: leader {host.member} overwrites its own entry {first}")
            if first <= host.handed_commit:
                raise Violation(f"I5: {host.member} overwrites its committed entry {first}")
            self.count("entry overwritten")
        host.handed_index = last
        before = raft.log.term_at(first - 1)
        known = self.entries
        for index, term, data in entries:
            value = (before, data)
            if known.setdefault((index, term), value) != value:
                raise Violation(f"I3: two entries {index} of term {term}: {known[index, term]} and {value}")
            before = term

    def commits_are_handed(self, host: Host, entries: Sequence[Entry]) -> None:
        """I5: committed entries come once each, in order."""
        first, last = entries[0][0], entries[-1][0]
        if first != host.handed_commit + 1 or last - first + 1 != len(entries):
            raise Violation(f"I5: {host.member} hands {first} … {last} to be applied after {host.handed_commit}")
        host.handed_commit = last

    def entry_is_applied(self, host: Host, index: int, term: int, data: bytes, chain: int) -> None:
        """I5: all members apply the same."""
        if index < len(self.applied):
            if self.applied[index] != (term, chain):
                raise Violation(f"I5: {host.member} applies another entry {index} than was applied before: {data!r}")
        elif self.entries.get((index, term), (0, b""))[1] != data or self.terms[index] != term:
            raise Violation(f"I5: {host.member} applies {index} of term {term}, which was not committed")
        else:
            self.applied.append((term, chain))

    def image_is_taken(self, host: Host, image: Image) -> None:
        """S6: a member goes on from a snapshot."""
        if self.applied[image.index] != (image.term, image.chain):
            raise Violation(f"S6: {host.member} installs a snapshot at {image.index} that is not that state")
        self.count("snapshot installed")

    def state_is_durable(self, host: Host) -> None:
        """I2: term and vote on disk never go back, and there is one vote a term, across crashes."""
        state, member = host.disk.state, host.member
        if state.vote and self.votes.setdefault((member, state.term), state.vote) != state.vote:
            raise Violation(
                f"I2: {member} votes for {state.vote} in term {state.term}, and for "
                f"{self.votes[member, state.term]} before"
            )

    def member_is_restarted(self, host: Host, committed: int) -> None:
        """S12: what was durably known to be committed is known again, as far as the log was recovered."""
        if committed < min(host.disk.state.commit, host.disk.last_index):
            raise Violation(f"S12: {host.member} starts with commit {committed}; its disk has {host.disk.state.commit}")

    def disk_is_believed(self, host: Host, raft: Raft) -> None:
        """I7: what the core holds for durable is on the disk, and nothing in its queue will replace it."""
        if host.installing is not None:
            # The log begins behind a snapshot whose record comes after all that is queued.
            return
        index, disk = raft.log.persisted_index, host.disk
        term = disk.term_at(index)
        if index > raft.log.base_index and term != raft.log.term_at(index):
            raise Violation(f"I7: {host.member} believes {index} durable; the disk has another, of term {term}")
        for write in disk.queue:
            if write.entries and write.entries[0][0] <= index:
                raise Violation(f"I7: {host.member} believes {index} durable, but a queued write replaces it")

    def message_leaves(self, host: Host, message: RaftMessage) -> None:
        """I7: whatever a message attests is on disk when it leaves."""
        kind = type(message)
        if kind is AppendReply:
            if not message.is_rejected:  # type: ignore[union-attr]
                self._append_is_acknowledged(host, message)  # type: ignore[arg-type]
        elif kind is VoteReply:
            self._vote_leaves(host, message)  # type: ignore[arg-type]
        elif kind is VoteRequest:
            self._candidate_asks(host)

    def _append_is_acknowledged(self, host: Host, message: AppendReply) -> None:
        disk, index = host.disk, message.index
        if index > max(disk.last_index, disk.store.index) or disk.state.term < message.term:
            raise Violation(
                f"I7: {host.member} acknowledges {index} in term {message.term}; its disk ends at {disk.last_index} "
                f"in term {disk.state.term}"
            )
        leader = self.hosts[message.to].raft
        if leader is None or leader.role is not Role.LEADER or leader.term != message.term:
            return
        mine = disk.term_at(index)
        if mine >= 0 and leader.log.base_index <= index <= leader.log.last_index and leader.log.term_at(index) != mine:
            raise Violation(f"I7: {host.member} acknowledges {index} of term {mine}, the leader's is another")

    def _vote_leaves(self, host: Host, message: VoteReply) -> None:
        if message.refusal:
            return
        if host.member in host.image.configuration.blank:
            raise Violation(f"S1: {host.member} is blank and grants a vote to {message.to}")
        if message.is_pre:
            return
        key = (host.member, message.term)
        if host.disk.state.term > message.term:
            # A vote that shared its write with a later term's: the later term keeps it as well.
            self.votes.setdefault(key, message.to)
        if self.votes.get(key) != message.to:
            raise Violation(f"I7: {host.member} votes for {message.to} in term {message.term}, not durably")

    def _candidate_asks(self, host: Host) -> None:
        configuration = host.image.configuration
        if host.member not in configuration.voters | configuration.outgoing or host.member in configuration.blank:
            raise Violation(f"S1, S12: {host.member} campaigns, but is no voter of {configuration}")
        if any(entry[2][:1] in {CONFIGURATION, CLUSTER} for entry in host.to_apply):
            raise Violation(f"S12: {host.member} campaigns with a committed configuration that it has not applied")

    def forget_votes(self, member: int) -> None:
        """A blank member lost its disk, and with it what it voted; S1 sees to it that this does no harm."""
        for voter, term in [key for key in self.votes if key[0] == member]:
            self.votes[-voter, term] = self.votes.pop((voter, term))

    def read_is_confirmed(self, host: Host, floor: int, index: int) -> None:
        """I8: a read sees all that was committed, anywhere, when it was asked for."""
        if index < floor:
            raise Violation(f"I8: a read of {host.member} is served at {index}, {floor} was committed before it began")
        if host.lead_term != host.seen_term:
            self.count("read confirmed on a follower")

    def add_configuration(self, configuration: Configuration, prefix: bytes = CONFIGURATION) -> bytes:
        """Return an entry's data for a configuration."""
        self.configurations.append(configuration)
        return prefix + str(len(self.configurations) - 1).encode()

    def configuration_in(self, data: bytes, has_cluster: bool) -> Configuration | None:
        """Return the configuration that an entry brings to a state, or None."""
        prefix = data[:1]
        if prefix == CONFIGURATION or (prefix == CLUSTER and not has_cluster):
            return self.configurations[int(data[1:])]
        return None

    def configuration_is_proposed(self, host: Host, raft: Raft, index: int) -> None:
        """I9: the last one is applied, and something of the own term is committed (S12)."""
        log = raft.log
        if log.term_at(log.committed) != raft.term:
            raise Violation(f"I9: leader {host.member} changes the configuration before it committed in its term")
        for entry in log.slice(log.applied + 1, index - 1) if log.applied + 1 < index else ():
            if entry[2][:1] in {CONFIGURATION, CLUSTER}:
                raise Violation(f"I9: leader {host.member} proposes {index} while {entry[0]} is not applied")

    def configuration_is_applied(self, index: int, configuration: Configuration) -> None:
        """I9: quorums of successive configurations meet."""
        if self.history and index <= self.history[-1][0]:
            return
        if self.history and not do_quorums_meet(self.history[-1][1], configuration):
            raise Violation(f"I9: quorums of {self.history[-1][1]} and of {configuration} at {index} need not meet")
        self.history.append((index, configuration))
        self.count("joint configuration applied" if configuration.is_joint else "configuration applied")

    def scan(self) -> None:
        """I12: the long way, over all logs in memory and on disk."""
        for host in self.hosts.values():
            disk = host.disk
            self._scan_log(host.member, disk.base_index, disk.base_term, disk.entries)
            if host.raft is not None:
                log = host.raft.log
                # What was not handed to the disk yet is not in the ledger either.
                last = log.handed_index
                entries = log.slice(log.base_index + 1, last) if last > log.base_index else ()
                self._scan_log(host.member, log.base_index, log.base_term, entries)
                if log.persisted_index > disk.last_index and host.installing is None:
                    raise Violation(f"I12: {host.member} believes {log.persisted_index} durable, not {disk.last_index}")
        if self.quorum_at_commit is not None:
            index, configuration = self.quorum_at_commit
            holders = self._holders(index, self.terms[index])
            if not is_quorum(configuration, holders):
                raise Violation(f"I12: the committed entry {index} is left on {holders} of {configuration}")

    def _scan_log(self, member: int, base_index: int, base_term: int, entries: Iterable[Entry]) -> None:
        if base_index <= self.committed and self.terms[base_index] != base_term:
            raise Violation(f"I12: the log of {member} begins behind {base_index} of term {base_term}")
        before, expected = base_term, base_index
        for index, term, data in entries:
            expected += 1
            if index != expected or term < before or self.entries.get((index, term)) != (before, data):
                raise Violation(f"I12: the log of {member} has a wrong entry {index} of term {term}")
            before = term

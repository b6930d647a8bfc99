"""A cluster that does only what a script says, line by line: the interpreter of `scripts/*.txt`.

A line is a verb and its arguments; `#` begins a comment. Messages wait on their links, in order, until they are
delivered; disks write and state machines apply by themselves, unless a member's are `manual`. The invariants of the
simulator look on all the time.

    nodes 3 [learners 1]           machines 1, 2, 3 (and learner 4), started; links all stand
    options election=10 …          before `nodes`: fields of RaftOptions
    settle                         deliver all that is not held, write, apply, until nothing is left
    elect 1                        campaign, settle, and expect 1 to lead
    campaign 1 | tick 1 20 | propose 1 a b | read 2 | transfer 1 2
    configure 1 voters=1,2,4 learners=5 outgoing=1,2,3 blank=5
    deliver 1>2 [Kind] [count]     what waits on the link, in order; of one kind; so many
    drop 1>2 [Kind] | duplicate 1>2 Kind
    hold 1>2 … | release 1>2 …     settle leaves held links alone; `*` stands for any member
    cut 1>2 2>1 | partition 1,2 | 3,4,5 | heal
    link-up 1 2 | refused 1 2 | reset 1 2      what 1 learns of its link to 2 (S10)
    manual disk 1 | manual apply 1 | automatic disk 1
    pipeline 1                     the disk keeps several writes out at once
    fsync 1 [count] | apply 1 [count]
    crash 1 [keep count] | restart 1           of the writes in the queue, the first `count` survive
    flush 1 [kept]                 sync the store, release the log behind it
    snapshot 1>2 | lose-snapshot 1>2           what the core of 1 asked for
    switch 1                       after `manual disk`: the store takes the snapshot's place
    expect 1 leader term=3 commit=5 last=6 applied=5 match.2=4
    expect 1 log 1@1 2@1:a 3@2:b   the whole log in memory
    expect 1 reads 2               so many reads are confirmed since the last such line
    expect 1>2 Append Heartbeat    what waits on the link
    expect refused                 the last `propose`, `configure` or `transfer` was
    status                         print everything, for who writes a script
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import define, evolve, field

from coord.protocol.messages import RaftMessage, SnapshotReceived
from coord.raft.options import RaftOptions
from coord.raft.types import Configuration
from coord.testing.raft_disk import Image, MemberDisk
from coord.testing.raft_host import Host
from coord.testing.raft_invariants import Ledger
from coord.testing.raft_trace import describe

Link = tuple[int, int]


class ScriptFailed(AssertionError):
    """A line did not go as the script says."""


def numbers(text: str) -> frozenset[int]:
    return frozenset(int(part) for part in text.split(",") if part)


@define(eq=False, repr=False)
class Stage:
    """The `World` of a script."""

    ledger: Ledger = field(factory=Ledger)
    options: RaftOptions = field(factory=lambda: RaftOptions(heartbeat_ticks=1, election_ticks=10, rank_ticks=1))
    links: dict[Link, deque[RaftMessage]] = field(factory=dict)
    cut: set[Link] = field(factory=set)
    held: set[Link] = field(factory=set)
    manual_disks: set[int] = field(factory=set)
    manual_applies: set[int] = field(factory=set)
    snapshots: dict[Link, tuple[SnapshotReceived, Image]] = field(factory=dict)
    told: list[str] = field(factory=list)
    reads_seen: dict[int, int] = field(factory=dict)
    refused: bool = False
    _due: deque[Callable[[], None]] = field(factory=deque)

    # World.

    def send(self, host: Host, message: RaftMessage) -> None:
        self.ledger.message_leaves(host, message)
        link = (host.member, message.to)
        assert message.sender == host.member
        if link not in self.cut:
            self.links.setdefault(link, deque()).append(message)

    def write_waits(self, host: Host) -> None:
        if host.member not in self.manual_disks:
            self._later(host, host.written)

    def apply_waits(self, host: Host) -> None:
        if host.member not in self.manual_applies:
            self._later(host, lambda: host.apply(1 << 30))

    def switch_waits(self, host: Host) -> None:
        if host.member not in self.manual_disks:
            self._later(host, host.switch)

    def snapshot_waits(self, host: Host, member: int) -> None:
        assert host.raft is not None
        host.flush(1 << 30)
        image = host.disk.store
        message = SnapshotReceived(host.member, member, host.raft.term, image.index, image.term)
        self.snapshots[host.member, member] = (message, image)

    def notice(self, host: Host, notes: Sequence[tuple[str, dict[str, object]]]) -> None:
        self.told += [f"n{host.member} {name} {describe(fields)}" for name, fields in notes]

    def _later(self, host: Host, call: Callable[[], None]) -> None:
        boot = host.boot

        def run() -> None:
            if host.raft is not None and host.boot == boot:
                call()

        self._due.append(run)

    # Running a script.

    def run(self, path: Path) -> None:
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            words = text.partition("#")[0].split()
            if not words:
                continue
            verb = "do_" + words[0].replace("-", "_")
            try:
                getattr(self, verb)(*words[1:])
                self._work()
            except Exception as error:
                what = error if isinstance(error, AssertionError) else repr(error)
                raise ScriptFailed(f"{path.name}:{number}: {text.strip()}\n  {what}\n{self.state()}") from error

    def _work(self) -> None:
        while self._due:
            self._due.popleft()()

    def host(self, text: str) -> Host:
        return self.ledger.hosts[int(text)]

    def _matching(self, texts: Sequence[str]) -> list[Link]:
        found = []
        for text in texts:
            one, other = text.split(">")
            found += [
                (here, there)
                for here in self.ledger.hosts
                for there in self.ledger.hosts
                if here != there and one in {"*", str(here)} and other in {"*", str(there)}
            ]
        return found

    def state(self) -> str:
        lines = []
        for member, host in self.ledger.hosts.items():
            if host.raft is None:
                lines.append(f"  n{member} down, durable {describe(host.disk.entries)} {describe(host.disk.state)}")
                continue
            raft = host.raft
            lines.append(
                f"  n{member} {raft.role.name.lower()} term={raft.term} leader={raft.leader_id} "
                f"applied={raft.log.applied} commit={raft.log.committed} log={' '.join(self._log(host))} "
                f"durable={host.disk.last_index} writes={len(host.disk.queue)}"
            )
        for link, messages in self.links.items():
            if messages:
                lines.append(f"  {link[0]}>{link[1]}: {' '.join(describe(message) for message in messages)}")
        return "\n".join(lines)

    def _log(self, host: Host) -> list[str]:
        assert host.raft is not None
        log = host.raft.log
        if log.last_index == log.base_index:
            return []
        told = []
        for index, term, data in log.slice(log.base_index + 1, log.last_index):
            told.append(f"{index}@{term}" + ("" if data == b"noop" else f":{data.decode()}"))
        return told

    # Verbs: the cluster.

    def do_options(self, *texts: str) -> None:
        for text in texts:
            name, _, value = text.partition("=")
            self.options = evolve(self.options, **{name: int(value)})

    def do_nodes(self, count: str, *more: str) -> None:
        voters = frozenset(range(1, int(count) + 1))
        learners = int(more[1]) if more else 0
        first = int(count) + 1
        bootstrap = Configuration(voters, frozenset(range(first, first + learners)))
        self.ledger.history.append((0, bootstrap))
        for member in sorted(bootstrap.voters | bootstrap.learners):
            self._add(member, bootstrap)

    def _add(self, member: int, configuration: Configuration) -> None:
        disk = MemberDisk(Image(0, 0, 0, configuration), is_gathering=True)
        host = Host(member, self, self.options, disk, lambda limit: 0)
        self.ledger.hosts[member] = host
        host.start()

    def do_join(self, member: str, teller: str) -> None:
        """A new member starts, told by another who the voters are."""
        told = self.host(teller).image.configuration
        self._add(int(member), evolve(told, blank=told.blank | {int(member)}))

    def do_crash(self, member: str, *more: str) -> None:
        self.host(member).crash(int(more[1]) if more else 0)

    def do_restart(self, member: str) -> None:
        self.host(member).start()

    def do_manual(self, what: str, *members: str) -> None:
        {"disk": self.manual_disks, "apply": self.manual_applies}[what].update(map(int, members))

    def do_automatic(self, what: str, *members: str) -> None:
        {"disk": self.manual_disks, "apply": self.manual_applies}[what].difference_update(map(int, members))
        for member in members:
            host = self.host(member)
            if what == "disk" and host.disk.queue:
                self.write_waits(host)
            if what == "apply" and host.to_apply:
                self.apply_waits(host)

    def do_pipeline(self, member: str) -> None:
        self.host(member).disk.is_gathering = False

    def do_fsync(self, member: str, count: str = "100") -> None:
        host = self.host(member)
        assert host.disk.queue, "no write waits"
        for _ in range(min(int(count), len(host.disk.queue))):
            host.written()

    def do_apply(self, member: str, count: str = "100") -> None:
        self.host(member).apply(int(count))

    def do_switch(self, member: str) -> None:
        self.host(member).switch()

    def do_flush(self, member: str, kept: str = "0") -> None:
        host = self.host(member)
        host.flush(int(kept))
        assert host.disk.store.index == host.image.index, "the store could not be synced"

    # Verbs: the network.

    def do_settle(self) -> None:
        for _ in range(10_000):
            self._work()
            ready = [link for link, messages in self.links.items() if messages and link not in self.held]
            if not ready:
                return
            self._deliver(ready[0], 1)
        raise ScriptFailed("it does not settle")

    def _deliver(self, link: Link, count: int, kind: str = "") -> int:
        delivered = 0
        messages = self.links.setdefault(link, deque())
        for message in list(messages):
            if delivered == count or (kind and type(message).__name__ != kind):
                continue
            messages.remove(message)
            delivered += 1
            host = self.ledger.hosts[link[1]]
            if host.raft is not None:
                host.raft.step(message)
                host.pump()
        return delivered

    def do_deliver(self, link: str, kind: str = "", count: str = "100") -> None:
        if kind.isdigit():
            kind, count = "", kind
        for each in self._matching([link]):
            done = self._deliver(each, int(count), kind)
            assert done or "*" in link, "nothing to deliver"
            self._work()

    def do_drop(self, link: str, kind: str = "") -> None:
        for each in self._matching([link]):
            messages = self.links.get(each, deque())
            for message in [one for one in messages if not kind or type(one).__name__ == kind]:
                messages.remove(message)

    def do_duplicate(self, link: str, kind: str) -> None:
        for each in self._matching([link]):
            messages = self.links[each]
            messages.append(next(one for one in messages if type(one).__name__ == kind))

    def do_hold(self, *links: str) -> None:
        self.held.update(self._matching(links))

    def do_release(self, *links: str) -> None:
        self.held.difference_update(self._matching(links))

    def do_cut(self, *links: str) -> None:
        self.cut.update(self._matching(links))
        for link in self._matching(links):
            self.links.pop(link, None)

    def do_partition(self, *texts: str) -> None:
        sides = [numbers(side) for side in " ".join(texts).split("|")]
        for one in sides:
            for other in sides:
                if one is not other:
                    self.do_cut(*[f"{here}>{there}" for here in one for there in other])

    def do_heal(self) -> None:
        self.cut.clear()

    def do_link_up(self, member: str, other: str) -> None:
        self._tell(member, lambda raft: raft.link_up(int(other)))

    def do_refused(self, member: str, other: str) -> None:
        self._tell(member, lambda raft: raft.link_broken(int(other), True))

    def do_reset(self, member: str, other: str) -> None:
        self._tell(member, lambda raft: raft.link_broken(int(other), False))

    def _tell(self, member: str, call: Callable[..., object]) -> None:
        host = self.host(member)
        assert host.raft is not None
        call(host.raft)
        host.pump()

    def do_snapshot(self, link: str) -> None:
        self._end_snapshot(link, True)

    def do_lose_snapshot(self, link: str) -> None:
        self._end_snapshot(link, False)

    def _end_snapshot(self, link: str, is_sent: bool) -> None:
        (one, other) = self._matching([link])[0]
        assert (one, other) in self.snapshots, "the leader asked for none"
        message, image = self.snapshots.pop((one, other))
        sender = self.ledger.hosts[one]
        sender.transfers.discard(other)
        if is_sent:
            self.ledger.hosts[other].receive_snapshot(message, image)
            self._tell(str(one), lambda raft: raft.snapshot_sent(other, message.index))
        else:
            self._tell(str(one), lambda raft: raft.snapshot_failed(other))

    # Verbs: what members are asked.

    def do_tick(self, member: str, count: str = "1") -> None:
        for _ in range(int(count)):
            self.host(member).tick()

    def do_campaign(self, member: str) -> None:
        self._tell(member, lambda raft: raft.campaign("the script says so"))

    def do_elect(self, member: str) -> None:
        self.do_campaign(member)
        self.do_settle()
        self.do_expect(member, "leader")

    def do_propose(self, member: str, *texts: str) -> None:
        for text in texts:
            self.refused = self.host(member).propose(text.encode()) is None

    def do_configure(self, member: str, *texts: str) -> None:
        parts = {name: numbers(value) for name, _, value in (text.partition("=") for text in texts)}
        data = self.ledger.add_configuration(Configuration(**parts))
        self.refused = self.host(member).propose_configuration(data) is None

    def do_transfer(self, member: str, to: str = "0") -> None:
        host = self.host(member)
        assert host.raft is not None
        self.refused = not host.raft.transfer(int(to))
        host.pump()

    def do_stop(self, member: str) -> None:
        self._tell(member, lambda raft: raft.stand_back())

    def do_read(self, member: str) -> None:
        self.host(member).read()

    # Verbs: what must be.

    def do_expect(self, who: str, *words: str) -> None:
        if who == "refused":
            assert self.refused, "it was not refused"
        elif who == "taken":
            assert not self.refused, "it was refused"
        elif ">" in who:
            (link,) = self._matching([who])
            found = [type(message).__name__ for message in self.links.get(link, ())]
            assert found == [word for word in words if word != "nothing"], f"on the link: {found}"
        else:
            self._expect_host(self.host(who), list(words))

    def _expect_host(self, host: Host, words: list[str]) -> None:
        raft = host.raft
        assert raft is not None, "it is down"
        if words[0] == "log":
            found = self._log(host)
            assert found == words[1:], f"log: {' '.join(found)}"
            return
        if words[0] == "reads":
            count = host.reads_done - self.reads_seen.get(host.member, 0)
            self.reads_seen[host.member] = host.reads_done
            assert count == int(words[1]), f"{count} reads are confirmed"
            return
        facts = {
            "term": raft.term,
            "vote": raft.hard_state.vote,
            "leader": raft.leader_id,
            "commit": raft.log.committed,
            "last": raft.log.last_index,
            "base": raft.log.base_index,
            "applied": raft.log.applied,
            "persisted": raft.log.persisted_index,
            "durable": host.disk.last_index,
            "durable_term": host.disk.state.term,
        }
        for word in words:
            name, _, value = word.partition("=")
            if not value:
                assert raft.role.name.lower() == name, f"it is {raft.role.name.lower()}"
            elif name.startswith("match."):
                match = raft.match_of(int(name[6:]))
                assert match == int(value), f"{name} is {match}"
            else:
                assert facts[name] == int(value), f"{name} is {facts[name]}"

    def do_status(self) -> None:
        print(self.state())

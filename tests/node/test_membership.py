"""S12 and S1 on the leader: one change at a time, etcd's checks, and a member counts once its incarnation stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from attrs import define, evolve, field

from coord.errors import ApiError, OutcomeUnknown
from coord.limits import LEARNERS_MAX, MEMBER_CHANGES_PENDING_MAX
from coord.mvcc.machine import StateMachine
from coord.node.member_changes import NotLeader
from coord.node.membership import Membership, configuration_of, initial_members, is_member
from coord.observe.events import check_event
from coord.protocol.entries import Member, Roster, encode_cluster, encode_entry, encode_members, initial_member_id
from coord.protocol.ops import EntryKind, Method
from coord.raft.types import Configuration
from coord.testing.memory_backend import MemoryBackend
from coord.types import Role

ADD, REMOVE, UPDATE, PROMOTE = Method.MEMBER_ADD, Method.MEMBER_REMOVE, Method.MEMBER_UPDATE, Method.MEMBER_PROMOTE
MOVE = Method.MOVE_LEADER
N1, N2, N3, N4, N5 = 1, 2, 3, 4, 5
NOOP = encode_entry(EntryKind.NOOP, None, b"")


def member(number: int, incarnation: int | None = None, **more: Any) -> Member:
    life = 100 + number if incarnation is None else incarnation
    return Member(
        number, f"n{number}", (f"http://n{number}:7380",), (f"http://n{number}:7379",), incarnation=life, **more
    )


@define
class FakeRaft:
    """A leader whose others have all, unless a test says otherwise; `propose_configuration` only appends."""

    machine: StateMachine
    role: Role = Role.LEADER
    term: int = 2
    leader_id: int = N1
    last_index: int = 1
    is_busy: bool = False
    inactive: set[int] = field(factory=set)
    matches: dict[int, int] = field(factory=dict)
    proposed: list[tuple[int, bytes]] = field(factory=list)
    transferees: list[int] = field(factory=list)
    refuses_transfer: bool = False

    @property
    def log(self) -> FakeRaft:
        return self

    def propose_configuration(self, data: bytes) -> tuple[int, int] | None:
        if self.is_busy:
            return None
        self.last_index += 1
        self.proposed.append((self.last_index, data))
        return self.term, self.last_index

    def transfer(self, to: int = 0) -> int:
        if self.refuses_transfer:
            return 0
        self.transferees.append(to)
        return to or N2

    def progress(self) -> Mapping[int, tuple[int, bool, str]]:
        others = self.machine.members.keys() - {N1}
        return {
            other: (self.matches.get(other, self.last_index), other not in self.inactive, "replicate")
            for other in sorted(others)
        }


class Rig:
    """The membership of n1, which leads the members given; `turn` applies what it proposed, until it rests."""

    def __init__(self, *members: Member) -> None:
        self.machine = StateMachine(MemoryBackend())
        self.raft = FakeRaft(self.machine)
        self.now = 0.0
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.ids = iter(range(50, 90))
        self.answers: list[Any] = []
        self.apply(encode_cluster(99, 10, members or [member(N1), member(N2), member(N3)]))
        own = self.machine.members[N1]
        self.membership = Membership(
            N1, (101, own.name, own.client_urls), self.machine, self.raft, lambda: self.now, self.log, lambda: None,
            lambda: next(self.ids), 1.0,
        )  # fmt: skip

    def log(self, event: str, /, **fields: Any) -> None:
        check_event(event, fields)
        self.events.append((event, fields))

    def apply(self, data: bytes, *, term: int | None = None) -> None:
        index = self.machine.applied_index + 1
        applied = self.machine.apply(index, self.raft.term if term is None else term, data)
        self.raft.last_index = max(index, self.raft.last_index)
        if index > 1 and applied.members_changed:
            self.membership.on_applied(applied)

    def turn(self, *, is_applying: bool = True) -> None:
        self.membership.turn()
        while is_applying and self.raft.proposed:
            self.commit()
            self.membership.turn()

    def commit(self, term: int | None = None) -> None:
        """Apply the entry that was proposed first, and what lies before it."""
        index, data = self.raft.proposed.pop(0)
        while self.machine.applied_index < index - 1:
            self.machine.apply(self.machine.applied_index + 1, self.raft.term, NOOP)
        self.apply(data, term=term)

    def ask(self, method: Method, *arguments: Any) -> None:
        self.membership.change(method, list(arguments), self.answers.append)

    def change(self, method: Method, *arguments: Any) -> Any:
        """Ask, run, and return the one answer."""
        self.ask(method, *arguments)
        self.turn()
        (answer,) = self.answers
        self.answers.clear()
        return answer

    def refused(self, method: Method, *arguments: Any) -> str:
        before = self.roster()
        answer = self.change(method, *arguments)
        assert isinstance(answer, ApiError), answer
        assert self.roster() == before
        return f"{answer.code}: {answer.text}"

    def roster(self) -> Roster:
        return Roster(tuple(self.machine.members.values()), self.machine.outgoing, self.machine.removed)

    def configuration(self) -> Configuration:
        return configuration_of(self.machine, None, N1)

    def told(self, name: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self.events if event == f"cluster.member.{name}"]


def ids(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


# ---- who votes


def test_flags_say_who_votes_until_there_is_a_cluster() -> None:
    machine = StateMachine(MemoryBackend())
    flags = Configuration(ids(N1, N2, N3))
    assert configuration_of(machine, flags, N1) == flags
    assert configuration_of(machine, None, N4) == Configuration(blank=ids(N4)), "S1: who joined is blank"


def test_planted_counting_a_blank_member_is_seen() -> None:
    """S1: until its incarnation stands in the log, a voter is counted in the size of a quorum and never towards it."""
    rig = Rig(member(N1), member(N2), member(N3, 0))
    configuration = rig.configuration()
    assert configuration == Configuration(ids(N1, N2, N3), blank=ids(N3))
    assert not configuration.has_quorum({N1, N3})
    assert configuration.has_quorum({N1, N2})
    rig.membership.introduced(N3, 103, "n3", ())
    rig.turn()
    assert rig.configuration().has_quorum({N1, N3})


def test_who_is_leaving_votes_among_the_outgoing_alone() -> None:
    rig = Rig()
    roster = Roster((member(N1), member(N2), member(N3), member(N4, is_learner=True)), ids(N1, N2, N3), ids(N2, N3))
    rig.apply(encode_members(roster))
    assert rig.configuration() == Configuration(ids(N1), ids(N4), ids(N1, N2, N3))


def test_a_lone_voter_of_before_there_were_incarnations_is_not_blank() -> None:
    rig = Rig(member(N1, 0), member(N2, 0, is_learner=True))
    assert rig.configuration() == Configuration(ids(N1), ids(N2), blank=ids(N2))
    rig.turn()
    assert rig.machine.members[N1].incarnation == 101


def test_who_belongs_to_the_cluster() -> None:
    rig = Rig(member(N1), member(N2, 0))
    rig.apply(encode_members(Roster((member(N1), member(N2, 0), member(N3)), ids(N1, N2, N3), ids(N3, N5))))
    assert is_member(rig.machine, N1, 101)
    assert not is_member(rig.machine, N1, 102), "another directory was let in under this id"
    assert is_member(rig.machine, N2, 7)
    assert is_member(rig.machine, N3, 103), "it still votes among the outgoing"
    assert is_member(rig.machine, N4, 7), "what was added may not be applied yet"
    assert not is_member(rig.machine, N5, 105)
    assert is_member(StateMachine(MemoryBackend()), N5, 105)


def test_initial_members_are_those_of_the_flags() -> None:
    cluster = [("n2", ["http://b:1"]), ("n1", ["http://a:2", "http://a:1"])]
    members = initial_members("t", cluster)
    assert members == initial_members("t", cluster[::-1])
    assert {row.name: (row.id, row.peer_urls, row.incarnation) for row in members} == {
        "n1": (initial_member_id("t", "n1", ["http://a:1", "http://a:2"]), ("http://a:1", "http://a:2"), 0),
        "n2": (initial_member_id("t", "n2", ["http://b:1"]), ("http://b:1",), 0),
    }


# ---- what members tell of themselves is published


def test_founders_that_were_met_have_joined() -> None:
    rig = Rig()
    rig.membership.introduced(N2, 102, "n2", ("http://n2:7379",))
    unmet = [member(number, 0) for number in (N1, N2, N3)]
    assert rig.membership.founders(unmet) == [member(N1), member(N2), member(N3, 0)]


def test_what_a_hello_tells_is_published_once() -> None:
    rig = Rig(member(N1), member(N2), Member(N3, "", ("http://n3:7380",), ()))
    rig.membership.introduced(N2, 102, "n2", ("http://n2:7379",))
    rig.turn()
    assert rig.machine.applied_index == 1, "nothing of it is new"
    rig.membership.introduced(N3, 103, "n3", ("http://n3:7379",))
    rig.turn()
    assert rig.machine.members[N3] == member(N3)
    assert rig.told("published") == [
        {"member": N3, "name": "n3", "incarnation": 103, "client_urls": ["http://n3:7379"]}
    ]
    rig.membership.introduced(N3, 103, "n3", ("http://new:7379",))
    rig.turn()
    rig.turn()
    assert rig.machine.members[N3].client_urls == ("http://new:7379",)
    assert rig.machine.applied_index == 3


def test_another_incarnation_is_never_published() -> None:
    rig = Rig()
    rig.membership.introduced(N3, 999, "n3", ())
    rig.turn()
    assert rig.machine.members[N3] == member(N3)
    rig.membership.introduced(77, 999, "stranger", ())
    rig.turn()
    assert 77 not in rig.machine.members


def test_a_follower_publishes_when_it_leads() -> None:
    rig = Rig(member(N1), member(N2), member(N3, 0))
    rig.raft.role = Role.FOLLOWER
    rig.membership.introduced(N3, 103, "n3", ("http://n3:7379",))
    rig.turn(is_applying=False)
    assert not rig.raft.proposed
    rig.raft.role, rig.raft.term = Role.LEADER, 3
    rig.turn(is_applying=False)
    assert not rig.raft.proposed, "S12: nothing of its own term is applied yet"
    rig.apply(NOOP)
    rig.turn()
    assert rig.machine.members[N3].incarnation == 103


def test_nothing_is_changed_before_there_is_a_cluster() -> None:
    rig = Rig()
    machine = StateMachine(MemoryBackend())
    machine.apply(1, 2, NOOP)
    rig.membership.machine = machine
    rig.ask(ADD, ["http://n4:7380"])
    rig.turn(is_applying=False)
    assert not rig.raft.proposed
    assert not rig.answers


# ---- adding


def test_what_is_added_begins_as_a_learner_and_votes_when_it_has_caught_up() -> None:
    rig = Rig()
    new, everybody = rig.change(ADD, ["http://n4:7380"])
    assert new == [50, "", ["http://n4:7380"], [], True, 0, True]
    assert [row[0] for row in everybody] == [N1, N2, N3, 50]
    assert rig.configuration().voters == ids(N1, N2, N3)

    rig.membership.introduced(50, 150, "n4", ())
    rig.raft.last_index, rig.raft.matches[50] = 20_000, 0
    for rig.now in (0.5, 1.0):
        rig.turn()
    assert rig.configuration().learners == ids(50)
    for rig.raft.last_index, rig.raft.matches[50] in ((20_000, 17_000), (60_000, 54_500)):
        rig.now += 1.0
        rig.turn()
        assert rig.configuration().learners == ids(50)
    rig.raft.matches[50] = 55_000
    rig.now += 1.0
    rig.turn()
    assert rig.configuration() == Configuration(ids(N1, N2, N3, 50))
    assert [fields["member"] for fields in rig.told("promoted")] == [50]
    assert rig.told("added") == [{"member": 50, "name": "", "peer_urls": ["http://n4:7380"], "learner": True}]


def test_what_is_added_as_a_learner_stays_one() -> None:
    rig = Rig()
    rig.change(ADD, ["http://n4:7380"], True)
    rig.membership.introduced(50, 150, "n4", ())
    rig.now = 5.0
    rig.turn()
    assert rig.configuration().learners == ids(50)


def test_a_learner_that_is_gone_is_not_promoted() -> None:
    rig = Rig()
    rig.change(ADD, ["http://n4:7380"])
    rig.membership.introduced(50, 150, "n4", ())
    rig.raft.inactive.add(50)
    rig.now = 5.0
    rig.turn()
    assert rig.configuration().learners == ids(50)


def test_a_removed_id_never_returns() -> None:
    rig = Rig()
    rig.ids = iter((N3, N2, 61))
    rig.change(REMOVE, [N3])
    assert rig.change(ADD, ["http://n3:7380"])[0][0] == 61


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([["http://n2:7380"]], "FailedPrecondition: etcdserver: Peer URLs already exists"),
        ([["n2:7380"]], "FailedPrecondition: etcdserver: Peer URLs already exists"),
        ([[]], "InvalidArgument: etcdserver: given member URLs are invalid"),
        ([["http://n4"]], "InvalidArgument: etcdserver: given member URLs are invalid"),
        ([["http://n4:1", "n4:1"]], "InvalidArgument: etcdserver: given member URLs are invalid"),
        ([[7]], "InvalidArgument: etcdserver: given member URLs are invalid"),
        ([[b"http://n4:1"]], "InvalidArgument: etcdserver: given member URLs are invalid"),
        (
            [[f"http://n4:{port}" for port in range(1, 30)]],
            "InvalidArgument: etcdserver: given member URLs are invalid",
        ),
        ([], "InvalidArgument: coord: member_add lacks peer URLs"),
        (["http://n4:1"], "InvalidArgument: coord: peer URLs of member_add must be an array, not a text string"),
        ([["http://n4:1"], False, 1], "Unimplemented: coord: this release knows no item 3 of member_add"),
    ],
)
def test_add_is_refused(arguments: list[Any], text: str) -> None:
    assert Rig().refused(ADD, *arguments) == text


def test_add_is_refused_while_a_voter_is_missing() -> None:
    rig = Rig()
    rig.raft.inactive.add(N2)
    assert rig.refused(ADD, ["http://n4:7380"]).startswith("Unavailable: etcdserver: unhealthy cluster: n2 cannot be")
    assert rig.told("refused")[0]["change"] == "member_add"


def test_add_is_refused_while_too_few_have_started() -> None:
    rig = Rig(member(N1), member(N2, 0))
    text = "FailedPrecondition: etcdserver: re-configuration failed due to not enough started members"
    assert rig.refused(ADD, ["http://n4:7380"]) == text
    lone = Rig(member(N1))
    assert lone.change(ADD, ["http://n4:7380"])[0][0] == 50


def test_learners_are_bounded() -> None:
    rig = Rig()
    for number in range(LEARNERS_MAX):
        rig.change(ADD, [f"http://l{number}:1"], True)
    assert rig.refused(ADD, ["http://n4:1"]) == ("FailedPrecondition: etcdserver: too many learner members in cluster")


# ---- promoting


def with_learner(**more: Any) -> Rig:
    return Rig(member(N1), member(N2), member(N3), member(N4, is_learner=True, **more))


def test_promote() -> None:
    rig = with_learner()
    rig.raft.last_index, rig.raft.matches[N4] = 100, 90
    assert [row[4] for row in rig.change(PROMOTE, N4)] == [False] * 4
    assert rig.configuration().voters == ids(N1, N2, N3, N4)


@pytest.mark.parametrize(
    ("who", "match", "text"),
    [
        (N5, 100, "NotFound: etcdserver: member not found"),
        (N2, 100, "FailedPrecondition: etcdserver: can only promote a learner member"),
        (N4, 89, "FailedPrecondition: etcdserver: can only promote a learner member which is in sync with leader"),
    ],
)
def test_promote_is_refused(who: int, match: int, text: str) -> None:
    rig = with_learner()
    rig.raft.last_index, rig.raft.matches[N4] = 100, match
    assert rig.refused(PROMOTE, who) == text


def test_promote_is_refused_for_whom_nobody_hears_or_knows() -> None:
    rig = with_learner()
    rig.raft.inactive.add(N4)
    assert "in sync with leader" in rig.refused(PROMOTE, N4)
    assert "in sync with leader" in with_learner(incarnation=0).refused(PROMOTE, N4)


# ---- removing


def test_remove() -> None:
    rig = Rig()
    assert [row[0] for row in rig.change(REMOVE, [N3])] == [N1, N2]
    assert rig.roster() == Roster((member(N1), member(N2)), frozenset(), ids(N3))
    assert rig.told("removed") == [{"member": N3, "name": "n3"}]


def test_several_leave_by_a_joint_configuration() -> None:
    """Thesis §4.3: two voters at once could otherwise give two quorums that share nobody."""
    rig = Rig(*(member(number) for number in (N1, N2, N3, N4, N5)), member(6, is_learner=True))
    rig.ask(REMOVE, [N4, 6, N5, N4])
    rig.turn(is_applying=False)
    rig.commit()
    assert rig.configuration() == Configuration(ids(N1, N2, N3), frozenset(), ids(N1, N2, N3, N4, N5))
    assert [row[0] for row in rig.answers.pop()] == [N1, N2, N3]
    rig.turn()
    assert rig.configuration() == Configuration(ids(N1, N2, N3))
    assert rig.machine.removed == ids(N4, N5, 6)


def test_who_leaves_is_known_from_the_proposal_on() -> None:
    """Behind that entry a leader takes no more of them: they would never learn what became of it."""
    rig = Rig()
    assert not rig.membership.is_leaving(N3)
    rig.ask(REMOVE, [N3])
    rig.turn(is_applying=False)
    assert [rig.membership.is_leaving(who) for who in (N1, N2, N3)] == [False, False, True]
    rig.commit()
    rig.turn()
    assert [rig.membership.is_leaving(who) for who in (N1, N2, N3)] == [False, False, True]


def test_a_new_leader_leaves_the_joint_configuration_that_it_finds() -> None:
    rig = Rig()
    rig.apply(encode_members(Roster((member(N1), member(N2), member(N3)), ids(N1, N2, N3), ids(N2, N3))))
    rig.turn()
    assert rig.roster() == Roster((member(N1),), frozenset(), ids(N2, N3))


NOT_ENOUGH = "FailedPrecondition: etcdserver: re-configuration failed due to not enough started members"


@pytest.mark.parametrize(
    ("who", "text"),
    [
        ([N5], "NotFound: etcdserver: member not found"),
        ([N1, N2, N3], NOT_ENOUGH),
        ([], "InvalidArgument: coord: member-remove needs the ids of members"),
        (["n2"], "InvalidArgument: coord: member-remove needs the ids of members"),
    ],
)
def test_remove_is_refused(who: list[Any], text: str) -> None:
    assert Rig().refused(REMOVE, who) == text


def test_remove_of_a_started_member_is_refused_if_the_rest_has_not_started() -> None:
    assert Rig(member(N1), member(N2), member(N3, 0)).refused(REMOVE, [N2]) == NOT_ENOUGH


def test_remove_is_refused_if_the_rest_is_not_heard_but_the_dead_may_go() -> None:
    rig = Rig()
    rig.raft.inactive.add(N3)
    assert rig.refused(REMOVE, [N2]).startswith("Unavailable: etcdserver: unhealthy cluster: of the 2 voters")
    assert len(rig.change(REMOVE, [N3])) == 2


def test_a_member_that_was_removed_is_not_found() -> None:
    rig = Rig()
    rig.change(REMOVE, [N3])
    assert rig.refused(REMOVE, [N3]) == "NotFound: etcdserver: member not found"


def test_a_leader_that_is_to_go_hands_over_first() -> None:
    rig = Rig()
    rig.raft.matches[N2] = 0
    rig.ask(REMOVE, [N1])
    rig.turn()
    assert rig.raft.transferees == [N3], "to the voter that stays and has most"
    assert not rig.answers
    rig.raft.role, rig.raft.leader_id = Role.FOLLOWER, N3
    rig.turn()
    assert isinstance(rig.answers[0], NotLeader), "whoever asks, asks the new leader"


def test_nothing_is_changed_while_the_lead_is_handed_over() -> None:
    rig = Rig()
    rig.ask(MOVE, N3)
    rig.ask(REMOVE, [N2])
    for _ in range(3):
        rig.turn(is_applying=False)
    assert not rig.raft.proposed
    rig.now = 2.0
    rig.turn()
    assert [isinstance(answer, ApiError) for answer in rig.answers] == [True, False]


def test_a_leader_that_cannot_hand_over_stays() -> None:
    rig = Rig()
    rig.ask(REMOVE, [N1])
    rig.turn()
    rig.now = 2.0
    rig.turn()
    assert "no other voter can take the lead over" in rig.answers.pop().text
    rig.raft.refuses_transfer = True
    assert "no other voter can take the lead over" in rig.refused(REMOVE, [N1])
    assert rig.change(REMOVE, [N2])


# ---- updating


def test_update() -> None:
    rig = Rig()
    answer = rig.change(UPDATE, N2, ["http://new:7380"])
    assert [row[2] for row in answer] == [["http://n1:7380"], ["http://new:7380"], ["http://n3:7380"]]
    assert rig.machine.members[N2] == evolve(member(N2), peer_urls=("http://new:7380",))
    assert rig.told("updated") == [{"member": N2, "peer_urls": ["http://new:7380"]}]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([N5, ["http://x:1"]], "NotFound: etcdserver: member not found"),
        ([N2, ["http://n3:7380"]], "FailedPrecondition: etcdserver: Peer URLs already exists"),
        ([N2, ["nonsense"]], "InvalidArgument: etcdserver: given member URLs are invalid"),
        ([N2], "InvalidArgument: coord: member_update lacks peer URLs"),
    ],
)
def test_update_is_refused(arguments: list[Any], text: str) -> None:
    assert Rig().refused(UPDATE, *arguments) == text


# ---- moving the lead


def moved(rig: Rig, to: int, leader_id: int) -> Any:
    rig.ask(MOVE, to)
    rig.turn()
    assert not rig.answers
    rig.raft.leader_id = leader_id
    rig.raft.role = Role.LEADER if leader_id == N1 else Role.FOLLOWER
    rig.now = 2.5
    rig.turn()
    return rig.answers.pop()


def test_move_leader() -> None:
    rig = Rig()
    assert moved(rig, N3, N3) == N3
    assert rig.raft.transferees == [N3]
    assert moved(Rig(), 0, N2) == N2
    assert Rig().change(MOVE, N1) == N1


@pytest.mark.parametrize("leader_id", [N1, N2, 0])
def test_a_lead_that_went_elsewhere_or_nowhere_is_told(leader_id: int) -> None:
    error = moved(Rig(), N3, leader_id)
    assert isinstance(error, ApiError)
    assert error.text.startswith("etcdserver: request timed out, leader transfer took too long")


def test_move_leader_is_refused() -> None:
    text = "FailedPrecondition: etcdserver: bad leader transferee"
    assert with_learner().refused(MOVE, N4) == text
    assert Rig().refused(MOVE, N5) == text
    rig = Rig()
    rig.raft.refuses_transfer = True
    assert rig.refused(MOVE, N2) == text


# ---- one at a time, and what becomes of those who wait


def test_the_next_change_waits_until_the_last_is_applied() -> None:
    """S12: both would be judged by a roster that the other changes."""
    rig = Rig()
    rig.ask(REMOVE, [N2])
    rig.ask(REMOVE, [N3])
    for _ in range(3):
        rig.turn(is_applying=False)
    assert len(rig.raft.proposed) == 1
    rig.turn()
    assert [len(answer) for answer in rig.answers] == [2, 1]


def test_a_change_that_raft_puts_off_is_tried_again() -> None:
    rig = Rig()
    rig.raft.is_busy = True
    rig.ask(REMOVE, [N2])
    rig.turn()
    assert not rig.answers
    rig.raft.is_busy = False
    rig.turn()
    assert len(rig.answers.pop()) == 2


def test_nothing_is_done_where_nobody_leads() -> None:
    rig = Rig()
    rig.raft.role = Role.FOLLOWER
    assert rig.refused(REMOVE, [N2]) == "FailedPrecondition: etcdserver: not leader"


@pytest.mark.parametrize("is_longer", [True, False])
def test_an_overwritten_change_has_an_unknown_outcome(is_longer: bool) -> None:
    """S13: an entry of another term at its index is not its own; nor does it wait for ever for an index that is cut."""
    rig = Rig()
    rig.raft.last_index = 1 if is_longer else 5
    rig.ask(REMOVE, [N2])
    rig.turn(is_applying=False)
    rig.raft.proposed.clear()
    rig.raft.role, rig.raft.term = Role.FOLLOWER, 3
    rig.apply(encode_members(Roster((member(N1), member(N2)))))
    assert not rig.answers
    rig.turn()
    assert isinstance(rig.answers.pop(), OutcomeUnknown)
    rig.raft.role = Role.LEADER
    assert rig.change(REMOVE, [N2])


def test_a_change_of_a_lost_lead_may_still_be_answered() -> None:
    rig = Rig()
    rig.ask(REMOVE, [N2])
    rig.turn(is_applying=False)
    rig.raft.role, rig.raft.leader_id = Role.FOLLOWER, N3
    rig.turn(is_applying=False)
    assert not rig.answers
    rig.commit(term=2)
    assert len(rig.answers.pop()) == 2


def test_changes_that_wait_are_bounded() -> None:
    rig = Rig()
    rig.raft.is_busy = True
    for _ in range(MEMBER_CHANGES_PENDING_MAX + 1):
        rig.ask(REMOVE, [N2])
    assert [answer.text for answer in rig.answers] == ["etcdserver: too many requests"]


def test_every_node_tells_of_every_change() -> None:
    """Followers too, and whoever takes a snapshot."""
    rig = Rig()
    rig.raft.role = Role.FOLLOWER
    rig.apply(encode_members(Roster((evolve(member(N2), is_learner=True), member(N4)), frozenset(), ids(N1, N3))))
    rig.turn()
    rig.apply(encode_members(Roster((member(N2), evolve(member(N4), peer_urls=("http://x:1",))))))
    rig.turn()
    assert [event.rpartition(".")[2] for event, _ in rig.events] == [
        "removed", "removed", "added", "published", "promoted", "updated",
    ]  # fmt: skip

"""What a member says of a missing leader: whom it waits for, to everybody the same."""

from __future__ import annotations

from attrs import define, field

from coord.node.standing import Standing
from coord.observe.log import RecordingLog


@define
class Rig:
    """n1 of three, or of as many as there are `others`."""

    leader: int = 0
    linked: set[int] = field(factory=set)
    others: dict[int, str] = field(factory=lambda: {2: "n2", 3: "n3"})
    now: float = 50.0
    log: RecordingLog = field(factory=RecordingLog)
    told: list[str] = field(factory=list)
    standing: Standing = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.standing = Standing(
            name="n1",
            leader_id=lambda: self.leader,
            others=lambda: self.others,
            is_linked=lambda member: member in self.linked,
            clock=lambda: self.now,
            log=self.log,
            election_s=1.0,
            on_leaderless=self.told.append,
        )

    def tick(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.standing.tick()


def test_the_error_names_whom_a_member_without_a_quorum_waits_for() -> None:
    rig = Rig()
    assert rig.standing.no_leader().text == "etcdserver: no leader: n1 waits for n2, n3"
    rig.linked = {2}
    assert rig.standing.no_leader().text == "etcdserver: no leader: an election is under way, n1 does not reach n3"
    rig.linked = {2, 3}
    assert rig.standing.no_leader().text == "etcdserver: no leader: an election is under way"
    rig.others = {}
    assert rig.standing.no_leader().text == "etcdserver: no leader: an election is under way"


def test_two_of_four_are_no_quorum_and_a_member_without_a_name_has_its_id() -> None:
    rig = Rig(others={2: "n2", 3: "n3", 0xBEEF: ""}, linked={2})
    assert rig.standing.no_leader().text == "etcdserver: no leader: n1 waits for beef, n3"


def test_a_member_is_ready_once_it_has_caught_up_and_while_it_has_a_leader() -> None:
    """S29."""
    rig = Rig()
    assert "no leader" in str(rig.standing.why_not_ready())
    rig.leader = 2
    assert "n1 has not caught up" in str(rig.standing.why_not_ready())
    rig.standing.caught_up()
    assert rig.standing.why_not_ready() is None
    rig.leader = 0
    assert "no leader" in str(rig.standing.why_not_ready())
    rig.leader = 3
    assert rig.standing.why_not_ready() is None


def test_no_leader_for_an_election_timeout_is_told_at_every_tick_and_logged_now_and_then() -> None:
    """S30."""
    rig = Rig()
    rig.tick(0.9)
    assert rig.told == []
    rig.tick(0.5)
    assert set(rig.told) == {"etcdserver: no leader"}
    assert len(rig.told) >= 3
    assert [event["missing"] for event in rig.log.of("cluster.leader.missing")] == [["n2", "n3"]]
    rig.tick(60)
    assert len(rig.log.of("cluster.leader.missing")) == 3
    rig.leader = 2
    rig.tick(1)
    rig.told.clear()
    rig.leader = 0
    rig.tick(0.9)
    assert rig.told == [], "a new time without a leader is counted anew"

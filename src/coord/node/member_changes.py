"""What a change of members leads to, or why it is refused: etcd's checks and texts. Pure.

Every function takes the roster as the leader has applied it, with no change under way, and returns the next one; a
refusal is raised as an `ApiError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import evolve, frozen

from coord.config.addresses import parse_url
from coord.errors import ApiError, Code, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from coord.limits import LEARNER_LAG_ENTRIES_MAX, LEARNERS_MAX, PEER_URLS_MAX
from coord.protocol.entries import Member, Roster

Introduced = tuple[int, str, tuple[str, ...]]
"""`(incarnation, name, client URLs)`, as a member's hello told."""

_IN_SYNC_PERCENT: Final = 90


class NotLeader(FailedPrecondition):
    """Nothing was done, because this member does not lead, or no longer; another one should be asked."""

    def __init__(self) -> None:
        super().__init__("etcdserver: not leader")


def unhealthy(why: str) -> ApiError:
    """Too few voters are heard for the change to be safe."""
    return Unavailable(f"etcdserver: unhealthy cluster: {why}")


def bad_transferee() -> ApiError:
    """Only another voter that is heard can take the lead over."""
    return FailedPrecondition("etcdserver: bad leader transferee")


def transfer_failed(leader_id: int) -> ApiError:
    """The lead did not go where it was to go; `leader_id` has it now."""
    text = "etcdserver: request timed out, leader transfer took too long"
    return Unavailable(f"{text}: member {leader_id:x} leads" if leader_id else text, code=Code.UNAVAILABLE)


def _not_found() -> ApiError:
    return NotFound("etcdserver: member not found")


def _not_enough_started() -> ApiError:
    return FailedPrecondition("etcdserver: re-configuration failed due to not enough started members")


@frozen
class View:
    """The cluster as its leader sees it: who was heard within an election timeout, itself included, and how far
    the others' logs are known to agree with its own, which ends at `last_index`."""

    roster: Roster
    active: frozenset[int]
    match: Mapping[int, int]
    last_index: int

    @property
    def voters(self) -> list[Member]:
        """Those who vote once two configurations are one again."""
        return voters_of(self.roster)

    def get(self, member_id: int) -> Member:
        """Return a member that stays; raise `NotFound`."""
        for member in self.roster.members:
            if member.id == member_id and member_id not in self.roster.removed:
                return member
        raise _not_found()

    def is_in_sync(self, member_id: int) -> bool:
        """Tell whether a learner is heard and its log is nearly the leader's."""
        match = self.match.get(member_id, 0)
        return member_id in self.active and match * 100 >= self.last_index * _IN_SYNC_PERCENT


def voters_of(roster: Roster) -> list[Member]:
    """Return the members that vote and are not about to leave."""
    return [member for member in roster.members if not member.is_learner and member.id not in roster.removed]


def add(view: View, peer_urls: Sequence[Any], is_learner: bool, new_id: Callable[[], int]) -> tuple[Roster, Member]:
    """Return the roster with a new member, and that one; it begins as a learner in any case.

    A voter that has no data yet could hold up every commit; so one that is to vote is promoted when it has caught up.
    """
    roster = view.roster
    urls = _checked_urls(peer_urls)
    if not is_learner:
        _check_started(view.voters, more=1)
    if missing := [voter for voter in view.voters if voter.id not in view.active]:
        raise unhealthy(f"{_names(missing)} cannot be reached; remove a dead member before adding another")
    _check_unused(roster, urls, 0)
    if sum(member.is_learner for member in roster.members) >= LEARNERS_MAX:
        raise FailedPrecondition("etcdserver: too many learner members in cluster")
    # S1: an id never returns, for some of what was said under it may still be on its way.
    taken = {member.id for member in roster.members} | roster.removed
    while (member_id := new_id()) in taken:
        pass
    member = Member(member_id, "", urls, (), is_learner=True, becomes_voter=not is_learner)
    return evolve(roster, members=(*roster.members, member)), member


def remove(view: View, ids: Sequence[int]) -> Roster:
    """Return the roster without these members; a joint one if more than one voter leaves (thesis §4.3)."""
    roster = view.roster
    leaving = {view.get(member_id).id for member_id in ids}
    staying = [voter for voter in view.voters if voter.id not in leaving]
    leaving_voters = [voter for voter in view.voters if voter.id in leaving]
    if leaving_voters:
        _check_started(staying)
        heard = sum(voter.id in view.active for voter in staying)
        if heard < len(staying) // 2 + 1:
            raise unhealthy(f"of the {len(staying)} voters that would stay only {heard} can be reached")
    is_joint = len(leaving_voters) > 1
    gone = leaving - {voter.id for voter in leaving_voters} if is_joint else leaving
    return Roster(
        tuple(member for member in roster.members if member.id not in gone),
        frozenset(voter.id for voter in view.voters) if is_joint else frozenset(),
        roster.removed | leaving,
    )


def leave_joint(roster: Roster) -> Roster:
    """Return the roster in which the new configuration stands alone (thesis §4.3)."""
    staying = tuple(member for member in roster.members if member.id not in roster.removed)
    return Roster(staying, frozenset(), roster.removed)


def update(view: View, member_id: int, peer_urls: Sequence[Any]) -> Roster:
    """Return the roster with other peer URLs for a member."""
    member = view.get(member_id)
    urls = _checked_urls(peer_urls)
    _check_unused(view.roster, urls, member_id)
    return _replaced(view.roster, evolve(member, peer_urls=urls))


def promote(view: View, member_id: int) -> Roster:
    """Return the roster in which a learner votes."""
    member = view.get(member_id)
    if not member.is_learner:
        raise FailedPrecondition("etcdserver: can only promote a learner member")
    # S1: a member whose incarnation is not published counts in no quorum.
    if not member.incarnation or not view.is_in_sync(member_id):
        raise FailedPrecondition("etcdserver: can only promote a learner member which is in sync with leader")
    _check_started([*view.voters, member])
    return _replaced(view.roster, evolve(member, is_learner=False, becomes_voter=False))


def next_voter(view: View) -> Roster | None:
    """Return the roster in which a learner that was added to vote does, if one has caught up."""
    for member in view.roster.members:
        is_close = view.last_index - view.match.get(member.id, 0) <= LEARNER_LAG_ENTRIES_MAX
        if member.becomes_voter and is_close:
            try:
                return promote(view, member.id)
            except ApiError:
                continue
    return None


def publish(roster: Roster, introduced: Mapping[int, Introduced]) -> Roster | None:
    """Return the roster with what members told of themselves, or None if it is all there (S1).

    An incarnation is published once; another one under the same id is refused where it says hello.
    """
    changed = roster
    for member in roster.members:
        incarnation, name, client_urls = introduced.get(member.id, (0, "", ()))
        if not incarnation or member.incarnation not in (0, incarnation):
            continue
        told = evolve(member, incarnation=incarnation, name=name, client_urls=client_urls)
        if told != member:
            changed = _replaced(changed, told)
    return changed if changed is not roster else None


def _check_started(voters: Sequence[Member], more: int = 0) -> None:
    """Refuse a configuration in which members that never joined could keep a quorum from forming.

    `more` voters are on their way; one beside a lone voter is allowed, as in etcd.
    """
    started = sum(bool(voter.incarnation) for voter in voters)
    size = len(voters) + more
    if not (more and started == 1 and size == 2) and started < size // 2 + 1:
        raise _not_enough_started()


def _check_unused(roster: Roster, urls: tuple[str, ...], member_id: int) -> None:
    for member in roster.members:
        if member.id != member_id and set(urls).intersection(member.peer_urls):
            raise FailedPrecondition("etcdserver: Peer URLs already exists")


def _checked_urls(peer_urls: Sequence[Any]) -> tuple[str, ...]:
    try:
        urls = tuple(str(parse_url(url)) for url in peer_urls)
    except (ValueError, TypeError, AttributeError):
        urls = ()
    if not urls or len(set(urls)) != len(urls) or len(urls) > PEER_URLS_MAX:
        raise InvalidArgument("etcdserver: given member URLs are invalid")
    return urls


def _replaced(roster: Roster, changed: Member) -> Roster:
    members = tuple(changed if member.id == changed.id else member for member in roster.members)
    return evolve(roster, members=members)


def _names(members: Sequence[Member]) -> str:
    return ", ".join(member.name or f"{member.id:x}" for member in members)

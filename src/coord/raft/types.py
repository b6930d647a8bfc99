"""The words of consensus that the log on disk shares with it."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

Entry = tuple[int, int, bytes]
"""`(index, term, data)`; a tuple because one is made for every proposal."""


@frozen
class HardState:
    """What a member must remember (Raft thesis §3.8): written before any message that rests on it leaves.

    `vote` is the member voted for in `term`, 0 for none. `commit` is kept too, so that a restarted member applies the
    configuration it had committed before it campaigns (S12).
    """

    term: int = 0
    vote: int = 0
    commit: int = 0

    def voted_for(self, member: int) -> HardState:
        """Return the state with a vote for `member` in the same term."""
        return HardState(self.term, member, self.commit)


@frozen
class Configuration:
    """Who votes (thesis §4). `outgoing` holds the old voters while two configurations are joint (§4.3), else nothing.

    `blank` members have not had their incarnation published (S1): a blank voter is counted in the size of a quorum
    but never towards one, and a member that is blank itself neither votes nor campaigns.
    """

    voters: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()
    blank: frozenset[int] = frozenset()

    @property
    def is_joint(self) -> bool:
        """True while a majority of the old and of the new voters is needed."""
        return bool(self.outgoing)

    @property
    def members(self) -> frozenset[int]:
        """All to whom a leader sends the log."""
        return self.voters | self.outgoing | self.learners

    @property
    def all_voters(self) -> frozenset[int]:
        """The voters of both configurations."""
        return self.voters | self.outgoing

    def has_quorum(self, members: frozenset[int] | set[int]) -> bool:
        """Tell whether `members` are a majority of the voters, and of the old ones while joint."""
        # Asked a few times for each read: no loop over the sides.
        counted = members - self.blank if self.blank else members
        has_voters = 2 * len(self.voters & counted) > len(self.voters)
        return has_voters and (not self.outgoing or 2 * len(self.outgoing & counted) > len(self.outgoing))

    def sides(self) -> Iterator[frozenset[int]]:
        """Yield the voters, and while joint the old voters too: each side needs its own majority."""
        yield self.voters
        if self.outgoing:
            yield self.outgoing

"""How this member stands in its cluster: whether it has a leader, whom it misses, whether it has caught up.

Everything that clients, health checks and logs are told about a missing leader comes from here, so that all of them
name the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define

from coord import errors
from coord.errors import ApiError, Unavailable
from coord.node.consensus import Log

REMIND_S = 30.0
"""A member that stays without a leader says so again after this."""


@define
class Standing:
    """Looks at who leads, at every tick; `clock` is in seconds.

    `others` are the names of the other voters by id, from the flags before there is a cluster.
    """

    name: str
    leader_id: Callable[[], int]
    others: Callable[[], Mapping[int, str]]
    is_linked: Callable[[int], bool]
    clock: Callable[[], float]
    log: Log
    election_s: float
    on_leaderless: Callable[[str], None]
    """Called with the reason at every tick of a member that has had no leader for an election timeout (S30)."""
    has_caught_up: bool = False
    """A leader has confirmed once, since this start, that all applied here was current (S29)."""
    _leaderless_since: float | None = None
    _told_at: float | None = None

    def caught_up(self) -> None:
        """Note that a read round was confirmed and applied here."""
        self.has_caught_up = True

    def missing(self) -> list[str]:
        """Return the names of the other voters that this member has no link to."""
        return sorted(name or f"{member:x}" for member, name in self.others().items() if not self.is_linked(member))

    def no_leader(self) -> ApiError:
        """Return etcd's error, with what keeps this member from having a leader."""
        missing = self.missing()
        if not missing:
            return errors.no_leader("an election is under way")
        others = len(self.others())
        if others - len(missing) + 1 <= (others + 1) // 2:
            return errors.no_leader(f"{self.name} waits for {', '.join(missing)}")
        return errors.no_leader(f"an election is under way, {self.name} does not reach {', '.join(missing)}")

    def why_not_ready(self) -> ApiError | None:
        """Return why linearizable requests cannot be served here now, or None."""
        if not self.leader_id():
            return self.no_leader()
        if not self.has_caught_up:
            return Unavailable(f"etcdserver: {self.name} has not caught up with the leader since it started")
        return None

    def tick(self) -> None:
        """Say so where there has been no leader for an election timeout."""
        if self.leader_id():
            self._leaderless_since = self._told_at = None
            return
        now = self.clock()
        if self._leaderless_since is None:
            self._leaderless_since = now
        since_s = now - self._leaderless_since
        if since_s < self.election_s:
            return
        self.on_leaderless(errors.no_leader().text)
        if self._told_at is None or now - self._told_at >= REMIND_S:
            self._told_at = now
            self.log("cluster.leader.missing", ms=round(since_s * 1000, 1), missing=self.missing())

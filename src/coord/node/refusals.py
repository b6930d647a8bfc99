"""What the others' refusals mean for this member: when most of them will never let it in, it ends (S1).

A directory that was wiped, copied or put back from a backup stays what it is: a member that went on trying would only
fill the logs, and look like one that still may come up.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from coord.errors import DataDirError
from coord.protocol.hello import Refusal, RefusalCode
from coord.raft.types import Configuration

_ABOUT_ITS_DATA = {
    RefusalCode.OTHER_INCARNATION,
    RefusalCode.OLD_BOOT,
    RefusalCode.COPIED,
    RefusalCode.LOST_ENTRIES,
}
"""The others are final too, but about URLs and flags: a correction elsewhere may end them."""


@define
class Refusals:
    """Keeps who refuses this member for its data directory, until it lets it in."""

    member_id: int
    configuration: Callable[[], Configuration]
    _standing: dict[int, Refusal] = field(factory=dict)

    def refused(self, member: int, refusal: Refusal) -> None:
        """Learn what `member` answered to a hello."""
        if refusal.code in _ABOUT_ITS_DATA:
            self._standing[member] = refusal
        else:
            self._standing.pop(member, None)

    def let_in(self, member: int) -> None:
        """Learn that `member` took a hello."""
        self._standing.pop(member, None)

    def check(self) -> None:
        """Raise `DataDirError` with the remedy if most of the other voters refuse this data directory for good.

        With them this member could never be part of a quorum; a single one may be what is wrong itself.
        """
        if not self._standing:
            return
        others = self.configuration().all_voters - {self.member_id}
        against = [self._standing[member] for member in sorted(others & self._standing.keys())]
        if len(against) > len(others) // 2:
            raise DataDirError(f"{len(against)} of {len(others)} other voters refuse this member: {against[0].text}")

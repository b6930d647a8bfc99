"""The words of consensus that the log on disk shares with it."""

from __future__ import annotations

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

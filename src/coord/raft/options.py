"""What may be set about consensus, in ticks: the core has no clock."""

from __future__ import annotations

from attrs import frozen

from coord.limits import APPEND_BYTES_MAX, CATCH_UP_BYTES_PER_TICK, INFLIGHT_BYTES_MAX, INFLIGHT_MESSAGES_MAX


@frozen
class RaftOptions:
    """How often and how much. A tick is a fifth of a heartbeat: 20 ms by default.

    An election timeout is drawn from [`election_ticks`, 1.5 × `election_ticks`) anew for each leader, vote and
    campaign (thesis §3.4). `rank_ticks` keeps voters apart that learn at the same moment that the leader is gone (S10).
    """

    heartbeat_ticks: int = 5
    election_ticks: int = 50
    rank_ticks: int = 2
    inflight_messages: int = INFLIGHT_MESSAGES_MAX
    inflight_bytes: int = INFLIGHT_BYTES_MAX
    append_bytes_max: int = APPEND_BYTES_MAX
    catch_up_bytes: int = CATCH_UP_BYTES_PER_TICK

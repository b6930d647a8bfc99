"""What one seed runs: a random cluster, random sizes, a random subset of the faults (swarm testing)."""

from __future__ import annotations

from random import Random
from typing import Final

from attrs import evolve, frozen

from coord.raft.options import RaftOptions

MS: Final = 1_000
"""Simulated time is counted in microseconds."""

FAULTS: Final = (
    "crash",
    "power",
    "pause",
    "partition",
    "depose",
    "oneway",
    "mesh",
    "flap",
    "liar",
    "transfer",
    "members",
    "stop",
    "disk",
)
"""What a seed may enable; `raft_faults` tells what each does."""


@frozen
class SimOptions:
    """One seed's choices. Times are in microseconds, chances are per message or per action."""

    seed: int
    voters: int
    learners: int
    absent: int
    """Of the voters, how many come only after the cluster has begun, blank (S1)."""
    raft: RaftOptions
    tick_us: int
    steps: int
    faults: tuple[str, ...]
    fault_interval_us: int
    work_interval_us: int
    delay_us: tuple[int, int]
    loss: float
    duplication: float
    late: float
    """The chance of a message to be delayed by up to an election timeout or two."""
    is_fifo: bool
    disk_us: tuple[int, int]
    is_gathering: bool
    apply_us: tuple[int, int]
    flush_interval_us: int
    kept_entries: int
    snapshot_loss: float
    is_lazy: bool
    """Whether several inputs may share one `ready()`."""

    @property
    def election_us(self) -> int:
        """The shortest election timeout."""
        return self.raft.election_ticks * self.tick_us


def draw_options(seed: int, steps: int = 0) -> SimOptions:
    """Return what `seed` stands for; `steps` 0: as many as the seed says."""
    chance = Random(seed)
    pick = chance.choice
    voters = pick((1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7))
    faults = tuple(name for name in FAULTS if chance.random() < 0.4)
    heartbeat_ticks, election_ticks = pick(((1, 5), (1, 10), (2, 10), (2, 20), (5, 20), (5, 50)))
    raft = RaftOptions(
        heartbeat_ticks=heartbeat_ticks,
        election_ticks=election_ticks,
        rank_ticks=pick((1, 2)),
        inflight_messages=pick((1, 2, 8, 256)),
        inflight_bytes=pick((1, 64, 1 << 20)),
        append_bytes_max=pick((1, 40, 1 << 16)),
        # Of a chance of its own: what is drawn behind it stays what it was.
        catch_up_bytes=Random(~seed).choice((1, 40, 1 << 16)),
    )
    slow = pick((2 * MS, 10 * MS, 40 * MS))
    tick_us = 20 * MS
    quick_disk = (50, pick((200, 2 * MS, 20 * MS)))
    slow_disk = (MS, pick((50, 400)) * MS)
    options = SimOptions(
        seed=seed,
        voters=voters,
        learners=pick((0, 0, 0, 1, 2)),
        absent=chance.randrange((voters - 1) // 2 + 1) if chance.random() < 0.3 else 0,
        raft=raft,
        tick_us=tick_us,
        steps=steps or pick((2000, 4000, 8000)),
        faults=faults,
        fault_interval_us=pick((1, 4, 16)) * raft.election_ticks * tick_us // 4,
        work_interval_us=pick((2, 5, 20)) * MS,
        delay_us=(pick((100, 1 * MS)), slow),
        loss=pick((0.0, 0.0, 0.02, 0.2)),
        duplication=pick((0.0, 0.0, 0.05, 0.3)),
        late=pick((0.0, 0.0, 0.01, 0.05)),
        is_fifo=chance.random() < 0.5,
        disk_us=slow_disk if chance.random() < 0.15 else quick_disk,
        is_gathering=chance.random() < 0.6,
        apply_us=(50, pick((200, 5 * MS, 50 * MS))),
        flush_interval_us=pick((20, 200, 2000)) * MS,
        kept_entries=pick((0, 0, 3, 50)),
        snapshot_loss=pick((0.0, 0.2)),
        is_lazy=chance.random() < 0.5,
    )
    return _churn(options, chance) if chance.random() < 0.2 else options


def _churn(options: SimOptions, chance: Random) -> SimOptions:
    """Let leaders change while a slow disk still has the last one's entries in its queue."""
    raft = evolve(options.raft, heartbeat_ticks=1, election_ticks=5, rank_ticks=1)
    return evolve(
        options,
        voters=chance.choice((3, 5)),
        raft=raft,
        faults=("crash", "depose", "disk"),
        fault_interval_us=raft.election_ticks * options.tick_us // 2,
        work_interval_us=chance.choice((2, 20)) * MS,
        delay_us=(100, 2 * MS),
        loss=0.0,
        disk_us=(50, 2 * MS),
        is_gathering=chance.random() < 0.2,
    )

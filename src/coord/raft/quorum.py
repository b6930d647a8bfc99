"""Counting among the voters of one configuration, or of two that are joint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from coord.raft.types import Configuration


def agreed(configuration: Configuration, reached: Mapping[int, int]) -> int:
    """Return the greatest value that a quorum has reached, `reached` being each member's own value.

    Thus entries are committed (thesis §3.5). S12: while two configurations are joint a majority of each is needed
    (§4.3). S1: a blank voter has reached nothing, whatever it says.
    """
    blank = configuration.blank
    lowest = -1
    for side in configuration.sides():
        values = sorted([0 if member in blank else reached.get(member, 0) for member in side])
        if not values:
            return 0
        value = values[(len(values) - 1) // 2]
        if lowest < 0 or value < lowest:
            lowest = value
    return lowest


def completed(configuration: Configuration, having: Set[int], order: Iterable[int]) -> set[int]:
    """Return `having` with as few of `order`, the first ones, as make a quorum; with all of them if they make none."""
    members = set(having)
    for member in order:
        if configuration.has_quorum(members):
            break
        members.add(member)
    return members


def majority(configuration: Configuration) -> int:
    """Return how many of the (new) voters are a quorum, for log events."""
    return len(configuration.voters) // 2 + 1

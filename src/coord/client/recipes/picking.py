"""Choosing one of a service's instances. Pure but for the chance it is given."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Literal

from attrs import define, field

from coord.client.recipes.instances import Instance

Policy = Literal["round_robin", "random", "least_used"]


@define(eq=False)
class Picker:
    """Chooses by policy, and counts who is in use."""

    random: Random
    _last: str | None = None
    _in_use: Counter[str] = field(factory=Counter)

    def pick(
        self, instances: Sequence[Instance], policy: Policy, where: Callable[[Instance], bool] | None
    ) -> Instance | None:
        """Return one of `instances`, which are in the order of their addresses; None if there is none."""
        if where is not None:
            instances = [instance for instance in instances if where(instance)]
        if not instances:
            return None
        if policy == "random":
            return self.random.choice(instances)
        if policy == "least_used":
            least = min(self._in_use[instance.address] for instance in instances)
            instances = [instance for instance in instances if self._in_use[instance.address] == least]
        elif policy != "round_robin":
            raise ValueError(f"unknown policy {policy!r}: round_robin, random or least_used")
        return self._next(instances)

    def _next(self, instances: Sequence[Instance]) -> Instance:
        if self._last is None:
            # Clients that start together must not all begin with the same one.
            chosen = self.random.choice(instances)
        else:
            # By address, not by number: whoever comes or goes, nobody's turn is left out or doubled.
            place = bisect_right(instances, self._last, key=lambda instance: instance.address)
            chosen = instances[place % len(instances)]
        self._last = chosen.address
        return chosen

    @contextmanager
    def using(self, instance: Instance) -> Iterator[Instance]:
        """Count `instance` as in use for a while."""
        self._in_use[instance.address] += 1
        try:
            yield instance
        finally:
            self._in_use[instance.address] -= 1
            if not self._in_use[instance.address]:
                del self._in_use[instance.address]

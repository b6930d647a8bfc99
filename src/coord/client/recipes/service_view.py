"""What a program sees of a service: its instances, how old that knowledge is, and the choice among them. Pure.

The discoveries of both clients are such a view, each fed in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from random import Random

from coord.client.recipes.instances import Instance, decode_instance, service_prefix
from coord.client.recipes.picking import Picker, Policy
from coord.client.txn import Key, key_bytes
from coord.errors import NoInstance
from coord.types import KeyValue, Revision


class ServiceView:
    """The instances of `service` as they were last heard of; `clock` tells since when they may be old."""

    def __init__(self, service: Key, random: Random, clock: Callable[[], float]) -> None:
        self._service = key_bytes(service)
        self._prefix = service_prefix(service)
        self._picker = Picker(random)
        self._clock = clock
        self._decoded: dict[bytes, tuple[Revision, Instance | None]] = {}
        self._instances: tuple[Instance, ...] = ()
        self._version = 0
        self._stale_since: float | None = None

    @property
    def service(self) -> str:
        """The service's name."""
        return self._service.decode(errors="backslashreplace")

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The instances, one an address, in the order of their addresses."""
        return self._instances

    @property
    def version(self) -> int:
        """Counts how often the instances have changed in this view; for `changed`."""
        return self._version

    def __iter__(self) -> Iterator[Instance]:
        return iter(self._instances)

    def __len__(self) -> int:
        return len(self._instances)

    @property
    def is_stale(self) -> bool:
        """The cluster cannot be heard, so that the view may be old: it shows what was last known.

        A node that falls silent is found out within 10 s, one that has lost its leader within an election timeout.
        """
        return self._stale_since is not None

    @property
    def stale_since(self) -> float | None:
        """Since when it is stale, on the client's clock; None if it is not."""
        return self._stale_since

    def pick(self, policy: Policy = "round_robin", *, where: Callable[[Instance], bool] | None = None) -> Instance:
        """Return one of the instances; with `where`, one of those for which it is true.

        `round_robin` takes them in turn, from a random one on; `random` any; `least_used` the one that fewest blocks of
        `use` hold, in turn where several are equal. Raises `NoInstance`.
        """
        chosen = self._picker.pick(self._instances, policy, where)
        if chosen is None:
            raise NoInstance(self._why_none())
        return chosen

    def use(
        self, policy: Policy = "least_used", *, where: Callable[[Instance], bool] | None = None
    ) -> AbstractContextManager[Instance]:
        """Pick an instance for the length of a `with` block, so that `least_used` counts it. Raises `NoInstance`."""
        return self._picker.using(self.pick(policy, where=where))

    def _show(self, kvs: Mapping[bytes, KeyValue]) -> bool:
        """Show the instances among `kvs`, all that stand below the prefix; return whether they have changed.

        An instance that was restarted, or lost its lease, stands there twice until its old lease has expired: the
        newest tells what is so now.
        """
        # Decoding all of a large service whenever one comes or goes would cost more than all else.
        self._decoded = {
            kv.key: known
            if (known := self._decoded.get(kv.key)) is not None and known[0] == kv.mod_revision
            else (kv.mod_revision, decode_instance(self._prefix, kv))
            for kv in kvs.values()
        }
        found: dict[str, Instance] = {}
        for _, instance in self._decoded.values():
            if instance is None:
                continue
            other = found.get(instance.address)
            if other is None or other.revision < instance.revision:
                found[instance.address] = instance
        before, self._instances = self._instances, tuple(found[address] for address in sorted(found))
        is_changed = before != self._instances
        self._version += is_changed
        return is_changed

    def _note_live(self, is_live: bool) -> None:
        if is_live:
            self._stale_since = None
        elif self._stale_since is None:
            self._stale_since = self._clock()

    def _why_none(self) -> str:
        if self._instances:
            return f"no instance of {self.service} suits: {len(self)} are registered, none of them as wanted"
        if self._stale_since is None:
            return f"no instance of {self.service} is registered"
        age_s = self._clock() - self._stale_since
        return f"no instance of {self.service} was registered when the cluster was last heard, {age_s:.1f} s ago"

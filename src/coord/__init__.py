"""coord: a strongly consistent coordination service, and its client.

`coord.connect` opens the Trio client, `coord.connect_sync` the blocking one. Names are loaded when they are
first used, so that a script that needs the blocking client does not wait for Trio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coord.client import op
    from coord.client.blocking import BlockingClient, connect_sync
    from coord.client.client import Client, connect
    from coord.client.recipes.barrier import Barrier, DoubleBarrier
    from coord.client.recipes.blocking_barrier import BlockingBarrier, BlockingDoubleBarrier
    from coord.client.recipes.blocking_discovery import BlockingDiscovery
    from coord.client.recipes.blocking_leadership import BlockingLeadership
    from coord.client.recipes.blocking_observation import BlockingObservation
    from coord.client.recipes.blocking_ownership import BlockingLock
    from coord.client.recipes.blocking_queue import BlockingQueue
    from coord.client.recipes.blocking_registration import BlockingRegistration
    from coord.client.recipes.blocking_session import BlockingSession
    from coord.client.recipes.discovery import Discovery
    from coord.client.recipes.instances import Instance
    from coord.client.recipes.leadership import Leadership
    from coord.client.recipes.observation import Observation
    from coord.client.recipes.owners import Owner
    from coord.client.recipes.ownership import Lock
    from coord.client.recipes.queue import Queue
    from coord.client.recipes.registration import Registration
    from coord.client.recipes.session import Session
    from coord.client.responses import RangeResponse
    from coord.client.txn import create_revision, lease_of, mod_revision, value, version
    from coord.client.watch import Watch
    from coord.types import Event, EventType, KeyValue, SortOrder, SortTarget

__version__ = "0.1.0"

_HOMES = {
    "Barrier": "coord.client.recipes.barrier",
    "BlockingBarrier": "coord.client.recipes.blocking_barrier",
    "BlockingClient": "coord.client.blocking",
    "BlockingDiscovery": "coord.client.recipes.blocking_discovery",
    "BlockingDoubleBarrier": "coord.client.recipes.blocking_barrier",
    "BlockingLeadership": "coord.client.recipes.blocking_leadership",
    "BlockingLock": "coord.client.recipes.blocking_ownership",
    "BlockingObservation": "coord.client.recipes.blocking_observation",
    "BlockingQueue": "coord.client.recipes.blocking_queue",
    "BlockingRegistration": "coord.client.recipes.blocking_registration",
    "BlockingSession": "coord.client.recipes.blocking_session",
    "Client": "coord.client.client",
    "Discovery": "coord.client.recipes.discovery",
    "DoubleBarrier": "coord.client.recipes.barrier",
    "Event": "coord.types",
    "EventType": "coord.types",
    "Instance": "coord.client.recipes.instances",
    "KeyValue": "coord.types",
    "Leadership": "coord.client.recipes.leadership",
    "Lock": "coord.client.recipes.ownership",
    "Observation": "coord.client.recipes.observation",
    "Owner": "coord.client.recipes.owners",
    "Queue": "coord.client.recipes.queue",
    "RangeResponse": "coord.client.responses",
    "Registration": "coord.client.recipes.registration",
    "Session": "coord.client.recipes.session",
    "SortOrder": "coord.types",
    "SortTarget": "coord.types",
    "Watch": "coord.client.watch",
    "connect": "coord.client.client",
    "connect_sync": "coord.client.blocking",
    "create_revision": "coord.client.txn",
    "lease_of": "coord.client.txn",
    "mod_revision": "coord.client.txn",
    "value": "coord.client.txn",
    "version": "coord.client.txn",
}

__all__ = [
    "Barrier",
    "BlockingBarrier",
    "BlockingClient",
    "BlockingDiscovery",
    "BlockingDoubleBarrier",
    "BlockingLeadership",
    "BlockingLock",
    "BlockingObservation",
    "BlockingQueue",
    "BlockingRegistration",
    "BlockingSession",
    "Client",
    "Discovery",
    "DoubleBarrier",
    "Event",
    "EventType",
    "Instance",
    "KeyValue",
    "Leadership",
    "Lock",
    "Observation",
    "Owner",
    "Queue",
    "RangeResponse",
    "Registration",
    "Session",
    "SortOrder",
    "SortTarget",
    "Watch",
    "connect",
    "connect_sync",
    "create_revision",
    "lease_of",
    "mod_revision",
    "op",
    "value",
    "version",
]


def __getattr__(name: str) -> Any:
    if name == "op":
        return import_module("coord.client.op")
    if name not in _HOMES:
        raise AttributeError(f"module 'coord' has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The rows that `simple` and `table` show of members and endpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from coord.cli.output.printer import EndpointHash, EndpointStatus
from coord.client import responses as r

if TYPE_CHECKING:
    from coord.client.recipes.instances import Instance

MEMBER_HEADER: Final = ("ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner")
HEALTH_HEADER: Final = ("endpoint", "health", "took", "error")
HASH_HEADER: Final = ("endpoint", "hash")
STATUS_HEADER: Final = (
    "endpoint",
    "ID",
    "version",
    "db size",
    "is leader",
    "is learner",
    "raft term",
    "raft index",
    "raft applied index",
    "errors",
)
INSTANCE_HEADER: Final = ("address", "metadata", "lease")
_UNITS: Final = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"))

Row = Sequence[str]


def member_rows(response: r.MemberListResponse) -> list[Row]:
    """Return a row for each member; one that never started has no name."""
    return [
        (
            f"{member.id:x}",
            "started" if member.name else "unstarted",
            member.name,
            ",".join(member.peer_urls),
            ",".join(member.client_urls),
            go_bool(member.is_learner),
        )
        for member in response.members
    ]


def health_rows(healths: Sequence[r.Health]) -> list[Row]:
    """Return a row for each endpoint that was asked for its health."""
    return [(health.endpoint, go_bool(health.is_healthy), took(health), health.error) for health in healths]


def status_rows(statuses: Sequence[EndpointStatus]) -> list[Row]:
    """Return a row for each endpoint that was asked for its status."""
    return [
        (
            each.endpoint,
            f"{each.status.header.member_id:x}",
            each.status.version,
            human_bytes(each.status.db_size),
            go_bool(each.status.leader_id == each.status.header.member_id),
            go_bool(each.status.is_learner),
            str(each.status.raft_term),
            str(each.status.raft_index),
            str(each.status.raft_applied_index),
            ", ".join(each.status.errors),
        )
        for each in statuses
    ]


def hash_rows(hashes: Sequence[EndpointHash]) -> list[Row]:
    """Return a row for each endpoint that was asked for the hash of its history."""
    return [(each.endpoint, str(each.answer.hash)) for each in hashes]


def go_bool(value: bool) -> str:
    """Return `true` or `false`."""
    return "true" if value else "false"


def took(health: r.Health) -> str:
    """Return how long the answer took, or nothing if no connection came to be."""
    return go_duration(health.took_s) if health.took_s else ""


def go_duration(seconds: float) -> str:
    """Return a duration as Go writes it: `1.734999ms`, `2.5s`, `1m0.5s`."""
    nanoseconds = round(seconds * 1e9)
    unit_ns, unit = next((each for each in _UNITS if nanoseconds >= each[0]), (1, "ns" if nanoseconds else "s"))
    minutes, nanoseconds = divmod(nanoseconds, 60_000_000_000)
    whole, part = divmod(nanoseconds, unit_ns)
    digits = f"{part:0{len(str(unit_ns)) - 1}d}".rstrip("0") if part else ""
    amount = f"{whole}.{digits}{unit}" if digits else f"{whole}{unit}"
    if not minutes:
        return amount
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{amount}" if hours else f"{minutes}m{amount}"


def human_bytes(size: int) -> str:
    """Return a size in units of 1000, as people read it: `20 kB`, `1.5 MB`."""
    if size < 10:
        return f"{size} B"
    power = min(int(math.log(size, 1000) + 1e-12), 6)
    amount = math.floor(size / 1000**power * 10 + 0.5) / 10
    unit = ("B", "kB", "MB", "GB", "TB", "PB", "EB")[power]
    return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"


def instance_rows(instances: Sequence[Instance]) -> list[Row]:
    """Return a row for each instance of a service."""
    return [(one.address, metadata_text(one), f"{one.lease:016x}") for one in instances]


def metadata_text(instance: Instance) -> str:
    """Return what an instance tells of itself, as JSON; nothing if it tells nothing."""
    return json.dumps(dict(instance.metadata), ensure_ascii=False) if instance.metadata else ""

"""What a printer is: answers in, bytes out. Nothing here writes; the commands do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import frozen

from coord.client import responses as r
from coord.types import LeaseId

if TYPE_CHECKING:
    from coord.client.recipes.instances import Instance


@frozen
class WatchEvents:
    """What a watch got at once: the events of one revision, or none of them for word of progress.

    `canceled` ends the watch; `compact_revision` above 0 says that what it wanted is compacted away.
    """

    header: r.Header
    batch: r.Batch
    canceled: bool = False
    compact_revision: int = 0


@frozen
class EndpointStatus:
    """An endpoint, and how the node there stands."""

    endpoint: str
    status: r.StatusResponse


@frozen
class EndpointHash:
    """An endpoint, and the hash of the history there."""

    endpoint: str
    answer: r.HashKVResponse


@frozen
class RegistrationNews:
    """An instance that stands in the registry now, or does not, and why not."""

    service: str
    instance: Instance
    is_registered: bool
    why_not: str


@frozen
class ServiceNews:
    """The instances of a service, and which of them are new or other than before; `gone` are those that were."""

    instances: Sequence[Instance]
    came: Sequence[Instance]
    gone: Sequence[Instance]


class Printer(Protocol):
    """One format. Every method returns what is to be printed, whole lines."""

    def put(self, response: r.PutResponse) -> bytes:
        """Show a put."""

    def get(self, response: r.RangeResponse) -> bytes:
        """Show a range."""

    def delete(self, response: r.DeleteResponse) -> bytes:
        """Show a delete."""

    def txn(self, response: r.TxnResponse) -> bytes:
        """Show a transaction."""

    def watch(self, events: WatchEvents) -> bytes:
        """Show what a watch got."""

    def grant(self, response: r.LeaseGrantResponse) -> bytes:
        """Show a new lease."""

    def revoke(self, lease: LeaseId, response: r.LeaseRevokeResponse) -> bytes:
        """Show the end of a lease."""

    def keep_alive(self, response: r.LeaseKeepAliveResponse) -> bytes:
        """Show a renewal."""

    def time_to_live(self, response: r.LeaseTimeToLiveResponse, keys: bool) -> bytes:
        """Show what is left of a lease, with its keys if they were asked for."""

    def leases(self, response: r.LeaseLeasesResponse) -> bytes:
        """Show all leases."""

    def member_list(self, response: r.MemberListResponse) -> bytes:
        """Show the members."""

    def member_add(self, name: str, response: r.MemberAddResponse) -> bytes:
        """Show a new member, which is to be called `name`."""

    def member_remove(self, ids: Sequence[int], response: r.MemberRemoveResponse) -> bytes:
        """Show which members went."""

    def member_update(self, member_id: int, response: r.MemberUpdateResponse) -> bytes:
        """Show a member with other peer URLs."""

    def member_promote(self, member_id: int, response: r.MemberPromoteResponse) -> bytes:
        """Show a learner that votes now."""

    def move_leader(self, before: int, response: r.MoveLeaderResponse) -> bytes:
        """Show who leads, and who did `before`."""

    def alarms(self, response: r.AlarmResponse) -> bytes:
        """Show alarms."""

    def health(self, healths: Sequence[r.Health]) -> bytes:
        """Show which endpoints serve."""

    def status(self, statuses: Sequence[EndpointStatus]) -> bytes:
        """Show how the nodes stand."""

    def hash_kv(self, hashes: Sequence[EndpointHash]) -> bytes:
        """Show the hashes of the nodes' histories."""

    def registration(self, news: RegistrationNews) -> bytes:
        """Show that an instance is registered, or withdrawn."""

    def instances(self, news: ServiceNews) -> bytes:
        """Show who serves."""

    def changes(self, news: ServiceNews) -> bytes:
        """Show how that has changed."""


def text_lines(lines: Sequence[str]) -> bytes:
    """Return the lines as bytes, each ended; stray bytes of the command line come out as they went in."""
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")

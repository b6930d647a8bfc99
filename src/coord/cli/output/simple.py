"""The `simple` format: keys and values as they are, a line each, and sentences for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from coord.cli.output import rows
from coord.cli.output.printer import (
    EndpointHash,
    EndpointStatus,
    RegistrationNews,
    ServiceNews,
    WatchEvents,
    text_lines,
)
from coord.cli.quoting import quote
from coord.client import responses as r
from coord.types import KeyValue, LeaseId

if TYPE_CHECKING:
    from coord.client.recipes.instances import Instance


@frozen
class SimplePrinter:
    """Prints bytes raw, or as `\\x61` if `hex`; with `value_only` no keys."""

    hex: bool = False
    value_only: bool = False

    def put(self, response: r.PutResponse) -> bytes:
        """Show `OK`, and the pair before."""
        return b"OK\n" + self._pairs([response.prev_kv] if response.prev_kv else [])

    def get(self, response: r.RangeResponse) -> bytes:
        """Show the pairs."""
        return self._pairs(response.kvs)

    def delete(self, response: r.DeleteResponse) -> bytes:
        """Show how many keys went, and what they were."""
        return b"%d\n" % response.deleted + self._pairs(response.prev_kvs)

    def txn(self, response: r.TxnResponse) -> bytes:
        """Show which branch ran, and each of its answers after an empty line."""
        out = [b"SUCCESS\n" if response.succeeded else b"FAILURE\n"]
        for each in response.responses:
            out.append(b"\n")
            if isinstance(each, r.PutResponse):
                out.append(self.put(each))
            elif isinstance(each, r.DeleteResponse):
                out.append(self.delete(each))
            elif isinstance(each, r.RangeResponse):
                out.append(self.get(each))
            else:
                out.append(self.txn(each))
        return b"".join(out)

    def watch(self, events: WatchEvents) -> bytes:
        """Show each event: its type, the pair before if known, and the pair."""
        out = []
        for event in events.batch.events:
            out.append(event.type.name.encode() + b"\n")
            out.append(self._pairs([event.prev_kv, event.kv] if event.prev_kv else [event.kv]))
        return b"".join(out)

    def grant(self, response: r.LeaseGrantResponse) -> bytes:
        """Show the id and the TTL."""
        return text_lines([f"lease {response.id:016x} granted with TTL({response.ttl_s}s)"])

    def revoke(self, lease: LeaseId, response: r.LeaseRevokeResponse) -> bytes:
        """Show the id."""
        return text_lines([f"lease {lease:016x} revoked"])

    def keep_alive(self, response: r.LeaseKeepAliveResponse) -> bytes:
        """Show the id and the TTL."""
        return text_lines([f"lease {response.id:016x} keepalived with TTL({response.ttl_s})"])

    def time_to_live(self, response: r.LeaseTimeToLiveResponse, keys: bool) -> bytes:
        """Show what is left, and the keys."""
        if response.granted_ttl_s == 0 and response.ttl_s == -1:
            return text_lines([f"lease {response.id:016x} already expired"])
        line = (
            f"lease {response.id:016x} granted with TTL({response.granted_ttl_s}s), remaining({response.ttl_s}s)"
        ).encode()
        if keys:
            line += b", attached keys([" + b" ".join(response.keys) + b"])"
        return line + b"\n"

    def leases(self, response: r.LeaseLeasesResponse) -> bytes:
        """Show how many leases there are, and their ids."""
        return text_lines([f"found {len(response.leases)} leases", *(f"{lease:016x}" for lease in response.leases)])

    def member_list(self, response: r.MemberListResponse) -> bytes:
        """Show a line for each member."""
        return _comma_lines(rows.member_rows(response))

    def member_add(self, name: str, response: r.MemberAddResponse) -> bytes:
        """Show the id, and the settings to start the new member with."""
        # What never started has no name to be told by, and no word in what the new member learns.
        known = [member for member in response.members if member.name or member.id == response.member.id]
        cluster = [f"{member.name or name}={url}" for member in known for url in member.peer_urls]
        return text_lines(
            [
                _changed(response.member.id, "added to", response.header),
                "",
                f"COORD_NAME={quote(name)}",
                f"COORD_INITIAL_CLUSTER={quote(','.join(cluster))}",
                f"COORD_INITIAL_ADVERTISE_PEER_URLS={quote(','.join(response.member.peer_urls))}",
                'COORD_INITIAL_CLUSTER_STATE="existing"',
            ]
        )

    def member_remove(self, ids: Sequence[int], response: r.MemberRemoveResponse) -> bytes:
        """Show the ids."""
        return text_lines([_changed(member_id, "removed from", response.header) for member_id in ids])

    def member_update(self, member_id: int, response: r.MemberUpdateResponse) -> bytes:
        """Show the id."""
        return text_lines([_changed(member_id, "updated in", response.header)])

    def member_promote(self, member_id: int, response: r.MemberPromoteResponse) -> bytes:
        """Show the id."""
        return text_lines([_changed(member_id, "promoted in", response.header)])

    def move_leader(self, before: int, response: r.MoveLeaderResponse) -> bytes:
        """Show both ids."""
        return text_lines([f"Leadership transferred from {before:x} to {response.leader_id:x}"])

    def alarms(self, response: r.AlarmResponse) -> bytes:
        """Show a line for each alarm."""
        return text_lines([f"memberID:{each.member_id} alarm:{each.alarm.name} " for each in response.alarms])

    def health(self, healths: Sequence[r.Health]) -> bytes:
        """Show a sentence for each endpoint; the command sends it to stderr, as etcdctl does."""
        return text_lines(
            [
                f"{each.endpoint} is healthy: successfully committed proposal: took = {rows.took(each)}"
                if each.is_healthy
                else f"{each.endpoint} is unhealthy: failed to commit proposal: {each.error}"
                for each in healths
            ]
        )

    def status(self, statuses: Sequence[EndpointStatus]) -> bytes:
        """Show a line for each endpoint."""
        return _comma_lines(rows.status_rows(statuses))

    def hash_kv(self, hashes: Sequence[EndpointHash]) -> bytes:
        """Show a line for each endpoint."""
        return _comma_lines(rows.hash_rows(hashes))

    def registration(self, news: RegistrationNews) -> bytes:
        """Show the address, and the key or why there is none."""
        address = news.instance.address
        if news.is_registered:
            return text_lines([f"registered {address} as {news.instance.key.decode(errors='backslashreplace')}"])
        return text_lines([f"withdrawn {address}: {news.why_not}"])

    def instances(self, news: ServiceNews) -> bytes:
        """Show a line for each instance: its address, and its metadata if it has any."""
        return text_lines([_instance(one) for one in news.instances])

    def changes(self, news: ServiceNews) -> bytes:
        """Show a line for each instance that came, was changed or is gone."""
        return text_lines([*(f"- {one.address}" for one in news.gone), *(f"+ {_instance(one)}" for one in news.came)])

    def _pairs(self, pairs: Sequence[KeyValue]) -> bytes:
        out = []
        for pair in pairs:
            if not self.value_only:
                out.append(self._data(pair.key))
            out.append(self._data(pair.value))
        return b"".join(out)

    def _data(self, data: bytes) -> bytes:
        if self.hex:
            return b"".join(b"\\x%02x" % byte for byte in data) + b"\n"
        return data + b"\n"


def _instance(instance: Instance) -> str:
    metadata = rows.metadata_text(instance)
    return f"{instance.address} {metadata}" if metadata else instance.address


def _changed(member_id: int, what: str, header: r.Header) -> str:
    return f"Member {member_id:16x} {what} cluster {header.cluster_id:16x}"


def _comma_lines(lines: Sequence[rows.Row]) -> bytes:
    return text_lines([", ".join(row) for row in lines])

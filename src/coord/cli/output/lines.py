"""The `jsonl` format, coord's own: one object a line for each key, event, lease, member or endpoint.

Keys and values are text where they are UTF-8; where not, `key_base64` or `value_base64` stands in their place. Ids
of leases and members are hexadecimal, as the commands take them.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any

from coord.cli.output.documents import document, instance_object, registration_object
from coord.cli.output.printer import EndpointHash, EndpointStatus, RegistrationNews, ServiceNews, WatchEvents
from coord.client import responses as r
from coord.protocol.entries import Member
from coord.types import Event, KeyValue, LeaseId


class LinesPrinter:
    """Prints an object a line."""

    def put(self, response: r.PutResponse) -> bytes:
        """Show the revision, and the pair before."""
        return document(_put(response))

    def get(self, response: r.RangeResponse) -> bytes:
        """Show an object for each pair; for a count alone, the count."""
        if not response.kvs and response.count:
            return document({"count": response.count})
        return _lines(_pair(pair) for pair in response.kvs)

    def delete(self, response: r.DeleteResponse) -> bytes:
        """Show how many keys went, and an object for each if they were asked for."""
        head = {"deleted": response.deleted, "revision": response.header.revision}
        return _lines([head, *(_pair(pair) for pair in response.prev_kvs)])

    def txn(self, response: r.TxnResponse) -> bytes:
        """Show which branch ran, and an object for each of its answers."""
        head = {"succeeded": response.succeeded, "revision": response.header.revision}
        return _lines([head, *(_answer(each) for each in response.responses)])

    def watch(self, events: WatchEvents) -> bytes:
        """Show an object for each event."""
        if events.canceled:
            return document({"type": "CANCELED", "compact_revision": events.compact_revision})
        return _lines(_event(event) for event in events.batch.events) or document(
            {"type": "PROGRESS", "revision": events.batch.revision}
        )

    def grant(self, response: r.LeaseGrantResponse) -> bytes:
        """Show the id and the TTL."""
        return document({"id": f"{response.id:016x}", "ttl": response.ttl_s})

    def revoke(self, lease: LeaseId, response: r.LeaseRevokeResponse) -> bytes:
        """Show the id."""
        return document({"id": f"{lease:016x}", "revoked": True})

    def keep_alive(self, response: r.LeaseKeepAliveResponse) -> bytes:
        """Show the id and the TTL."""
        return document({"id": f"{response.id:016x}", "ttl": response.ttl_s})

    def time_to_live(self, response: r.LeaseTimeToLiveResponse, keys: bool) -> bytes:
        """Show what is left, and the keys."""
        line: dict[str, Any] = {
            "id": f"{response.id:016x}",
            "ttl": response.ttl_s,
            "granted_ttl": response.granted_ttl_s,
        }
        if keys:
            line["keys"] = [key.decode("utf-8", "backslashreplace") for key in response.keys]
        return document(line)

    def leases(self, response: r.LeaseLeasesResponse) -> bytes:
        """Show an object for each lease."""
        return _lines({"id": f"{lease:016x}"} for lease in response.leases)

    def member_list(self, response: r.MemberListResponse) -> bytes:
        """Show an object for each member."""
        return _lines(_member(member) for member in response.members)

    def member_add(self, name: str, response: r.MemberAddResponse) -> bytes:
        """Show the new member."""
        return document(_member(response.member) | {"name": name, "added": True})

    def member_remove(self, ids: Sequence[int], response: r.MemberRemoveResponse) -> bytes:
        """Show an object for each member that went."""
        return _lines({"id": f"{member_id:x}", "removed": True} for member_id in ids)

    def member_update(self, member_id: int, response: r.MemberUpdateResponse) -> bytes:
        """Show the member as it is now."""
        return _lines(_member(member) for member in response.members if member.id == member_id)

    def member_promote(self, member_id: int, response: r.MemberPromoteResponse) -> bytes:
        """Show the member as it is now."""
        return _lines(_member(member) for member in response.members if member.id == member_id)

    def move_leader(self, before: int, response: r.MoveLeaderResponse) -> bytes:
        """Show both ids."""
        return document({"leader": f"{response.leader_id:x}", "before": f"{before:x}"})

    def alarms(self, response: r.AlarmResponse) -> bytes:
        """Show an object for each alarm."""
        return _lines({"member": f"{each.member_id:x}", "alarm": each.alarm.name} for each in response.alarms)

    def health(self, healths: Sequence[r.Health]) -> bytes:
        """Show an object for each endpoint."""
        return _lines(
            {
                "endpoint": each.endpoint,
                "health": each.is_healthy,
                "took_ms": round(each.took_s * 1000, 3),
                "error": each.error,
            }
            for each in healths
        )

    def status(self, statuses: Sequence[EndpointStatus]) -> bytes:
        """Show an object for each endpoint."""
        return _lines(
            {
                "endpoint": each.endpoint,
                "id": f"{each.status.header.member_id:x}",
                "version": each.status.version,
                "db_size": each.status.db_size,
                "db_size_in_use": each.status.db_size_in_use,
                "db_size_quota": each.status.db_size_quota,
                "is_leader": each.status.leader_id == each.status.header.member_id,
                "is_learner": each.status.is_learner,
                "revision": each.status.header.revision,
                "raft_term": each.status.raft_term,
                "raft_index": each.status.raft_index,
                "raft_applied_index": each.status.raft_applied_index,
                "errors": each.status.errors,
            }
            for each in statuses
        )

    def hash_kv(self, hashes: Sequence[EndpointHash]) -> bytes:
        """Show an object for each endpoint."""
        return _lines(
            {
                "endpoint": each.endpoint,
                "hash": each.answer.hash,
                "compact_revision": each.answer.compact_revision,
                "hash_revision": each.answer.hash_revision,
            }
            for each in hashes
        )

    def registration(self, news: RegistrationNews) -> bytes:
        """Show what became of it."""
        return document(registration_object(news))

    def instances(self, news: ServiceNews) -> bytes:
        """Show an object for each instance."""
        return _lines(instance_object(one) for one in news.instances)

    def changes(self, news: ServiceNews) -> bytes:
        """Show an object for each instance that came, was changed or is gone."""
        gone = [{"type": "DOWN", "address": one.address} for one in news.gone]
        return _lines([*gone, *({"type": "UP"} | instance_object(one) for one in news.came)])


def _lines(objects: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(document(each) for each in objects)


def _text(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(data).decode()}


def _member(member: Member) -> dict[str, Any]:
    return {
        "id": f"{member.id:x}",
        "name": member.name,
        "peer_urls": list(member.peer_urls),
        "client_urls": list(member.client_urls),
        "is_learner": member.is_learner,
        "becomes_voter": member.becomes_voter,
    }


def _pair(pair: KeyValue) -> dict[str, Any]:
    return {
        **_text("key", pair.key),
        **_text("value", pair.value),
        "create_revision": pair.create_revision,
        "mod_revision": pair.mod_revision,
        "version": pair.version,
        **({"lease": f"{pair.lease:016x}"} if pair.lease else {}),
    }


def _event(event: Event) -> dict[str, Any]:
    line: dict[str, Any] = {"type": event.type.name, "revision": event.kv.mod_revision}
    if event.kv.version:
        line |= _pair(event.kv)
    else:
        line |= _text("key", event.kv.key)
    return line | ({"prev_kv": _pair(event.prev_kv)} if event.prev_kv else {})


def _put(response: r.PutResponse) -> dict[str, Any]:
    prev = {"prev_kv": _pair(response.prev_kv)} if response.prev_kv else {}
    return {"revision": response.header.revision, **prev}


def _answer(response: r.PutResponse | r.DeleteResponse | r.RangeResponse | r.TxnResponse) -> dict[str, Any]:
    if isinstance(response, r.PutResponse):
        return {"op": "put", **_put(response)}
    if isinstance(response, r.DeleteResponse):
        return {"op": "del", "deleted": response.deleted, "prev_kvs": [_pair(kv) for kv in response.prev_kvs]}
    if isinstance(response, r.RangeResponse):
        return {"op": "get", "count": response.count, "kvs": [_pair(kv) for kv in response.kvs]}
    inner = [_answer(each) for each in response.responses]
    return {"op": "txn", "succeeded": response.succeeded, "responses": inner}

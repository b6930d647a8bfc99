"""The `json` format: etcdctl's documents, one a line, keys and values in base64.

A field that is zero, empty or false is left out where etcdctl leaves it out, and stands where it stands.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from coord.cli.output.printer import EndpointHash, EndpointStatus, RegistrationNews, ServiceNews, WatchEvents
from coord.cli.output.rows import took
from coord.client import responses as r
from coord.protocol.entries import Member
from coord.types import Event, KeyValue, LeaseId

if TYPE_CHECKING:
    from coord.client.recipes.instances import Instance

_ESCAPED: Final = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


class JsonPrinter:
    """Prints one document for each answer."""

    def put(self, response: r.PutResponse) -> bytes:
        """Show `PutResponse`."""
        return document(_put(response, _header(response.header)))

    def get(self, response: r.RangeResponse) -> bytes:
        """Show `RangeResponse`."""
        return document(_range(response, _header(response.header)))

    def delete(self, response: r.DeleteResponse) -> bytes:
        """Show `DeleteRangeResponse`."""
        return document(_delete(response, _header(response.header)))

    def txn(self, response: r.TxnResponse) -> bytes:
        """Show `TxnResponse`."""
        return document(_txn(response, _header(response.header)))

    def watch(self, events: WatchEvents) -> bytes:
        """Show etcdctl's `WatchResponse`, whose fields have no names of their own."""
        header = _header(events.header)
        if events.canceled:
            header.pop("revision", None)
        return document(
            {
                "Header": header,
                "Events": [_event(event) for event in events.batch.events],
                "CompactRevision": events.compact_revision,
                "Canceled": events.canceled,
                "Created": False,
            }
        )

    def grant(self, response: r.LeaseGrantResponse) -> bytes:
        """Show `LeaseGrantResponse`."""
        return document(_header(response.header) | {"ID": response.id, "TTL": response.ttl_s, "Error": ""})

    def revoke(self, lease: LeaseId, response: r.LeaseRevokeResponse) -> bytes:
        """Show `LeaseRevokeResponse`."""
        return document({"header": _header(response.header)})

    def keep_alive(self, response: r.LeaseKeepAliveResponse) -> bytes:
        """Show `LeaseKeepAliveResponse`."""
        return document(_header(response.header) | {"ID": response.id, "TTL": response.ttl_s})

    def time_to_live(self, response: r.LeaseTimeToLiveResponse, keys: bool) -> bytes:
        """Show `LeaseTimeToLiveResponse`."""
        return document(
            _header(response.header)
            | {
                "id": response.id,
                "ttl": response.ttl_s,
                "granted-ttl": response.granted_ttl_s,
                "keys": [_base64(key) for key in response.keys] or None,
            }
        )

    def leases(self, response: r.LeaseLeasesResponse) -> bytes:
        """Show `LeaseLeasesResponse`."""
        return document(_header(response.header) | {"leases": [{"id": lease} for lease in response.leases]})

    def member_list(self, response: r.MemberListResponse) -> bytes:
        """Show `MemberListResponse`, whose header has no revision."""
        return document({"header": _short_header(response.header)} | _filled(members=_members(response.members)))

    def member_add(self, name: str, response: r.MemberAddResponse) -> bytes:
        """Show `MemberAddResponse`."""
        return document(
            {
                "header": _short_header(response.header),
                "member": _member(response.member),
                "members": _members(response.members),
            }
        )

    def member_remove(self, ids: Sequence[int], response: r.MemberRemoveResponse) -> bytes:
        """Show `MemberRemoveResponse`."""
        return document({"header": _short_header(response.header), "members": _members(response.members)})

    def member_update(self, member_id: int, response: r.MemberUpdateResponse) -> bytes:
        """Show `MemberUpdateResponse`."""
        return document({"header": _short_header(response.header), "members": _members(response.members)})

    def member_promote(self, member_id: int, response: r.MemberPromoteResponse) -> bytes:
        """Show `MemberPromoteResponse`."""
        return document({"header": _short_header(response.header), "members": _members(response.members)})

    def move_leader(self, before: int, response: r.MoveLeaderResponse) -> bytes:
        """Show `MoveLeaderResponse`, in which etcd sends nothing at all."""
        return document({})

    def alarms(self, response: r.AlarmResponse) -> bytes:
        """Show `AlarmResponse`."""
        alarms = [_filled(memberID=each.member_id, alarm=int(each.alarm)) for each in response.alarms]
        return document({"header": _header(response.header)} | _filled(alarms=alarms))

    def health(self, healths: Sequence[r.Health]) -> bytes:
        """Show a list of endpoints."""
        return document(
            [
                {"endpoint": each.endpoint, "health": each.is_healthy, "took": took(each)} | _filled(error=each.error)
                for each in healths
            ]
        )

    def status(self, statuses: Sequence[EndpointStatus]) -> bytes:
        """Show a list of endpoints with their `StatusResponse`."""
        return document([{"Endpoint": each.endpoint, "Status": _status(each.status)} for each in statuses])

    def hash_kv(self, hashes: Sequence[EndpointHash]) -> bytes:
        """Show a list of endpoints with their `HashKVResponse`."""
        return document(
            [
                {
                    "Endpoint": each.endpoint,
                    "HashKV": {"header": _header(each.answer.header)}
                    | _filled(hash=each.answer.hash, compact_revision=each.answer.compact_revision),
                }
                for each in hashes
            ]
        )

    def registration(self, news: RegistrationNews) -> bytes:
        """Show an object of coord's own: keys and addresses are text here."""
        return document(registration_object(news))

    def instances(self, news: ServiceNews) -> bytes:
        """Show one document with all instances."""
        return document({"instances": [instance_object(one) for one in news.instances]})

    def changes(self, news: ServiceNews) -> bytes:
        """Show all instances again."""
        return self.instances(news)


def instance_object(instance: Instance) -> dict[str, Any]:
    """Return an instance of a service as an object."""
    return {
        "address": instance.address,
        "metadata": dict(instance.metadata),
        "key": instance.key.decode("utf-8", "backslashreplace"),
        "lease": f"{instance.lease:016x}",
    }


def registration_object(news: RegistrationNews) -> dict[str, Any]:
    """Return what became of a registration as an object."""
    head = {"service": news.service, "registered": news.is_registered}
    if news.is_registered:
        return head | instance_object(news.instance)
    return head | {"address": news.instance.address, "why": news.why_not}


def document(value: Any) -> bytes:
    """Return `value` as one line of JSON, escaped as Go escapes it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char, escape in _ESCAPED.items():
        text = text.replace(char, escape)
    return text.encode("utf-8", "replace") + b"\n"


def _filled(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _header(header: r.Header) -> dict[str, Any]:
    return _filled(
        cluster_id=header.cluster_id,
        member_id=header.member_id,
        revision=header.revision,
        raft_term=header.raft_term,
    )


def _short_header(header: r.Header) -> dict[str, Any]:
    # What etcd says of members has no revision.
    return {name: value for name, value in _header(header).items() if name != "revision"}


def _member(member: Member) -> dict[str, Any]:
    return _filled(
        ID=member.id,
        name=member.name,
        peerURLs=list(member.peer_urls),
        clientURLs=list(member.client_urls),
        isLearner=member.is_learner,
    )


def _members(members: Sequence[Member]) -> list[dict[str, Any]]:
    return [_member(member) for member in members]


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _pair(pair: KeyValue) -> dict[str, Any]:
    return _filled(
        key=_base64(pair.key),
        create_revision=pair.create_revision,
        mod_revision=pair.mod_revision,
        version=pair.version,
        value=_base64(pair.value),
        lease=pair.lease,
    )


def _event(event: Event) -> dict[str, Any]:
    prev = _pair(event.prev_kv) if event.prev_kv else None
    return _filled(type=int(event.type), kv=_pair(event.kv), prev_kv=prev)


def _put(response: r.PutResponse, header: dict[str, Any]) -> dict[str, Any]:
    return {"header": header} | _filled(prev_kv=_pair(response.prev_kv) if response.prev_kv else None)


def _range(response: r.RangeResponse, header: dict[str, Any]) -> dict[str, Any]:
    pairs = [_pair(pair) for pair in response.kvs]
    return {"header": header} | _filled(kvs=pairs, more=response.more, count=response.count)


def _delete(response: r.DeleteResponse, header: dict[str, Any]) -> dict[str, Any]:
    pairs = [_pair(pair) for pair in response.prev_kvs]
    return {"header": header} | _filled(deleted=response.deleted, prev_kvs=pairs)


def _txn(response: r.TxnResponse, header: dict[str, Any]) -> dict[str, Any]:
    inner = []
    for each in response.responses:
        # Inside a transaction etcd's headers have nothing but the revision.
        own = _filled(revision=each.header.revision)
        if isinstance(each, r.PutResponse):
            inner.append({"Response": {"ResponsePut": _put(each, own)}})
        elif isinstance(each, r.DeleteResponse):
            inner.append({"Response": {"ResponseDeleteRange": _delete(each, own)}})
        elif isinstance(each, r.RangeResponse):
            inner.append({"Response": {"ResponseRange": _range(each, own)}})
        else:
            inner.append({"Response": {"ResponseTxn": _txn(each, own)}})
    return {"header": header} | _filled(succeeded=response.succeeded, responses=inner)


def _status(status: r.StatusResponse) -> dict[str, Any]:
    return {"header": _header(status.header)} | _filled(
        version=status.version,
        dbSize=status.db_size,
        leader=status.leader_id,
        raftIndex=status.raft_index,
        raftTerm=status.raft_term,
        raftAppliedIndex=status.raft_applied_index,
        errors=status.errors,
        dbSizeInUse=status.db_size_in_use,
        isLearner=status.is_learner,
    )

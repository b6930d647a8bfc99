"""The `fields` format: one `"Name" : value` a line, values quoted where they are text."""

from __future__ import annotations

from collections.abc import Sequence

from coord.cli.output.printer import EndpointHash, EndpointStatus, WatchEvents, text_lines
from coord.cli.output.rows import go_bool, took
from coord.cli.quoting import quote
from coord.client import responses as r
from coord.types import KeyValue, LeaseId


class FieldsPrinter:
    """Prints every field of an answer on a line of its own."""

    def put(self, response: r.PutResponse) -> bytes:
        """Show the header and the pair before."""
        pair = _pair("Prev", response.prev_kv) if response.prev_kv else []
        return text_lines(_header(response.header) + pair)

    def get(self, response: r.RangeResponse) -> bytes:
        """Show the header, the pairs, and the count."""
        lines = _header(response.header)
        for pair in response.kvs:
            lines += _pair("", pair)
        return text_lines([*lines, f'"More" : {go_bool(response.more)}', f'"Count" : {response.count}'])

    def delete(self, response: r.DeleteResponse) -> bytes:
        """Show the header, the count, and the pairs that went."""
        lines = [*_header(response.header), f'"Deleted" : {response.deleted}']
        for pair in response.prev_kvs:
            lines += _pair("Prev", pair)
        return text_lines(lines)

    def txn(self, response: r.TxnResponse) -> bytes:
        """Show the header, which branch ran, and all answers; inside, only the revision of a header is told."""
        lines = [*_header(response.header), f'"Succeeded" : {go_bool(response.succeeded)}']
        return text_lines(lines) + b"".join(self._inner(each) for each in response.responses)

    def _inner(self, response: r.PutResponse | r.DeleteResponse | r.RangeResponse | r.TxnResponse) -> bytes:
        header = r.Header(0, 0, response.header.revision, 0)
        if isinstance(response, r.PutResponse):
            return self.put(r.PutResponse(header, response.prev_kv))
        if isinstance(response, r.DeleteResponse):
            return self.delete(r.DeleteResponse(header, response.deleted, response.prev_kvs))
        if isinstance(response, r.RangeResponse):
            return self.get(r.RangeResponse(header, response.kvs, response.more, response.count))
        return self.txn(r.TxnResponse(header, response.succeeded, response.responses))

    def watch(self, events: WatchEvents) -> bytes:
        """Show the header and each event."""
        lines = _header(events.header)
        for event in events.batch.events:
            lines.append(f'"Type" : {event.type.name}')
            if event.prev_kv:
                lines += _pair("Prev", event.prev_kv)
            lines += _pair("", event.kv)
        return text_lines(lines)

    def grant(self, response: r.LeaseGrantResponse) -> bytes:
        """Show the header, the id and the TTL."""
        return _lease(response.header, response.id, response.ttl_s)

    def revoke(self, lease: LeaseId, response: r.LeaseRevokeResponse) -> bytes:
        """Show the header."""
        return text_lines(_header(response.header))

    def keep_alive(self, response: r.LeaseKeepAliveResponse) -> bytes:
        """Show the header, the id and the TTL."""
        return _lease(response.header, response.id, response.ttl_s)

    def time_to_live(self, response: r.LeaseTimeToLiveResponse, keys: bool) -> bytes:
        """Show the header, what is left, and the keys."""
        lines = [f'"GrantedTTL" : {response.granted_ttl_s}', *(f'"Key" : {quote(key)}' for key in response.keys)]
        return _lease(response.header, response.id, response.ttl_s) + text_lines(lines)

    def leases(self, response: r.LeaseLeasesResponse) -> bytes:
        """Show the header and the ids."""
        return text_lines(_header(response.header) + [f'"ID" : {lease}' for lease in response.leases])

    def member_list(self, response: r.MemberListResponse) -> bytes:
        """Show the header, without a revision as this has none, and each member."""
        lines = _header(response.header, revision=0)
        for member in response.members:
            lines += [f'"ID" : {member.id}', f'"Name" : {quote(member.name)}']
            lines += [f'"PeerURL" : {quote(url)}' for url in member.peer_urls]
            lines += [f'"ClientURL" : {quote(url)}' for url in member.client_urls]
            lines += [f'"IsLearner" : {go_bool(member.is_learner)}', ""]
        return text_lines(lines)

    def alarms(self, response: r.AlarmResponse) -> bytes:
        """Show the header and each alarm."""
        lines = _header(response.header)
        for each in response.alarms:
            lines += [f'"MemberID" : {each.member_id}', f'"AlarmType" : {each.alarm.name}', ""]
        return text_lines(lines)

    def health(self, healths: Sequence[r.Health]) -> bytes:
        """Show each endpoint."""
        lines = []
        for each in healths:
            lines += [f'"Endpoint" : {quote(each.endpoint)}', f'"Health" : {go_bool(each.is_healthy)}']
            lines += [f'"Took" : {took(each)}', f'"Error" : {each.error}', ""]
        return text_lines(lines)

    def status(self, statuses: Sequence[EndpointStatus]) -> bytes:
        """Show each endpoint."""
        lines = []
        for each in statuses:
            status = each.status
            lines += _header(status.header)
            lines += [
                f'"Version" : {quote(status.version)}',
                f'"DBSize" : {status.db_size}',
                f'"Leader" : {status.leader_id}',
                f'"IsLearner" : {go_bool(status.is_learner)}',
                f'"RaftIndex" : {status.raft_index}',
                f'"RaftTerm" : {status.raft_term}',
                f'"RaftAppliedIndex" : {status.raft_applied_index}',
                f'"Errors" : [{" ".join(status.errors)}]',
                f'"Endpoint" : {quote(each.endpoint)}',
                "",
            ]
        return text_lines(lines)

    def hash_kv(self, hashes: Sequence[EndpointHash]) -> bytes:
        """Show each endpoint."""
        lines = []
        for each in hashes:
            lines += _header(each.answer.header)
            lines += [f'"Endpoint" : {quote(each.endpoint)}', f'"Hash" : {each.answer.hash}', ""]
        return text_lines(lines)


def _header(header: r.Header, revision: int | None = None) -> list[str]:
    return [
        f'"ClusterID" : {header.cluster_id}',
        f'"MemberID" : {header.member_id}',
        f'"Revision" : {header.revision if revision is None else revision}',
        f'"RaftTerm" : {header.raft_term}',
    ]


def _pair(prefix: str, pair: KeyValue) -> list[str]:
    return [
        f'"{prefix}Key" : {quote(pair.key)}',
        f'"{prefix}CreateRevision" : {pair.create_revision}',
        f'"{prefix}ModRevision" : {pair.mod_revision}',
        f'"{prefix}Version" : {pair.version}',
        f'"{prefix}Value" : {quote(pair.value)}',
        f'"{prefix}Lease" : {pair.lease}',
    ]


def _lease(header: r.Header, lease: LeaseId, ttl_s: int) -> bytes:
    return text_lines([*_header(header), f'"ID" : {lease}', f'"TTL" : {ttl_s}'])

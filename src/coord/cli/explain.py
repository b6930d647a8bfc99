"""What an error of the cluster means, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from coord.errors import ApiError, ClientError, Compacted, ConnectionFailed, DeadlineExceeded, OutcomeUnknown

_HINTS: Final[Mapping[str, str]] = {
    "etcdserver: mvcc: required revision is a future revision": (
        "the store has not come that far; leave the revision out for the newest"
    ),
    "etcdserver: requested lease not found": (
        "it never was, was revoked, or has expired; 'coord lease list' shows the leases there are"
    ),
    "etcdserver: lease already exists": "leave the id out, and the node chooses one",
    "etcdserver: too large lease TTL": "a TTL is at most 9000000000 seconds",
    "etcdserver: key is not provided": "an empty key works only with --prefix or --from-key: every key",
    "etcdserver: key not found": "--ignore-value and --ignore-lease need a key that exists; put it with a value",
    "etcdserver: lease is provided": "give --lease or --ignore-lease, not both",
    "etcdserver: duplicate key given in txn request": "a transaction may write each key once",
    "etcdserver: too many operations in txn request": "split it, or raise the nodes' --max-txn-ops",
    "etcdserver: request is too large": "split it, or raise the nodes' --max-request-bytes",
    "etcdserver: mvcc: database space exceeded": (
        "free space: 'coord del' what is not needed and 'coord compaction' the history; "
        "then the alarm clears by itself, or by 'coord alarm disarm'"
    ),
    "etcdserver: too many requests": "the node has more work than it can hold; try again later",
    "etcdserver: no leader": "too few members live or reach each other; see 'coord endpoint status'",
    "etcdserver: server stopped": "the node is stopping; name others with --endpoints",
    "etcdserver: request timed out": "nothing was changed; try again, and see 'coord endpoint status'",
    "etcdserver: request timed out, leader transfer took too long": (
        "the lead goes to a member that is up and has caught up; see 'coord endpoint status --cluster'"
    ),
    "etcdserver: bad leader transferee": (
        "the lead goes to a member that votes and is up; see 'coord endpoint status --cluster'"
    ),
    "etcdserver: member not found": "'coord member list' prints the ids",
    "etcdserver: given member URLs are invalid": "peer URLs look like http://10.0.0.4:7380; give each once",
    "etcdserver: Peer URLs already exists": "another member is reached there: remove it first, or choose another URL",
    "etcdserver: too many learner members in cluster": "promote or remove one of them first",
    "etcdserver: unhealthy cluster": "bring back the members that are missing, or remove them; see 'coord member list'",
    "etcdserver: re-configuration failed due to not enough started members": (
        "too few of those that would vote have ever started; see 'coord member list'"
    ),
    "etcdserver: can only promote a learner member": "it votes already",
    "etcdserver: can only promote a learner member which is in sync with leader": (
        "start it, and give it time to catch up; see 'coord endpoint status --cluster'"
    ),
    "etcdserver: corrupt cluster": "members disagree; see 'coord alarm list', and compare 'coord endpoint hashkv'",
}


def explain(error: ApiError | ClientError) -> tuple[str, str]:
    """Return the text of `error` as etcdctl tells it, and what to do next, which may be empty."""
    if isinstance(error, Compacted):
        oldest = error.compact_revision
        return error.text, f"the oldest revision that can still be read is {oldest}" if oldest else ""
    if isinstance(error, OutcomeUnknown):
        return error.text, "see whether it happened before you send it again"
    if isinstance(error, DeadlineExceeded):
        return "context deadline exceeded", f"{error.text}; --command-timeout allows for more"
    if isinstance(error, ConnectionFailed):
        return str(error), "is a node running there? 'coord serve' starts one, --endpoints names others"
    if isinstance(error, ApiError):
        # What follows etcd's text, as in "etcdserver: no leader: n1 waits for n2", is the reason.
        return error.text, _HINTS.get(error.text) or _HINTS.get(": ".join(error.text.split(": ")[:2]), "")
    return str(error), ""

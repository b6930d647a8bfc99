"""Who may talk to whom: the judgement of a hello and of its answer (S1, S2). Pure; `peers` carries it out.

A member that comes with other data than those it is known by would vote again, or acknowledge again, what it has
forgotten. It is refused until an operator has removed it and added it anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from coord.protocol.entries import Member
from coord.protocol.hello import Hello, Refusal, RefusalCode, Welcome

Triple = tuple[int, int, int]
"""`(incarnation, boot, nonce)`: one start of one data directory."""

_REMEDY = "remove it with 'coord member remove {0:x}', empty its --data-dir, and add it anew with 'coord member add'"


@frozen
class LocalView:
    """What this node knows of itself and of the others at the moment of a hello.

    `bootstrap_id` is 0 if this node joined a cluster that was there, `cluster_id` 0 while it has none, `member_id` 0
    until it is told. `members` are those applied, or before that those that the flags name or that it was told;
    `peers` are the triples on this node's disk. `check_last_index(member, last_index)` is false if the member is
    known to have acknowledged a committed entry above that index.
    """

    cluster_id: int
    bootstrap_id: int
    member_id: int
    incarnation: int
    boot: int
    nonce: int
    members: Mapping[int, Member]
    outgoing: frozenset[int]
    removed: frozenset[int]
    peers: Mapping[int, Triple]
    leader_id: int
    check_last_index: Callable[[int, int], bool]


def bootstrap_id(token: str, initial_cluster: Sequence[tuple[str, Sequence[str]]]) -> int:
    """Return what proves that two nodes were given the same flags: a hash of token, names and peer URLs (S1).

    The order in which members and their URLs are listed plays no part. Never 0.
    """
    digest = hashlib.sha256()
    texts = [token]
    for name, urls in sorted((name, sorted(urls)) for name, urls in initial_cluster):
        texts += (name, str(len(urls)), *urls)
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return int.from_bytes(digest.digest()[:8], "big") or 1


def judge(hello: Hello, local: LocalView) -> Welcome | Refusal:
    """Return the answer to a hello. Before a welcome leaves, the caller makes the dialler's triple durable (S1)."""
    your_member = hello.member
    refusal = (
        _judge_cluster(hello.cluster_id, hello.bootstrap_id, local)
        or _judge_receiver(hello.to, local)
        or _judge_sender(hello, local)
    )
    if refusal is None and not your_member:
        found = _judge_joiner(hello, local)
        if isinstance(found, Refusal):
            refusal = found
        else:
            your_member = found
    if refusal is not None:
        return refusal
    is_member = bool(local.cluster_id)
    return Welcome(
        cluster_id=local.cluster_id,
        member=local.member_id,
        your_member=your_member,
        members=tuple(member for _, member in sorted(local.members.items())) if is_member else (),
        incarnation=local.incarnation,
        boot=local.boot,
        nonce=local.nonce,
        leader=local.leader_id,
    )


def check_welcome(welcome: Welcome, to: int, local: LocalView) -> Refusal | None:
    """Return why the dialler hangs up after all, or None. `to` is whom it called, 0 if it did not know."""
    if to and welcome.member != to:
        # S2: who is called by another name hangs up, and so does who reaches another one.
        return Refusal(
            RefusalCode.OTHER_NAME,
            f"member {to:x} was called, but member {welcome.member:x} answered: its peer URLs lead to another "
            "process; see 'coord member list' and the other's --listen-peer-urls",
        )
    if welcome.member and welcome.member == local.member_id:
        return _same_name(welcome.member)
    return _judge_cluster(welcome.cluster_id, 0, local) or _judge_life(
        welcome.member, (welcome.incarnation, welcome.boot, welcome.nonce), local
    )


def _judge_cluster(cluster_id: int, bootstrap: int, local: LocalView) -> Refusal | None:
    if cluster_id and local.cluster_id:
        if cluster_id != local.cluster_id:
            return Refusal(
                RefusalCode.OTHER_CLUSTER,
                f"cluster {cluster_id:x} and cluster {local.cluster_id:x} are not one: a peer URL leads to a member "
                "of another cluster; correct it, or empty the --data-dir of the one that is to join the other",
            )
    elif bootstrap and local.bootstrap_id and bootstrap != local.bootstrap_id:
        # Who is alone cannot tell which flags are right: one member with wrong ones must not keep out the others.
        return Refusal(
            RefusalCode.OTHER_FLAGS if local.cluster_id else RefusalCode.FLAGS_DIFFER,
            "--initial-cluster or --initial-cluster-token differ between the two members: give all members the same",
        )
    return None


def _judge_receiver(to: int, local: LocalView) -> Refusal | None:
    if not to or to == local.member_id:
        return None
    if not local.member_id:
        return Refusal(RefusalCode.NOT_READY, "this member has not been told its id yet: try again")
    return Refusal(
        RefusalCode.OTHER_NAME,
        f"member {to:x} was called, but this is member {local.member_id:x}: correct the peer URLs, see "
        "'coord member list' and 'coord member update'",
    )


def _judge_sender(hello: Hello, local: LocalView) -> Refusal | None:
    member = hello.member
    if not member:
        return None
    if member == local.member_id:
        return _same_name(member)
    if member in local.removed and member not in local.outgoing:
        return Refusal(
            RefusalCode.REMOVED,
            f"member {member:x} was removed from the cluster, and its id never returns: stop it; to use the host "
            "again, empty its --data-dir and add it with 'coord member add'",
        )
    # A member that lags does not know those who were added since, and one of them may lead it: a cluster id is told
    # to members alone, and is proof enough.
    is_vouched_for = bool(hello.cluster_id and hello.cluster_id == local.cluster_id)
    if local.members and member not in local.members and not is_vouched_for:
        return Refusal(
            RefusalCode.UNKNOWN_MEMBER,
            f"member {member:x} is not known here: add it with 'coord member add' and start it with an empty "
            "--data-dir and --initial-cluster-state existing",
        )
    life = hello.incarnation, hello.boot, hello.nonce
    if refusal := _judge_life(member, life, local):
        return refusal
    if not local.check_last_index(member, hello.last_index):
        # S1: what is committed may rest on its acknowledgement. A tail that was never committed may lawfully be cut.
        return Refusal(
            RefusalCode.LOST_ENTRIES,
            f"the log of member {member:x} ends at {hello.last_index}, below what it has acknowledged: its disk lost "
            f"data; {_REMEDY.format(member)}",
        )
    return None


def _judge_life(member: int, life: Triple, local: LocalView) -> Refusal | None:
    """S1: one incarnation for ever, boots that rise, and one nonce for each."""
    row = local.members.get(member)
    known = local.peers.get(member, (0, 0, 0))
    # What the log says counts: a member that never joined may have been let in anew since it was seen here.
    published = row.incarnation if row is not None else 0
    if life[0] != (published or known[0] or life[0]):
        return Refusal(
            RefusalCode.OTHER_INCARNATION,
            f"member {member:x} is known with another data directory: this one is empty, restored, or another's. "
            f"Give it its own --data-dir back; if that is lost, {_REMEDY.format(member)}",
        )
    if life[0] != known[0]:
        return None
    if life[1] < known[1]:
        return Refusal(
            RefusalCode.OLD_BOOT,
            f"the data directory of member {member:x} is an old copy: this is its start {life[1]}, and start "
            f"{known[1]} has been seen; {_REMEDY.format(member)}",
        )
    if life[1] == known[1] and life[2] != known[2]:
        return Refusal(
            RefusalCode.COPIED,
            f"two processes run on copies of the data directory of member {member:x}: stop the one that was copied; "
            f"if it is not known which, {_REMEDY.format(member)}",
        )
    return None


def _judge_joiner(hello: Hello, local: LocalView) -> int | Refusal:
    """Return the id of a member that waits to be told it (S2)."""
    if not local.cluster_id:
        return Refusal(RefusalCode.NOT_READY, "this member has no cluster yet: try again")
    urls = set(hello.peer_urls)
    waiting = [
        row for row in local.members.values() if urls.intersection(row.peer_urls) and row.id not in local.removed
    ]
    if not waiting:
        return Refusal(
            RefusalCode.NOT_ADDED,
            f"no member of the cluster has the peer URL {', '.join(hello.peer_urls)}: add it with "
            f"'coord member add NAME --peer-urls={','.join(hello.peer_urls)}'",
        )
    row = waiting[0]
    if row.incarnation not in (0, hello.incarnation):
        return Refusal(
            RefusalCode.ALREADY_JOINED,
            f"member {row.id:x} at {', '.join(row.peer_urls)} has joined with another data directory: give it that "
            f"--data-dir back; if it is lost, {_REMEDY.format(row.id)}",
        )
    return row.id


def _same_name(member: int) -> Refusal:
    return Refusal(
        RefusalCode.SAME_NAME,
        f"both sides are member {member:x}: a peer URL leads back to its own member, or a data directory was copied; "
        "each member needs its own --name, peer URLs and --data-dir",
    )

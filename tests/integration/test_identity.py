"""Who a node is: what has another identity, or has forgotten, is refused with a text that says what to do (S1, S2)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import coord

from .cluster import EVENT_TIMEOUT_S, NodeProcess
from .processes import ProcessCluster, until
from .test_life import refusal


def remedy(node: NodeProcess) -> str:
    """Return what the log says of why its peers do not let a node in, whether that ended it or not."""

    def find() -> str:
        refused = [line["reason"] for line in node.events("peer.link.refused")]
        return "".join(refused + [line["error"] for line in node.events("node.process.failed")])

    found: str = until(find, EVENT_TIMEOUT_S, f"{node.name} is refused")
    return found


def test_a_restart_is_the_same_member(cluster: ProcessCluster) -> None:
    before = {name: cluster.status(name).header.member_id for name in cluster.nodes}  # type: ignore[union-attr]
    cluster.stop()
    cluster.start()
    assert {name: cluster.status(name).header.member_id for name in cluster.nodes} == before  # type: ignore[union-attr]
    assert [node.events("node.identity.loaded")[0]["boot"] for node in cluster.nodes.values()] == [2, 2, 2]
    cluster.check_agreement()


def test_a_wiped_directory_is_refused_and_told_the_remedy_which_works(cluster: ProcessCluster) -> None:
    """It might vote again, or acknowledge again, what it has forgotten. Removed, its directory emptied, and added anew,
    it is a member like the others, under a new id."""
    revision = cluster.put("kept")
    lost = cluster.status("n3")
    assert lost is not None
    cluster["n3"].kill()
    cluster.wipe("n3")
    cluster["n3"].spawn()
    told = remedy(cluster["n3"])
    assert "coord member remove" in told
    assert "coord member add" in told
    cluster.put("served meanwhile")

    cluster["n3"].cleanup()
    cluster.wipe("n3")
    with coord.connect_sync(cluster.endpoints, timeout=30) as client:
        client.member_remove(lost.header.member_id)
        client.member_add([cluster["n3"].peer_url])
        cluster["n3"].start("--initial-cluster-state=existing")
        until(lambda: all(not row.is_learner for row in client.member_list().members), EVENT_TIMEOUT_S, "n3 votes")
        members = {member.name: member for member in client.member_list().members}
    assert members.keys() == {"n1", "n2", "n3"}
    assert members["n3"].id != lost.header.member_id
    assert cluster.check_agreement() > revision
    cluster["n1"].kill()
    cluster.put("n3 counts in the quorum")
    cluster["n1"].start()
    cluster.check_agreement()


def test_a_directory_from_a_backup_is_refused(cluster: ProcessCluster, tmp_path: Path) -> None:
    """A lower boot counter: what it acknowledged since is not in it."""
    cluster["n3"].kill()
    shutil.copytree(cluster["n3"].data, tmp_path / "backup")
    cluster["n3"].start()
    cluster.put("since")
    cluster["n3"].kill()
    cluster.wipe("n3")
    shutil.copytree(tmp_path / "backup", cluster["n3"].data)
    cluster["n3"].spawn()
    assert "coord member remove" in remedy(cluster["n3"])


def test_a_node_with_other_flags_is_refused(make_cluster: Callable[..., ProcessCluster]) -> None:
    """Whoever of the three comes first: it ends where it finds a cluster, and else goes on and is not let in."""
    cluster = make_cluster()
    for name in ("n1", "n2"):
        cluster[name].spawn()
    cluster["n3"].spawn("--initial-cluster-token=another")
    assert "--initial-cluster-token" in remedy(cluster["n3"])
    cluster.leader()


def test_another_members_directory_is_refused(cluster: ProcessCluster) -> None:
    cluster["n2"].kill()
    cluster["n3"].kill()
    cluster.wipe("n3")
    shutil.copytree(cluster["n2"].data, cluster["n3"].data)
    assert "set --name and the peer URLs as they were" in refusal(cluster["n3"])


def test_a_second_process_on_a_members_directory_is_refused(cluster: ProcessCluster, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    second = NodeProcess(other, "n1", advertised_port=cluster["n1"].peer_port, flags=cluster["n1"].flags)
    (other / "data").symlink_to(cluster["n1"].data)
    assert f"is in use by process {cluster['n1'].pid}" in refusal(second)
    cluster.check_agreement()

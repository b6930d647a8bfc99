"""Data directories: one holder, one owner, one count of lives (S1)."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from crc32c import crc32c

from coord.codec import encode
from coord.disk import RealDisk
from coord.errors import DamageError, DataDirError, DiskError, DiskFullError
from coord.store import identity
from coord.store.identity import DataDirectory, Life, open_data_directory
from coord.testing.sim_disk import SimDisk

ROOT = Path("/data/n1")


def numbers(seed: int = 1) -> Callable[[], int]:
    chance = random.Random(seed)
    return lambda: chance.randrange(1, 2**64)


def simulated() -> SimDisk:
    disk = SimDisk()
    disk.make_directory(ROOT.parent)
    disk.sync_directory(ROOT.parent)
    return disk


def start(
    disk: SimDisk, *, member: int = 7, token: str = "coord", random64: Callable[[], int] | None = None
) -> DataDirectory:
    return open_data_directory(disk, ROOT, member=member, token=token, random64=random64 or numbers())


def test_a_new_directory_gets_an_incarnation_and_its_first_boot() -> None:
    opened = start(simulated(), random64=iter((11, 12)).__next__)
    assert opened.is_new
    found = opened.identity
    assert (found.member, found.incarnation, found.boot, found.nonce) == (7, 11, 1, 12)
    assert (opened.wal, opened.store, opened.snapshots) == (ROOT / "wal", ROOT / "store", ROOT / "snapshots")


def test_each_start_is_another_boot_with_another_nonce_of_one_incarnation() -> None:
    disk = simulated()
    chance = numbers()
    seen = []
    for _ in range(4):
        opened = start(disk, random64=chance)
        seen.append(opened.identity)
        opened.close()
    assert [one.boot for one in seen] == [1, 2, 3, 4]
    assert len({one.incarnation for one in seen}) == 1
    assert len({one.nonce for one in seen}) == 4
    assert not opened.is_new


def test_a_boot_that_was_told_is_never_told_again() -> None:
    """Whatever a power loss keeps, at whatever point of the start, the counter is above all boots that began."""
    for seed in range(60):
        chance = random.Random(seed)
        disk, told, incarnations = simulated(), 0, set()
        for _ in range(4):
            opened = start(disk, random64=numbers(seed))
            assert opened.identity.boot > told
            told = opened.identity.boot
            incarnations.add(opened.identity.incarnation)
            disk.crash(chance.randrange)
        assert len(incarnations) == 1


def test_planted_boot_that_is_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimDisk, "sync_directory", lambda self, path: None)
    with pytest.raises((AssertionError, DamageError, DiskError)):
        test_a_boot_that_was_told_is_never_told_again()


def test_another_process_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from coord.disk import RealDisk\n"
        "from coord.store.identity import open_data_directory\n"
        "d = open_data_directory(RealDisk(), Path(sys.argv[1]), member=7, token='t', random64=lambda: 5)\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    path = tmp_path / "data"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(DataDirError, match=rf"in use by process {child.pid}: stop it"):
            open_data_directory(RealDisk(), path, member=7, token="t", random64=numbers())
    finally:
        child.communicate()
    opened = open_data_directory(RealDisk(), path, member=7, token="t", random64=numbers())
    assert opened.identity.boot == 2, "the refused start was no boot"
    opened.close()
    assert path.stat().st_mode & 0o777 == 0o700
    assert [child for child in path.iterdir() if child.stat().st_mode & 0o077] == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"member": 8}, "belongs to member 7, not to 8: set --name"),
        ({"token": "other"}, "cluster with another token: set --initial-cluster-token"),
    ],
)
def test_another_ones_directory_is_refused_and_left_as_it_was(options: dict[str, object], text: str) -> None:
    disk = simulated()
    start(disk).close()
    with pytest.raises(DataDirError, match=text):
        start(disk, **options)  # type: ignore[arg-type]
    opened = start(disk)
    assert opened.identity.boot == 2


def test_a_newer_directory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = simulated()
    monkeypatch.setattr(identity, "IDENTITY_FORMAT", 3)
    start(disk).close()
    monkeypatch.undo()
    with pytest.raises(DataDirError, match="has format 3, this release knows 2: upgrade first"):
        start(disk)


def test_a_directory_of_the_single_node_release_opens() -> None:
    """Format 1 knew no way into a cluster but the flags."""
    disk = simulated()
    start(disk).close()
    payload = encode([1, 7, hashlib.sha256(b"coord").digest(), 11, 3, 12])
    disk.remove(ROOT / "identity")
    disk.create(ROOT / "identity").write_synced(0, [crc32c(payload).to_bytes(4, "big") + payload])
    for _ in range(2):
        opened = start(disk)
        found = opened.identity
        opened.close()
        assert (found.member, found.incarnation, found.life) == (7, 11, Life.BOOTSTRAPPED)
    assert found.boot == 5


def test_how_a_member_came_in_is_decided_once() -> None:
    disk = simulated()
    opened = start(disk)
    assert opened.identity.life is Life.UNDECIDED
    opened.decide(Life.JOINED)
    opened.decide(Life.JOINED)
    with pytest.raises(ValueError, match="JOINED, not BOOTSTRAPPED"):
        opened.decide(Life.BOOTSTRAPPED)
    opened.close()
    assert start(disk).identity.life is Life.JOINED


def test_an_id_that_was_told_stays_whatever_the_flags_give() -> None:
    disk = simulated()
    opened = start(disk, member=0)
    assert opened.identity.member == 0
    opened.adopt(9)
    opened.adopt(9)
    with pytest.raises(ValueError, match="this is member 9, not a"):
        opened.adopt(10)
    for member in (0, 9, 7):
        opened.close()
        opened = start(disk, member=member)
        assert opened.identity.member == 9


def test_a_member_that_was_never_told_may_take_the_id_of_its_flags() -> None:
    disk = simulated()
    start(disk, member=0).close()
    start(disk, member=7).close()
    with pytest.raises(DataDirError, match="belongs to member 7, not to 8"):
        start(disk, member=8)
    assert start(disk, member=0).identity.member == 7


def test_what_is_told_of_peers_survives_any_crash() -> None:
    """S1: a triple, an id and a decision are durable when the call returns, whole, whatever the disk keeps."""
    for seed in range(60):
        chance = random.Random(seed)
        disk, told = simulated(), {}
        opened = start(disk, member=0)
        opened.adopt(9)
        opened.decide(Life.JOINED)
        for boot in range(1, 5):
            for member in (2, 3):
                opened.remember_peer(member, 100 + member, boot, chance.getrandbits(63) | 1)
                told[member] = opened.peers[member]
            disk.crash(chance.randrange)
            opened = start(disk, member=0)
            assert opened.peers == told
            assert (opened.identity.member, opened.identity.life) == (9, Life.JOINED)
            opened.close()
            opened = start(disk, member=0)


def test_planted_triple_that_is_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimDisk, "sync_directory", lambda self, path: None)
    with pytest.raises((AssertionError, DamageError, DiskError)):
        test_what_is_told_of_peers_survives_any_crash()


def test_a_peer_that_says_the_same_costs_no_write() -> None:
    disk = simulated()
    opened = start(disk)
    opened.remember_peer(2, 5, 1, 6)
    disk.remove(ROOT / "peers")
    opened.remember_peer(2, 5, 1, 6)
    assert not disk.exists(ROOT / "peers")


def test_a_peer_that_a_full_disk_did_not_take_is_not_remembered() -> None:
    """It would be taken for durable when it calls again (S1)."""
    disk = simulated()
    opened = start(disk)
    disk.write_budget_bytes = 3
    with pytest.raises(DiskFullError):
        opened.remember_peer(2, 5, 1, 6)
    assert not opened.peers
    disk.write_budget_bytes = None
    opened.remember_peer(2, 5, 1, 6)
    opened.close()
    assert start(disk).peers == {2: (5, 1, 6)}


def test_changed_peers_are_damage() -> None:
    disk = simulated()
    opened = start(disk)
    opened.remember_peer(2, 5, 1, 6)
    opened.close()
    disk.corrupt(ROOT / "peers", 5, b"\xff")
    with pytest.raises(DamageError, match="peers is not what was written: remove this member"):
        start(disk)


def test_data_without_an_identity_are_refused(tmp_path: Path) -> None:
    """With a new incarnation, old data would be those of a member that nobody knows."""
    (tmp_path / "wal").mkdir()
    with pytest.raises(DamageError, match="holds wal but no identity file"):
        open_data_directory(RealDisk(), tmp_path, member=7, token="t", random64=numbers())


def test_a_changed_identity_is_damage() -> None:
    clean = simulated()
    start(clean).close()
    size = clean.open(ROOT / "identity").size()
    for place in range(size):
        disk = simulated()
        start(disk).close()
        byte = disk.open(ROOT / "identity").read(place, 1)
        disk.corrupt(ROOT / "identity", place, bytes((byte[0] ^ 4,)))
        with pytest.raises(DamageError, match="add it anew"):
            start(disk)


def test_a_start_that_broke_off_is_taken_up() -> None:
    disk = simulated()
    start(disk).close()
    disk.create(ROOT / "identity.part").write(0, [b"half"])
    assert start(disk).identity.boot == 2

"""The log in use: what is planned, written, split, rolled, released and found again."""

from __future__ import annotations

import random

import pytest

from coord.raft.types import HardState
from coord.testing.sim_disk import SimDisk
from coord.wal.record import SnapshotMark
from coord.wal.segment import Header

from .rig import DIRECTORY, MEMBER, SEGMENT_BYTES, Rig, random_step


def test_an_empty_directory_becomes_an_empty_log(rig: Rig) -> None:
    assert [path.name for path in rig.segments()] == ["0000000000000001.wal"]
    found = rig.recover()
    assert (found.entries, found.hard_state, found.snapshot, found.start_index, found.last_index) == (
        [],
        HardState(),
        None,
        0,
        0,
    )
    assert found.notes == []


def test_what_was_written_is_found(rig: Rig) -> None:
    rig.write([(1, 1, b"a"), (2, 1, b"")], HardState(1, 9, 0))
    rig.write([(3, 2, b"c" * 3000)], HardState(2, 0, 2))
    found = rig.recover()
    assert found.entries == [(1, 1, b"a"), (2, 1, b""), (3, 2, b"c" * 3000)]
    assert found.hard_state == HardState(2, 0, 2)
    assert found.last_index == 3


def test_a_new_leader_replaces_a_suffix(rig: Rig) -> None:
    rig.append(10, 10, 10, 10, term=1)
    rig.write([(3, 2, b"new")], HardState(2, 0, 2))
    assert [entry[:2] for entry in rig.recover().entries] == [(1, 1), (2, 1), (3, 2)]
    rig.append(1)
    assert [entry[:2] for entry in rig.recover().entries] == [(1, 1), (2, 1), (3, 2), (4, 2)]


def test_a_hard_state_alone_is_kept(rig: Rig) -> None:
    rig.write((), HardState(5, 3, 0))
    assert rig.recover().hard_state == HardState(5, 3, 0)


def test_commit_is_cut_to_the_last_entry_found(rig: Rig) -> None:
    rig.append(10, 10)
    rig.write((), HardState(1, 0, 99))
    assert rig.recover().hard_state.commit == 2


def test_segments_roll_and_state_survives_their_release(rig: Rig) -> None:
    rig.write((), HardState(4, 2, 0))
    for _ in range(12):
        rig.append(1000)
    rig.write((), HardState(4, 2, 12))
    assert len(rig.segments()) > 3
    assert rig.release(12)
    assert len(rig.segments()) == 1
    found = rig.recover()
    assert found.hard_state == HardState(4, 2, 12)
    assert found.last_index == 12
    assert found.start_term == 4


def test_release_keeps_what_is_above_the_index_and_the_last_segment(rig: Rig) -> None:
    assert not rig.release(0)
    rig.append(1000, 1000)
    assert not rig.release(2), "the last segment stays"
    rig.append(1000, 1000)
    assert not rig.release(1)
    assert rig.release(2)
    assert [entry[0] for entry in rig.recover().entries] == [3, 4]


def test_release_keeps_a_snapshot_mark_until_the_store_is_past_it(rig: Rig) -> None:
    """S6: until then recovery has to redo the switch."""
    rig.append(10, 10)
    rig.write((), HardState(3, 0, 50), SnapshotMark(50, 3, b"members"))
    rig.write([(51, 3, b"x" * 3500)])
    rig.write([(52, 3, b"x" * 3500)])
    assert not rig.release(49)
    assert rig.recover().snapshot is not None
    assert rig.release(50)
    assert [entry[0] for entry in rig.recover().entries] == [51, 52]


def test_released_entries_are_not_replaced(rig: Rig) -> None:
    for _ in range(4):
        rig.append(1400)
    assert rig.release(2)
    with pytest.raises(ValueError, match="does not join"):
        rig.wal.plan([(2, 2, b"")], HardState(2, 0, 0))


def test_release_waits_for_the_roll_to_be_on_the_disk(rig: Rig) -> None:
    rig.append(1000, 1000)
    run = rig.issue([(3, 1, b"x" * 1800)])
    assert not rig.release(2), "the next segment is only planned: this one still holds term, vote and commit"
    run()
    assert rig.release(2)


def test_the_next_write_can_be_planned_while_one_runs(rig: Rig) -> None:
    jobs = [rig.wal.plan([(index, 1, b"x" * 900)], HardState(1, 0, 0)) for index in range(1, 9)]
    for job in jobs:
        job.run()
    _, found = rig.recover_on(rig.disk)
    assert [entry[0] for entry in found.entries] == list(range(1, 9))


def test_a_large_write_is_split_and_its_parts_are_synced_in_turn(rig: Rig) -> None:
    rig.disk.operations.clear()
    rig.append(*[1500] * 9)
    writes = [operation for operation in rig.disk.operations if ".wal" in operation and "write" in operation]
    assert len(writes) >= 5
    assert len(rig.recover().entries) == 9


def test_an_entry_larger_than_a_segment_is_refused(rig: Rig) -> None:
    rig.append(4096 - 512 - 52 - 24)
    with pytest.raises(ValueError, match="larger than a batch"):
        rig.wal.plan([(2, 1, bytes(4096 - 512 - 52 - 23))], HardState(1, 0, 0))


@pytest.mark.parametrize(
    ("entries", "term"),
    [
        ([(7, 1, b"")], 1),
        ([(4, 1, b""), (6, 1, b"")], 1),
        ([(4, 0, b"")], 1),
        ([(4, 2, b""), (5, 1, b"")], 2),
        ([(0, 1, b"")], 1),
    ],
)
def test_entries_and_terms_that_do_not_fit_are_refused(rig: Rig, entries: list, term: int) -> None:
    rig.append(1, 1, 1, term=1)
    with pytest.raises(ValueError, match="entry "):
        rig.wal.plan(entries, HardState(term, 0, 0))


def test_a_term_that_goes_back_is_refused(rig: Rig) -> None:
    rig.write((), HardState(2, 0, 0))
    with pytest.raises(ValueError, match="term 1 cannot follow term 2"):
        rig.wal.plan((), HardState(1, 0, 0))


def test_a_snapshot_ahead_of_the_log_drops_it(rig: Rig) -> None:
    rig.append(10, 10)
    mark = SnapshotMark(50, 3, b"members")
    rig.write([(51, 3, b"next")], HardState(3, 0, 50), mark)
    found = rig.recover()
    assert found.snapshot == mark
    assert (found.start_index, found.start_term) == (50, 3)
    assert found.entries == [(51, 3, b"next")]


@pytest.mark.parametrize(("term", "kept"), [(1, [1, 2, 3]), (2, [])])
def test_a_snapshot_keeps_the_log_only_if_it_holds_its_last_entry(rig: Rig, term: int, kept: list[int]) -> None:
    """S6: the same index at another term is another history."""
    rig.append(10, 10, 10, term=1)
    rig.write((), HardState(2, 0, 2), SnapshotMark(2, term, b""))
    found = rig.recover()
    assert [entry[0] for entry in found.entries] == kept
    assert found.last_index == (3 if kept else 2)


def test_released_segments_are_used_again_with_another_salt(rig: Rig) -> None:
    salts = []
    for _ in range(8):
        rig.append(1500, 1500)
        rig.release(rig.wal.last_index - 2)
        path = rig.segments()[-1]
        salts.append(Header.decode(rig.disk.open(path).read(0, 512), path).salt)
    assert len(set(salts)) == len(salts)
    creations = [operation for operation in rig.disk.operations if operation.startswith("create")]
    assert len(creations) <= 4, "files are recycled"
    assert rig.recover().last_index == 16


def test_a_prepared_file_makes_a_roll_cheap(rig: Rig) -> None:
    rig.prepare()
    (spare,) = (name for name in rig.disk.list(DIRECTORY) if name.endswith(".tmp"))
    assert rig.disk.durable_bytes(DIRECTORY / spare) == bytes(4096), "a roll waits for nothing but its header"
    assert rig.wal.prepare_job() is None, "one is ready"
    rig.append(1400)
    rig.append(1400)
    rig.disk.operations.clear()
    rig.append(1400)
    written = [operation for operation in rig.disk.operations if operation.startswith("write")]
    assert len(rig.segments()) == 2
    assert len(written) == 2, "a header and a batch"
    job = rig.wal.prepare_job()
    assert job is not None
    assert rig.wal.prepare_job() is None, "one is being made"
    job.run()


def temporary(rig: Rig) -> list[str]:
    return [name for name in rig.disk.list(DIRECTORY) if name.endswith(".tmp")]


def test_recovery_keeps_spare_files_and_the_next_segment_takes_one(rig: Rig) -> None:
    rig.append(1000)
    rig.prepare()
    kept = temporary(rig)
    rig.recover()
    assert temporary(rig) == kept
    assert rig.wal.prepare_job() is None
    rig.disk.operations.clear()
    for _ in range(4):
        rig.append(1400)
    assert temporary(rig) == []
    assert len(rig.segments()) == 3
    filled = [operation for operation in rig.disk.operations if operation.startswith("create")]
    assert len(filled) == 1, "the second one's is made"
    rig.prepare()
    assert temporary(rig) != kept, "each has a name of its own"
    assert [entry[0] for entry in rig.recover().entries] == [1, 2, 3, 4, 5]


def test_recovery_takes_a_spare_file_with_the_bytes_of_an_old_segment(rig: Rig) -> None:
    for _ in range(4):
        rig.append(1400)
    rig.release(2)
    assert temporary(rig)
    rig.recover()
    for _ in range(4):
        rig.append(1400)
    assert [entry[0] for entry in rig.recover().entries][-6:] == [3, 4, 5, 6, 7, 8]


def test_recovery_removes_other_temporary_files(rig: Rig) -> None:
    sizes = {
        "spare-00000007.tmp": SEGMENT_BYTES,
        "spare-00000008.tmp": SEGMENT_BYTES - 512,
        "spare-00000009.tmp": 2 * SEGMENT_BYTES,
        "spare-0000000a.tmp": SEGMENT_BYTES,
        "spare-0000000b.tmp": SEGMENT_BYTES,
        "0000000000000002.wal.tmp": SEGMENT_BYTES,
        "spare-0000000G.tmp": SEGMENT_BYTES,
    }
    for name, size in sizes.items():
        file = rig.disk.create(DIRECTORY / name)
        file.write(0, (bytes(size),))
        file.close()
    rig.recover()
    assert temporary(rig) == ["spare-00000007.tmp", "spare-0000000a.tmp"]
    rig.wal._files.prepare()
    assert "spare-0000000b.tmp" in temporary(rig)


def test_another_segment_size_takes_effect_with_the_next_segment(rig: Rig) -> None:
    rig.append(1000)
    rig.segment_bytes = 8192
    rig.recover()
    for _ in range(6):
        rig.append(1000)
    assert [rig.disk.open(path).size() for path in rig.segments()] == [4096, 8192]
    rig.release(3)
    assert [entry[0] for entry in rig.recover().entries] == [3, 4, 5, 6, 7]


def test_statistics(rig: Rig) -> None:
    rig.append(1500, 1500)
    rig.append(1500)
    rig.prepare()
    statistics = rig.wal.statistics()
    assert (statistics.segments, statistics.bytes) == (2, 3 * 4096)
    assert (statistics.last_index, statistics.batches) == (3, 2)
    rig.wal.close()


def test_jobs_run_in_the_order_planned(rig: Rig) -> None:
    first = rig.wal.plan([(1, 1, b"")], HardState(1, 0, 0))
    second = rig.wal.plan([(2, 1, b"")], HardState(1, 0, 0))
    with pytest.raises(AssertionError, match="cannot follow"):
        second.run()
    first.run()
    second.run()


def test_random_workloads_and_restarts_agree_with_the_model() -> None:
    for seed in range(60):
        chance = random.Random(seed)
        rig = Rig(disk=SimDisk(seed))
        rig.recover()
        for _ in range(60):
            random_step(rig, chance)
            if chance.random() < 0.1:
                rig.disk.restart()
                rig.recover()
        rig.recover()


def test_the_log_belongs_to_a_member(rig: Rig) -> None:
    path = rig.segments()[0]
    assert Header.decode(rig.disk.open(path).read(0, 512), path).member == MEMBER

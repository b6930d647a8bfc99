"""S5: what no crash can leave is damage. It refuses to start, says what to do, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coord.errors import DamageError, DataDirError
from coord.raft.types import HardState
from coord.testing.sim_disk import SimDisk
from coord.wal.segment import Header

from .rig import DIRECTORY, Rig


@pytest.fixture
def log() -> Rig:
    """Four segments; in the last, three batches."""
    rig = Rig()
    rig.recover()
    for _ in range(10):
        rig.append(900, term=1)
    assert len(rig.segments()) == 4
    rig.append(300)
    rig.append(300)
    return rig


def flip(rig: Rig, segment: int, offset: int) -> None:
    path = rig.segments()[segment]
    byte = rig.disk.open(path).read(offset, 1)[0]
    rig.disk.corrupt(path, offset, bytes([byte ^ 0x10]))


def refuses(rig: Rig, kind: type[Exception] = DamageError, match: str | None = None) -> str:
    before = [(name, rig.disk.durable_bytes(DIRECTORY / name)) for name in rig.disk.list(DIRECTORY)]
    with pytest.raises(kind, match=match) as caught:
        rig.recover_on(rig.disk)
    after = [(name, rig.disk.durable_bytes(DIRECTORY / name)) for name in rig.disk.list(DIRECTORY)]
    assert before == after, "a log that is refused is left as it was"
    return str(caught.value)


def test_the_message_says_where_what_and_what_to_do(log: Rig) -> None:
    flip(log, 1, 600)
    text = refuses(log)
    assert str(log.segments()[1]) in text
    assert "offset 512" in text
    assert "Restore this member from the others" in text
    assert "truncate" not in text


@pytest.mark.parametrize("segment", [0, 1, 2])
def test_a_flipped_bit_before_the_last_segment(log: Rig, segment: int) -> None:
    """Even in the last batch of a segment, which alone would look torn: its successor names it."""
    for offset in (512, 530, 1000, 2100):
        flip(log, segment, offset)
        refuses(log, match="the next segment names")
        flip(log, segment, offset)
    log.recover()


def test_a_flipped_bit_in_the_last_segment_before_a_valid_batch(log: Rig) -> None:
    flip(log, -1, 520)
    refuses(log, match="a valid one follows")


def test_a_flipped_bit_in_the_last_batch_cannot_be_told_from_a_torn_write(log: Rig) -> None:
    held = log.model.acknowledged.entries
    end = log.wal._offset
    flip(log, -1, end - 200)
    _, found = log.recover_on(log.disk)
    assert found.entries == list(held[:-1])
    assert found.notes[0][0] == "wal.tail.torn"


@pytest.mark.parametrize("segment", [0, 1, -1])
def test_an_invalid_header(log: Rig, segment: int) -> None:
    flip(log, segment, 20)
    refuses(log, match="checksum")
    flip(log, segment, 20)
    log.disk.corrupt(log.segments()[segment], 0, bytes(512))
    refuses(log, match="no segment header")


def test_a_missing_segment(log: Rig) -> None:
    log.disk.remove(log.segments()[1])
    text = refuses(log, match="missing")
    assert "0000000000000002.wal" in text


def test_a_header_that_disagrees_with_its_name(log: Rig) -> None:
    first, last = log.segments()[0], log.segments()[-1]
    log.disk.rename(first, last.with_name("0000000000000009.wal"))
    refuses(log, match="the name that of 9")


def test_a_file_of_the_wrong_size(log: Rig) -> None:
    for segment in (0, -1):
        log.disk.open(log.segments()[segment]).truncate(3584)
        refuses(log, match="bytes, its header says")
        log.disk.open(log.segments()[segment]).truncate(4096)
    log.disk.open(log.segments()[-1]).truncate(100)
    refuses(log, match="ends within its header")


def test_the_log_of_another_member(log: Rig) -> None:
    log.member = 8
    refuses(log, DataDirError, "is the log of member 7, this is member 8")


def test_a_segment_of_an_older_copy_of_the_log(log: Rig) -> None:
    """The file has the right name, member and number; only its predecessor is not the one that is here."""
    other = Rig()
    other.recover()
    for _ in range(11):
        other.append(900, term=1, fill=3)
    path = log.segments()[-1]
    log.disk.corrupt(path, 0, other.disk.durable_bytes(path))
    refuses(log, match="the next segment names")


def test_a_batch_out_of_its_turn(rig: Rig) -> None:
    rig.append(10)
    rig.append(10)
    path = rig.segments()[0]
    first = rig.disk.durable_bytes(path)[512:1024]
    rig.disk.corrupt(path, 1024, first)
    refuses(rig, match="batch 1 stands where batch 2 belongs")


def test_entries_that_do_not_join(rig: Rig) -> None:
    """A log that is whole, batch by batch, and still makes no sense."""
    rig.append(10)
    rig.wal._shape.last_index = 5
    rig.wal.plan([(6, 1, b"")], HardState(1, 0, 0)).run()
    refuses(rig, match="does not join")


def test_a_header_that_says_the_log_stood_elsewhere(rig: Rig) -> None:
    rig.append(3000)
    rig.wal._shape.last_index = 5
    rig.wal.plan([(6, 1, bytes(1000))], HardState(1, 0, 0)).run()
    refuses(rig, match="it stands at 1 of term 1")


def test_files_that_are_not_the_logs_are_left_alone(log: Rig) -> None:
    log.disk.create(DIRECTORY / "notes.txt").close()
    log.recover()
    assert "notes.txt" in log.disk.list(DIRECTORY)


def test_every_bit_flip_is_refused_or_cuts_the_last_batch() -> None:
    """S5: never a wrong entry, whatever byte changes."""
    rig = Rig()
    rig.recover()
    for size in (700, 1200, 40, 900, 1500, 10, 1900, 1400, 300):
        rig.append(size)
    held = list(rig.model.acknowledged.entries)
    refused = cut = kept = 0
    for path in rig.segments():
        for offset in range(0, 4096, 41):
            image = rig.disk.image()
            byte = image.open(path).read(offset, 1)[0]
            image.corrupt(path, offset, bytes([byte ^ 1 << offset % 8]))
            outcome = outcome_of(lambda image=image: rig.recover_on(image)[1].entries)
            if outcome is None:
                refused += 1
            elif outcome == held:
                kept += 1
            else:
                assert outcome == held[:-1]
                cut += 1
    assert refused > 80
    assert kept > 30
    assert 1 <= cut <= 15


def outcome_of(call: Callable[[], list]) -> list | None:
    try:
        return call()
    except DamageError:
        return None


def test_stale_bytes_of_a_recycled_file_are_neither_damage_nor_torn() -> None:
    rig = Rig(disk=SimDisk(3))
    rig.recover()
    for _ in range(12):
        rig.append(1400, 1400)
        rig.release(rig.wal.last_index - 2)
        found = rig.recover_on(rig.disk.image())[1]
        assert found.notes == []
        rig.model.check(found)


def test_a_torn_tail_is_told_and_zeroed_to_the_end(rig: Rig) -> None:
    rig.append(100)
    rig.model.issue([(2, 1, b"y" * 1500)], HardState(1, 0, 0))
    disk = rig.disk
    file = disk.open(rig.segments()[0])
    file.write_synced(1024 + 1024, (b"junk" * 200,))
    file.write_synced(4090, (b"junk",))
    planned = rig.wal.plan([(2, 1, b"y" * 1500)], HardState(1, 0, 0))._steps[0]
    file.write_synced(1024, (b"".join(planned.buffers)[:512],))
    found = rig.recover()
    assert found.notes == [("wal.tail.torn", {"file": str(rig.segments()[0]), "offset": 1024, "bytes": 4094 - 1024})]
    assert disk.durable_bytes(rig.segments()[0])[1024:] == bytes(4096 - 1024)
    rig.append(2000)
    assert len(rig.recover().entries) == 2


def test_the_header_names_the_last_batch_of_the_segment_before(log: Rig) -> None:
    headers = [Header.decode(log.disk.open(path).read(0, 512), path) for path in log.segments()]
    assert headers[0].previous_batch == 0
    assert [header.previous_batch for header in headers] == sorted(header.previous_batch for header in headers)
    assert all(header.previous_crc for header in headers[1:])

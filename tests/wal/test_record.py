"""Framing: what is written is what is read, and nothing else ever is."""

from __future__ import annotations

import random

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from coord.errors import DamageError, DataDirError
from coord.raft.types import Entry, HardState
from coord.wal.record import MalformedBatch, SnapshotMark, batch_bytes, frame_batch, read_batch
from coord.wal.segment import Header, read_segment, segment_name, segment_number

WORDS = st.integers(0, 2**64 - 1)
STATES = st.builds(HardState, WORDS, WORDS, WORDS)
ENTRIES = st.lists(st.tuples(WORDS, WORDS, st.binary(max_size=1200)), max_size=5)
MARKS = st.none() | st.builds(SnapshotMark, WORDS, WORDS, st.binary(max_size=700), st.booleans())
SALT, SEGMENT = 0xC0FFEE, 9
HEADER = Header(SEGMENT, 8192, 7, SALT, 0xABCD, 41, HardState(3, 7, 20), 22, 3)


def framed(number: int, state: HardState, entries: list[Entry], mark: SnapshotMark | None = None) -> bytes:
    return b"".join(frame_batch(SALT, SEGMENT, number, state, entries, mark)[1])


def segment_of(*batches: bytes, header: Header = HEADER) -> bytes:
    return (header.encode() + b"".join(batches)).ljust(header.segment_bytes, b"\0")


@given(WORDS, STATES, ENTRIES, MARKS)
def test_a_batch_is_read_as_it_was_written(
    number: int, state: HardState, entries: list[Entry], mark: SnapshotMark | None
) -> None:
    data = framed(number, state, entries, mark)
    batch = read_batch(memoryview(bytes(512) + data + b"behind"), 512, SALT, SEGMENT)

    assert batch is not None
    assert (batch.number, batch.hard_state, batch.entries, batch.snapshot) == (number, state, entries, mark)
    assert mark is None or (batch.snapshot is not None and batch.snapshot.keeps_log == mark.keeps_log)
    assert batch.blocks_bytes == len(data) == batch_bytes(entries, mark)
    assert len(data) % 512 == 0


@given(ENTRIES, st.data())
def test_a_batch_with_any_bit_changed_is_none(entries: list[Entry], data: st.DataObject) -> None:
    good = framed(1, HardState(1, 1, 0), entries)
    bit = data.draw(st.integers(0, len(good) * 8 - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    assert read_batch(memoryview(bad), 0, SALT, SEGMENT) is None


@given(st.binary(max_size=2048), st.integers(0, 4))
def test_random_bytes_are_no_batch(noise: bytes, block: int) -> None:
    view = memoryview(noise.ljust(2560, b"\x55"))
    assert read_batch(view, block * 512, SALT, SEGMENT) is None


def test_a_batch_of_another_use_of_the_file_is_none() -> None:
    data = memoryview(framed(1, HardState(1, 1, 0), [(1, 1, b"x")]))
    assert read_batch(data, 0, SALT, SEGMENT) is not None
    assert read_batch(data, 0, SALT + 1, SEGMENT) is None
    assert read_batch(data, 0, SALT, SEGMENT + 1) is None


def test_a_cut_off_batch_is_none() -> None:
    data = framed(1, HardState(1, 1, 0), [(1, 1, b"x" * 2000)])
    for length in range(0, len(data), 256):
        assert read_batch(memoryview(data[:length]), 0, SALT, SEGMENT) is None


def test_a_right_checksum_over_wrong_records_is_malformed() -> None:
    good = framed(1, HardState(1, 1, 0), [(1, 1, b"x"), (2, 1, b"y")])
    for offset, byte in [(48, 1), (48, 3), (52, 9), (56, 2), (77, 2)]:
        bad = bytearray(good)
        bad[offset] = byte
        bad[:4] = crc32c(bytes(bad[4:]), SALT).to_bytes(4, "little")
        with pytest.raises(MalformedBatch):
            read_batch(memoryview(bad), 0, SALT, SEGMENT)
        with pytest.raises(DamageError, match="malformed"):
            read_segment("s", segment_of(bytes(bad)))


def test_the_formats_do_not_change() -> None:
    """These bytes are on disks: a change needs a new format version that still reads them."""
    batch = framed(2, HardState(3, 7, 1), [(2, 3, b"hello")], SnapshotMark(1, 2, b"m"))
    assert batch.rstrip(b"\0").hex() == (
        "09159405" "6a000000" "0900000000000000" "0200000000000000" "0300000000000000" "0700000000000000"
        "0100000000000000" "02000000" "02000000" "01000000" "0100000000000000" "0200000000000000" "6d"
        "01000000" "05000000" "0200000000000000" "0300000000000000" "68656c6c6f"
    )  # fmt: skip
    assert HEADER.encode().rstrip(b"\0").hex() == (
        "636f6f726457414c" "7855d8b8" "01000000" "0900000000000000" "0020000000000000" "0700000000000000" "eeffc000"
        "cdab0000" "2900000000000000" "0300000000000000" "0700000000000000" "1400000000000000" "1600000000000000"
        "03"
    )  # fmt: skip


@given(WORDS, WORDS, WORDS, STATES, WORDS, WORDS, st.integers(0, 2**32 - 1))
def test_a_header_is_read_as_it_was_written(
    number: int, member: int, batch: int, state: HardState, index: int, term: int, salt: int
) -> None:
    header = Header(number, 4096, member, salt, salt ^ 1, batch, state, index, term)
    assert Header.decode(header.encode(), "file") == header


def test_a_header_with_any_bit_changed_is_damage() -> None:
    good = HEADER.encode()
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError, match="offset 0"):
            Header.decode(bytes(bad), "file")


def test_a_header_of_a_newer_version_says_to_upgrade() -> None:
    block = bytearray(HEADER.encode())
    block[12] = 2
    block[8:12] = crc32c(bytes(block[12:])).to_bytes(4, "little")
    with pytest.raises(DataDirError, match="upgrade coord first"):
        Header.decode(bytes(block), "file")


def test_names_and_numbers_of_segments() -> None:
    for number in (1, 2**40, 2**64 - 1):
        assert segment_number(segment_name(number)) == number
    for name in ("1.wal", "spare-00000001.tmp", "000000000000000G.wal", "0000000000000001.wal.tmp", ""):
        assert segment_number(name) is None


def test_a_segment_with_any_byte_changed_is_damage_or_a_prefix() -> None:
    """S5: never a wrong entry. Only the last batch may be taken for torn."""
    chance = random.Random(5)
    batches = [framed(41 + n, HardState(3, 7, 20), [(22 + n, 3, chance.randbytes(700 * n))]) for n in (1, 2, 3)]
    good = segment_of(*batches)
    whole = [batch.entries for batch in read_segment("s", good).batches]
    assert len(whole) == 3
    last_start = 512 + len(batches[0]) + len(batches[1])
    end = last_start + len(batches[2])
    for offset in [*range(640), *range(640, end, 7), *range(end, len(good), 97)]:
        bad = bytearray(good)
        bad[offset] ^= 1 << chance.randrange(8)
        try:
            contents = read_segment("s", bytes(bad))
        except DamageError:
            assert offset < 512
            continue
        entries = [batch.entries for batch in contents.batches]
        assert entries == whole[: len(entries)]
        if offset < last_start:
            assert contents.later is not None, "a valid batch follows: damage"
        elif offset < end:
            assert len(entries) == 2
            assert contents.later is None
        else:
            assert len(entries) == 3
            assert contents.later is None

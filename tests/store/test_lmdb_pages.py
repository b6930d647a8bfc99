"""A file of LMDB that lacks pages is refused, but not where nothing refers to them."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

import pytest

from coord.errors import DamageError
from coord.store.lmdb_pages import MalformedPage, check_pages
from coord.store.store import Store

Open = Callable[..., Store]


def flush(store: Store, entry: int) -> None:
    store.seal(entry, 1)
    job = store.flush_job(entry)
    assert job is not None
    job.run()
    store.flushed(job)


def is_whole(data: bytes, page_bytes: int) -> bool:
    try:
        check_pages(data, page_bytes)
    except MalformedPage:
        return False
    return True


def fill(open_lmdb: Open, path: Path, chance: random.Random) -> tuple[int, range, int]:
    """Write and remove records, with a start after each entry; return the size of a page, what is there, and how often
    the file was shorter than LMDB says."""
    shorter = 0
    first = last = 2
    for entry in range(1, 40):
        store = open_lmdb()
        added = chance.choice((0, 1, 50, 2_000))
        for revision in range(last, last + added):
            store.append(revision, 0, b"r" * chance.choice((10, 260, 260, 5_000)))
        last += added
        gone = min(chance.choice((0, 1, 100, 4_000)), last - first)
        store.remove([(first + number, 0) for number in range(gone)])
        first += gone
        flush(store, entry)
        page_bytes, counted = store.engine._env.stat()["psize"], store.engine.size()[0]
        store.close()
        if path.stat().st_size < counted:
            shorter += 1
            assert [revision for revision, _, _ in open_lmdb().scan(0, 1 << 31)] == list(range(first, last))
    return page_bytes, range(first, last), shorter


@pytest.mark.parametrize("seed", [1, 2, 4, 5, 7, 10, 12])
def test_pages_that_a_commit_took_and_freed_need_not_be_there(open_lmdb: Open, directory: Path, seed: int) -> None:
    """LMDB counts them and does not write them: where many records go at once the file is shorter than it says."""
    path = directory / "data.mdb"
    page_bytes, revisions, shorter = fill(open_lmdb, path, random.Random(seed))
    assert shorter, "a seed with which no file is shorter than LMDB says tests nothing"
    # As short as it may be at all, it can be read and written: what is wrong here kills this process.
    data = path.read_bytes()
    sizes = range(len(data) // page_bytes + 1)
    pages = bisect_left(sizes, True, key=lambda pages: is_whole(data[: pages * page_bytes], page_bytes))
    path.write_bytes(data[: (pages - 1) * page_bytes])
    with pytest.raises(DamageError, match=f"its last commit refers to page {pages - 1};"):
        open_lmdb()
    path.write_bytes(data[: pages * page_bytes])
    store = open_lmdb()
    assert [revision for revision, _, _ in store.scan(0, 1 << 31)] == list(revisions)
    store.append(revisions.stop, 0, b"")
    flush(store, 40)


def whole_file(open_lmdb: Open, path: Path) -> tuple[bytes, int]:
    """Return a file with every kind of page, and the size of one."""
    store = open_lmdb()
    for revision in range(2, 1_000):
        store.append(revision, 0, b"r" * (5_000 if revision % 100 == 0 else 260))
    flush(store, 1)
    store.remove([(revision, 0) for revision in range(2, 300)])
    flush(store, 2)
    page_bytes = store.engine._env.stat()["psize"]
    store.close()
    return path.read_bytes(), page_bytes


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_file_holds_it_is_whole_or_malformed(open_lmdb: Open, directory: Path, seed: int) -> None:
    """Nothing else is raised, and the walk comes to an end."""
    chance = random.Random(seed)
    data, page_bytes = whole_file(open_lmdb, directory / "data.mdb")
    assert is_whole(data, page_bytes)
    verdicts = set()
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 20, 200))):
            # Half of the changes are where a page has its number, its flags and the places of its first nodes.
            page = chance.randrange(len(data) // page_bytes) * page_bytes
            place = page + chance.randrange(chance.choice((32, page_bytes)))
            changed[place] = chance.choice((0, 1, 2, 255, chance.randrange(256)))
        verdicts.add(is_whole(bytes(changed), page_bytes))
    assert verdicts == {True, False}


def test_pages_that_refer_to_each_other_in_a_circle_are_found(open_lmdb: Open, directory: Path) -> None:
    data, page_bytes = whole_file(open_lmdb, directory / "data.mdb")
    changed = bytearray(data)
    branches = [start for start in range(2 * page_bytes, len(data), page_bytes) if data[start + 10] == 1]
    assert branches
    for start in branches:
        node = start + int.from_bytes(data[start + 16 : start + 18], "little")
        changed[node : node + 6] = (start // page_bytes).to_bytes(6, "little")
    with pytest.raises(MalformedPage, match="in a circle"):
        check_pages(bytes(changed), page_bytes)


def test_a_page_in_another_ones_place_is_found(open_lmdb: Open, directory: Path) -> None:
    data, page_bytes = whole_file(open_lmdb, directory / "data.mdb")
    leaves = [start for start in range(2 * page_bytes, len(data), page_bytes) if data[start + 10] == 2]
    changed = bytearray(data)
    for start, other in zip(leaves, reversed(leaves), strict=True):
        changed[start : start + page_bytes] = data[other : other + page_bytes]
    with pytest.raises(MalformedPage, match="is not what was written"):
        check_pages(bytes(changed), page_bytes)

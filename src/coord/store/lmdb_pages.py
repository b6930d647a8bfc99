"""Which pages of an LMDB file its last commit refers to. Pure; reads the format of LMDB 0.9 (`mdb.c`), 64 bits.

A commit counts every page that it took, but does not write those that it freed again, as where pages merge when much is
deleted. If they were the last ones, the file is shorter than the count says, and whole: nothing reads a free page. What
LMDB counts therefore does not tell a file that was cut off; what it refers to does.
"""

from __future__ import annotations

import struct
from mmap import mmap
from typing import Final

_META: Final = struct.Struct("<IIQQ48s48sQQ")
"""Magic, version, address, size of the map, free pages' tree, main tree, last page, transaction."""
_TREE: Final = struct.Struct("<IHHQQQQQ")
"""Page size or pad, flags, depth, branch, leaf and overflow pages, entries, root."""
_PAGE: Final = struct.Struct("<QHHHH")
"""Number, pad, flags, lower, upper; then the places of the nodes, two bytes each."""
_NODE: Final = struct.Struct("<HHHH")
"""Low and high half of the size of the data, flags, size of the key; a branch's node has its child's number instead."""
_PLACE: Final = struct.Struct("<H")
_NUMBER: Final = struct.Struct("<Q")

_MAGIC: Final = 0xBEEFC0DE
_VERSION: Final = 1
_NO_ROOT: Final = 0xFFFFFFFFFFFFFFFF
_BRANCH, _LEAF = 1, 2
_BIG, _SUBTREE = 1, 2

Buffer = bytes | mmap


class MalformedPage(ValueError):
    """A page is not there, or is not the one that another refers to."""


def check_pages(data: Buffer, page_bytes: int) -> None:
    """Raise `MalformedPage` if the last commit refers to a page that `data`, a whole file, does not hold."""
    try:
        waiting = _roots(data, page_bytes)
        for _ in range(len(data) // page_bytes):
            if not waiting:
                return
            waiting += _referred(data, page_bytes, waiting.pop())
    except struct.error as error:
        raise MalformedPage(f"a page is not what was written ({error})") from error
    if waiting:
        raise MalformedPage("its pages refer to each other in a circle")


def _roots(data: Buffer, page_bytes: int) -> list[int]:
    metas = [_META.unpack_from(data, number * page_bytes + _PAGE.size) for number in range(2)]
    magic, version, _, _, free, main, _, _ = max(metas, key=lambda meta: int(meta[-1]))
    if (magic, version) != (_MAGIC, _VERSION):
        raise MalformedPage("its first pages are not LMDB's")
    return _root(free) + _root(main)


def _root(tree: bytes) -> list[int]:
    root = _TREE.unpack(tree)[-1]
    return [] if root == _NO_ROOT else [root]


def _referred(data: Buffer, page_bytes: int, number: int) -> list[int]:
    """Return the pages of trees that a page refers to; what lies in pages of its own is checked at once."""
    referred: list[int] = []
    start, flags, nodes = _page(data, page_bytes, number)
    for node in nodes:
        low, high, node_flags, key_bytes = _NODE.unpack_from(data, start + node)
        content = start + node + _NODE.size + key_bytes
        if flags & _BRANCH:
            referred.append(low | high << 16 | node_flags << 32)
        elif node_flags & _BIG:
            (first,) = _NUMBER.unpack_from(data, content)
            _check_there(data, page_bytes, first, -(-(_PAGE.size + (low | high << 16)) // page_bytes))
        elif node_flags & _SUBTREE:
            referred += _root(data[content : content + _TREE.size])
    return referred


def _page(data: Buffer, page_bytes: int, number: int) -> tuple[int, int, list[int]]:
    """Return where a page starts, its flags, and where in it its nodes are."""
    _check_there(data, page_bytes, number, 1)
    start = number * page_bytes
    named, _, flags, lower, _ = _PAGE.unpack_from(data, start)
    if named != number or not flags & (_BRANCH | _LEAF) or not _PAGE.size <= lower <= page_bytes:
        raise MalformedPage(f"page {number} is not what was written")
    return start, flags, [_PLACE.unpack_from(data, start + place)[0] for place in range(_PAGE.size, lower, _PLACE.size)]


def _check_there(data: Buffer, page_bytes: int, number: int, pages: int) -> None:
    if (number + pages) * page_bytes > len(data):
        raise MalformedPage(f"its last commit refers to page {number + pages - 1}")

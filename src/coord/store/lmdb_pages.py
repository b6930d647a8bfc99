"""Which pages of an LMDB file its last commit refers to. Pure; reads the format of LMDB 0.9 (`mdb.c`), 64 bits.

A commit counts every page that it took, but does not write those that it freed again, as where pages merge when much is
deleted. If they were the last ones, the file is shorter than the count says, and whole: nothing reads a free page. What
LMDB counts therefore does not tell a file that was cut off; what it refers to does.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from struct import Struct
from typing import Final

_META: Final = Struct("<IIQQ48s48sQQ")
"""Magic, version, address, size of the map, free pages' tree, main tree, last page, transaction."""
_TREE: Final = Struct("<IHHQQQQQ")
"""Page size or pad, flags, depth, branch, leaf and overflow pages, entries, root."""
_PAGE: Final = Struct("<QHHHH")
"""Number, pad, flags, lower, upper; then the places of the nodes, two bytes each."""
_NODE: Final = Struct("<HHHH")
"""Low and high half of the size of the data, flags, size of the key; a branch's node has its child's number instead."""
_PLACE: Final = Struct("<H")
_NUMBER: Final = Struct("<Q")

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
    metas = [_META.unpack_from(data, number * page_bytes + _PAGE.size) for number in range(2)]
    magic, version, _, _, free, main, _, _ = max(metas, key=lambda meta: int(meta[-1]))
    if (magic, version) != (_MAGIC, _VERSION):
        raise MalformedPage("its first pages are not LMDB's")
    trees = [free, main]
    while trees:
        trees += _subtrees(data, page_bytes, trees.pop())


def _subtrees(data: Buffer, page_bytes: int, tree: bytes) -> Iterator[bytes]:
    """Check the pages of a tree; return the trees in its leaves."""
    root = _TREE.unpack(tree)[-1]
    waiting = [] if root == _NO_ROOT else [root]
    while waiting:
        number = waiting.pop()
        start, flags, nodes = _page(data, page_bytes, number)
        for node in nodes:
            low, high, node_flags, key_bytes = _NODE.unpack_from(data, start + node)
            content = start + node + _NODE.size + key_bytes
            if flags & _BRANCH:
                waiting.append(low | high << 16 | node_flags << 32)
            elif node_flags & _BIG:
                (first,) = _NUMBER.unpack_from(data, content)
                pages = -(-(_PAGE.size + (low | high << 16)) // page_bytes)
                _check_there(data, page_bytes, first, pages)
            elif node_flags & _SUBTREE:
                yield bytes(data[content : content + _TREE.size])


def _page(data: Buffer, page_bytes: int, number: int) -> tuple[int, int, list[int]]:
    """Return where a page starts, its flags, and where in it its nodes are."""
    _check_there(data, page_bytes, number, 1)
    start = number * page_bytes
    named, _, flags, lower, _ = _PAGE.unpack_from(data, start)
    if named != number or not flags & (_BRANCH | _LEAF) or not _PAGE.size <= lower <= page_bytes:
        raise MalformedPage(f"page {number} is not what was written")
    nodes = [_PLACE.unpack_from(data, start + place)[0] for place in range(_PAGE.size, lower, _PLACE.size)]
    if nodes and max(nodes) > page_bytes - _NODE.size:
        raise MalformedPage(f"page {number} is not what was written")
    return start, flags, nodes


def _check_there(data: Buffer, page_bytes: int, number: int, pages: int) -> None:
    if (number + pages) * page_bytes > len(data):
        raise MalformedPage(f"its last commit refers to page {number + pages - 1}")

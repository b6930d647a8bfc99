"""The language of `coord txn`."""

from __future__ import annotations

import pytest

from coord.cli.failure import CommandError
from coord.cli.txn import parse_compare, parse_operation, split_words
from coord.client import op
from coord.client.txn import Compare
from coord.types import CompareResult, CompareTarget, SortOrder, SortTarget


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("put a b", ["put", "a", "b"]),
        ('put "a b" c', ["put", "a b", "c"]),
        (r'put "a\"b\n" c', ["put", 'a"b\n', "c"]),
        ("put 'a b' 'c \"d\"'", ["put", "a b", 'c "d"']),
        ('put a ""', ["put", "a", ""]),
        ("  put   a ", ["put", "a"]),
    ],
)
def test_words(line: str, words: list[str]) -> None:
    assert split_words(line) == words


def test_an_escape_that_does_not_exist() -> None:
    with pytest.raises(CommandError) as caught:
        split_words(r'put "\q" x')
    assert caught.value.status == 3


@pytest.mark.parametrize(
    ("line", "compare"),
    [
        ('value("k") = "v"', Compare(CompareTarget.VALUE, CompareResult.EQUAL, b"k", b"v")),
        ('val("k") != "v"', Compare(CompareTarget.VALUE, CompareResult.NOT_EQUAL, b"k", b"v")),
        ('ver("k") > "1"', Compare(CompareTarget.VERSION, CompareResult.GREATER, b"k", 1)),
        ('c("k") < "1"', Compare(CompareTarget.CREATE, CompareResult.LESS, b"k", 1)),
        ('mod("k") = "-1"', Compare(CompareTarget.MOD, CompareResult.EQUAL, b"k", -1)),
        ('lease("k") = "7b"', Compare(CompareTarget.LEASE, CompareResult.EQUAL, b"k", 0x7B)),
        ('value("a(b)\\x00") = "\\u00e9"', Compare(CompareTarget.VALUE, CompareResult.EQUAL, b"a(b)\0", "é".encode())),
    ],
)
def test_compares(line: str, compare: Compare) -> None:
    assert parse_compare(line) == compare


@pytest.mark.parametrize(
    "line",
    ["", "value", 'value("k")', 'value("k") =', 'value("k") = v', 'mod("k")>"0"', 'mod("k") == "0"', 'm("k") = ""'],
)
def test_what_is_no_compare(line: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_compare(line)
    assert caught.value.status == 3
    assert caught.value.hint


def test_operations_take_the_flags_of_their_commands() -> None:
    assert parse_operation("put k v --prev-kv --lease=7b") == op.put(b"k", b"v", lease=0x7B, prev_kv=True)
    assert parse_operation("put k --ignore-value") == op.put(b"k", b"", ignore_value=True)
    assert parse_operation("del k --prefix") == op.delete(b"k", range_end=b"l")
    assert parse_operation("get k l --limit=2 --keys-only --sort-by=mod" + "ify --order=descend") == op.get(
        b"k",
        range_end=b"l",
        limit=2,
        revision=0,
        sort_order=SortOrder.DESCEND,
        sort_target=SortTarget.MOD,
        serializable=False,
        keys_only=True,
        count_only=False,
    )


@pytest.mark.parametrize(("line", "status"), [("put", 3), ("move a b", 3), ("get a --bogus", 3), ("put a", 128)])
def test_what_is_no_operation(line: str, status: int) -> None:
    with pytest.raises(CommandError) as caught:
        parse_operation(line)
    assert caught.value.status == status

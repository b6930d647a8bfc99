"""Flags are read as etcdctl's parser reads them, and refused in its words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.cli.failure import CommandError
from coord.cli.flags import (
    Flag,
    Parsed,
    duration_value,
    int_value,
    list_value,
    parse,
    plain_int,
    plain_uint,
    text_value,
)
from coord.cli.quoting import quote, quote_char, unquote

FLAGS = (
    Flag("prefix", ""),
    Flag("interactive", "", short="i"),
    Flag("limit", "", 0, int_value, "N"),
    Flag("write-out", "", "simple", text_value, "FORMAT", "w"),
    Flag("endpoints", "", ("here",), list_value, "LIST"),
    Flag("wait", "", 5.0, duration_value, "DURATION"),
)


def read(line: str) -> Parsed:
    return parse(line.split(), FLAGS)


def test_flags_stand_anywhere() -> None:
    for line in ("a b --prefix --limit 3", "--prefix a --limit=3 b", "--limit 3 a --prefix=true b"):
        parsed = read(line)
        assert parsed.words == ("a", "b")
        assert parsed.on("prefix")
        assert parsed.number("limit") == 3


def test_what_is_not_given_has_its_default() -> None:
    parsed = read("")
    assert (parsed.on("prefix"), parsed.number("limit"), parsed.text("write-out")) == (False, 0, "simple")
    assert parsed.seconds("wait") == 5.0


def test_a_flag_alone_takes_no_word() -> None:
    assert read("--prefix false").words == ("false",)
    assert not read("--prefix=false").on("prefix")


@pytest.mark.parametrize("line", ["-wjson", "-w=json", "-w json", "--write-out=json", "-iw json", "-iwjson"])
def test_short_flags(line: str) -> None:
    assert read(line).text("write-out") == "json"


def test_dashes_end_the_flags() -> None:
    parsed = read("a -- --prefix -x")
    assert parsed.words == ("a", "--prefix", "-x")
    assert parsed.after_dashes == 2
    assert not parsed.on("prefix")
    assert read("a").after_dashes is None


def test_a_lone_dash_is_a_word() -> None:
    assert read("- a").words == ("-", "a")


def test_reading_may_stop_at_the_first_word() -> None:
    parsed = parse(["--prefix", "get", "--limit"], FLAGS, stop_at_word=True)
    assert parsed.rest == ("get", "--limit")
    assert parsed.on("prefix")


def test_lists_add_up() -> None:
    assert read("--endpoints=a,b --endpoints c").given["endpoints"] == ("a", "b", "c")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--bogus", "unknown flag: --bogus"),
        ("--pre", "unknown flag: --pre"),
        ("-x", "unknown shorthand flag: 'x' in -x"),
        ("-ix", "unknown shorthand flag: 'x' in -ix"),
        ("--limit", "flag needs an argument: --limit"),
        ("-w", "flag needs an argument: 'w' in -w"),
        ("---x", "bad flag syntax: ---x"),
        ("--=x", "bad flag syntax: --=x"),
        ("--limit=", 'invalid argument "" for "--limit" flag: strconv.ParseInt: parsing "": invalid syntax'),
        ("--limit 08", 'invalid argument "08" for "--limit" flag: strconv.ParseInt: parsing "08": invalid syntax'),
        ("-i=maybe", 'invalid argument "maybe" for "-i, --interactive" flag: strconv.ParseBool: parsing "maybe"'),
        ("--wait=5", 'invalid argument "5" for "--wait" flag: time: missing unit in duration "5"'),
    ],
)
def test_refusals(line: str, text: str) -> None:
    with pytest.raises(CommandError, match="^" + re.escape(text)) as caught:
        read(line)
    assert caught.value.status == 1


@pytest.mark.parametrize("flag", ["cacert", "cert", "key", "user", "password", "insecure-transport", "discovery-srv"])
def test_absent_flags_of_etcdctl_say_why(flag: str) -> None:
    with pytest.raises(CommandError, match=f"unknown flag: --{flag}") as caught:
        read(f"--{flag} x")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "value"), [("10", 10), ("-7", -7), ("+7", 7), ("0x1F", 31), ("017", 15), ("0b11", 3), ("0", 0)]
)
def test_integers(text: str, value: int) -> None:
    assert int_value(text) == value


def test_integers_have_64_bits() -> None:
    assert plain_int(str(2**63 - 1)) == 2**63 - 1
    assert plain_int(str(-(2**63))) == -(2**63)
    for text in (str(2**63), str(-(2**63) - 1)):
        with pytest.raises(ValueError, match="value out of range"):
            plain_int(text)
        with pytest.raises(ValueError, match="value out of range"):
            int_value(text)


def test_ids_of_members_use_all_64_bits() -> None:
    assert plain_uint("f" * 16, 16) == 2**64 - 1
    with pytest.raises(ValueError, match=r"ParseUint: .* value out of range"):
        plain_uint("1" + "0" * 16, 16)


@pytest.mark.parametrize("text", ["", "x", "0x1", "1_0", " 1", "-1", "+1", "٣", "g"])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match=r"ParseUint: .* invalid syntax"):
        plain_uint(text, 16)
    if text not in ("-1", "+1"):
        with pytest.raises(ValueError, match=r"ParseInt: .* invalid syntax"):
            plain_int(text, 16)


@pytest.mark.parametrize("text", ["", "x", "1_0", " 1", "1 ", "--1", "+-1", "0x1", "٣", "-"])
def test_what_is_no_plain_integer(text: str) -> None:
    with pytest.raises(ValueError, match="invalid syntax"):
        plain_int(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("0", 0), ("-2s", -2), (".5s", 0.5), ("1h1m1s", 3661)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_value(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "5", "5y", "5s5", ".s", "1 s", "-"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="time: "):
        duration_value(text)


@given(st.binary())
def test_quoting_loses_nothing(data: bytes) -> None:
    assert unquote(quote(data)) == data
    assert quote(data).isprintable()


def test_quoting_is_gos() -> None:
    data = b"a\x7fb\xc2\x80\xe2\x80\xa8z\xf0\x9f\x98\x80\x1b\xff\n\"'\\"
    assert quote(data) == r'"a\x7fb\u0080\u2028z😀\x1b\xff\n\"' + r"""'\\" """.strip()
    assert quote_char("'") == r"'\''"


@pytest.mark.parametrize(
    "text", ['"', '"a', '"a"b"', r'"\q"', r'"\x1"', r'"\u12"', r'"\400"', r'"\ud800"', "`a`b`", "a"]
)
def test_what_is_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="invalid syntax"):
        unquote(text)


def test_backquotes_and_octal() -> None:
    assert unquote(r"`a\n`") == rb"a\n"
    assert unquote(r'"\101\u00e9"') == "Aé".encode()

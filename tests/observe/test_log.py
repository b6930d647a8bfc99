"""The log: what a line looks like, what is left out, and a reader that does not read."""

import json
import logging
import os

import pytest

from coord.observe.events import CATALOGUE, MalformedEventError, check_event
from coord.observe.kinds import KEY_BYTES_SHOWN, LIMITED_PER_S, RENDER, Kind, Level, clip, show_key
from coord.observe.log import Log, LogContext, RecordingLog, open_log
from coord.observe.output import DescriptorOutput, MemoryOutput

SECOND_NS = 1_000_000_000
NOON_NS = 1_795_348_800 * SECOND_NS + 1_234_567


class Clock:
    def __init__(self) -> None:
        self.now_ns = NOON_NS

    def __call__(self) -> int:
        return self.now_ns


def make(level: Level = Level.INFO) -> tuple[Log, MemoryOutput, Clock]:
    output, clock = MemoryOutput(), Clock()
    return Log(output, level=level, now_ns=clock), output, clock


def test_a_line_has_who_where_and_when() -> None:
    log, output, _ = make()
    log.context = lambda: LogContext("n1", 2**64 - 1, 7, "leader")
    log("wal.segment.rolled", segment=3, index=1200)
    log("wal.segment.rolled", segment=4, index=1300)
    assert json.loads(output.lines[0]) == {
        "ts": "2026-11-22T12:00:00.001234Z",
        "level": "info",
        "event": "wal.segment.rolled",
        "segment": 3,
        "index": 1200,
        "node": "n1",
        "cluster": "ffffffffffffffff",
        "term": 7,
        "role": "leader",
        "seq": 1,
    }
    assert json.loads(output.lines[1])["seq"] == 2


def test_term_and_role_of_a_decision_win_over_those_of_now() -> None:
    log, output, _ = make()
    log.context = lambda: LogContext("n1", 1, 9, "leader")
    log("node.identity.created", member=0xAB, incarnation=1, term=8, role="follower")
    line = json.loads(output.lines[0])
    assert (line["term"], line["role"], line["member"]) == (8, "follower", "ab")


def test_what_does_not_apply_is_left_out() -> None:
    log, output, _ = make()
    log("wal.tail.torn", file="1", offset=0, bytes=None)
    assert "bytes" not in json.loads(output.lines[0])


def test_levels() -> None:
    log, output, _ = make(Level.WARN)
    log("wal.segment.rolled", segment=3, index=1200)
    assert not output.lines
    log.set_level(Level.INFO)
    log("wal.segment.rolled", segment=3, index=1200)
    assert len(output.lines) == 1


def test_limited_events_tell_how_many_were_left_out() -> None:
    log, output, clock = make()
    for _ in range(LIMITED_PER_S + 5):
        log("client.message.refused", peer="10.0.0.1:5", error="not CBOR")
    assert len(output.lines) == LIMITED_PER_S
    clock.now_ns += SECOND_NS
    log("client.message.refused", peer="10.0.0.1:5", error="not CBOR")
    assert json.loads(output.lines[-1])["suppressed"] == 5
    log("client.message.refused", peer="10.0.0.1:5", error="not CBOR")
    assert "suppressed" not in json.loads(output.lines[-1])


def test_strangers_cannot_forge_lines_or_move_the_cursor() -> None:
    output = MemoryOutput()
    log = Log(output, console=True)
    log("client.message.refused", peer="10.0.0.1:5", error="a\nINFO forged \x1b[2J\u202e\x9b")
    log("no.such.event", key=b"k\n\x1b[31m\xff")
    for line in output.lines:
        assert line.decode().isprintable()


def test_long_texts_and_keys_are_cut() -> None:
    assert len(clip("x" * 10_000)) < 1_100
    assert show_key(b"a" * 1000) == "a" * KEY_BYTES_SHOWN + "… (1000 bytes)"
    assert clip(ValueError("broken")) == "ValueError: broken"
    assert clip("as it is: ü ≤") == "as it is: ü ≤"
    assert clip("two\nlines") == "two\\nlines"
    assert len(RENDER[Kind.IDS](range(1, 1000))) == 65


def test_a_mistake_in_a_call_loses_no_line() -> None:
    log, output, _ = make()
    log("no.such.event", error=ValueError("important"))
    log("wal.segment.rolled", segment="three", surprise=object)
    first, second = map(json.loads, output.lines)
    assert (first["level"], first["event"], first["error"]) == ("warn", "no.such.event", "important")
    assert second["segment"] == "'three'"
    assert "object" in second["surprise"]


def test_a_recording_log_refuses_what_is_not_catalogued() -> None:
    log = RecordingLog()
    log("wal.segment.rolled", segment=3, index=1200, term=1, role="leader")
    assert log.names == ["wal.segment.rolled"]
    assert log.of("wal.segment.rolled")[0]["index"] == 1200
    with pytest.raises(MalformedEventError, match="not in the catalogue"):
        log("no.such.event")
    with pytest.raises(MalformedEventError, match="missing or unknown: index"):
        log("wal.segment.rolled", segment=3)
    with pytest.raises(MalformedEventError, match="segment is a integer, not 'three'"):
        log("wal.segment.rolled", segment="three", index=1)
    with pytest.raises(MalformedEventError, match="not True"):
        log("wal.segment.rolled", segment=True, index=1)


def test_every_kind_of_event_can_be_written() -> None:
    values = {
        Kind.INT: 1,
        Kind.FLOAT: 1.5,
        Kind.BOOL: True,
        Kind.TEXT: "text",
        Kind.TEXTS: ["a"],
        Kind.ID: 2**64 - 1,
        Kind.IDS: [1],
        Kind.KEY: b"key",
    }
    for name, spec in CATALOGUE.items():
        fields = {field: values[kind] for field, kind in spec.fields.items()}
        check_event(name, fields)
        RecordingLog()(name, **fields)


def test_names_are_regular_and_tell_no_secrets() -> None:
    own = {"ts", "level", "event", "node", "cluster", "term", "role", "seq", "suppressed"}
    for name, spec in CATALOGUE.items():
        assert len(name.split(".")) == 3, name
        assert name.replace(".", "").replace("_", "").islower(), name
        assert not spec.fields.keys() & own, name
        assert not spec.fields.keys() & {"value", "password", "token", "secret", "authorization"}, name
        assert spec.meaning.endswith("."), name
        for field, kind in spec.fields.items():
            assert (kind is Kind.FLOAT) == (field == "ms" or field.endswith("_ms")), (name, field)


def fill(descriptor: int) -> None:
    """Fill a pipe, so that nothing more can be written."""
    os.set_blocking(descriptor, False)
    try:
        while True:
            os.write(descriptor, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(descriptor, True)


def drain(descriptor: int) -> bytes:
    os.set_blocking(descriptor, False)
    data = b""
    try:
        while piece := os.read(descriptor, 65536):
            data += piece
    except BlockingIOError:
        pass
    return data


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            assert descriptor == reader  # one test closes it


def test_a_stuck_reader_holds_nobody_up_and_lost_lines_are_counted(pipe) -> None:
    reader, writer = pipe
    output = DescriptorOutput(writer, backlog_bytes_max=1000)
    log = Log(output)
    fill(writer)
    for index in range(100):
        log("wal.segment.rolled", segment=1, index=index)
    assert output.dropped > 90
    assert set(drain(reader)) == {ord("x")}
    log.pump()
    log("wal.segment.rolled", segment=1, index=100)
    lines = [json.loads(line) for line in drain(reader).splitlines()]
    kept = [line["index"] for line in lines if "index" in line]
    assert kept == [*range(len(kept) - 1), 100]
    assert lines[-1]["event"] == "log.lines.dropped"
    assert lines[-1]["lines"] == 100 - len(kept) + 1


def test_a_long_backlog_is_written_in_pieces(pipe) -> None:
    reader, writer = pipe
    output = DescriptorOutput(writer)
    fill(writer)
    for number in range(3000):
        output.write(b"%d " % number + b"y" * 100)
    data = b""
    while not output.pump():
        data += drain(reader)
    data += drain(reader)
    assert data.lstrip(b"x").count(b"\n") == 3000
    assert output.dropped == 0


def test_a_reader_that_has_gone_ends_nothing(pipe) -> None:
    reader, writer = pipe
    os.close(reader)
    output = DescriptorOutput(writer)
    output.write(b"line")
    assert output.dropped == 1


def test_the_process_log(capfd, monkeypatch) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        log = open_log(Level.INFO, "auto", {})
        log("wal.segment.rolled", segment=3, index=1200)
        logging.getLogger("trio-websocket").warning("half %s", "open")
        logging.getLogger("trio-websocket").info("chatter")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    first, second = map(json.loads, capfd.readouterr().err.splitlines())
    assert first["event"] == "wal.segment.rolled"
    assert (second["event"], second["library"], second["text"]) == (
        "log.library.warned",
        "trio-websocket",
        "half open",
    )


@pytest.mark.parametrize(("environ", "colours"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_on_a_terminal_only(environ, colours, monkeypatch) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    leader, follower = os.openpty()
    try:
        with os.fdopen(follower, "w") as terminal:
            monkeypatch.setattr("sys.stderr", terminal)
            open_log(Level.INFO, "auto", environ)("wal.segment.rolled", segment=3, index=1200)
            text = os.read(leader, 4096)
    finally:
        os.close(leader)
        root.handlers[:] = handlers
        root.setLevel(level)
    assert b"wal.segment.rolled" in text
    assert not text.startswith(b"{")
    assert (b"\x1b[" in text) is colours

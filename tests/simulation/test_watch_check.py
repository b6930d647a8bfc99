"""Each promise of a watch, broken once."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from tests.simulation.histories import Perfect

from coord.protocol.ops import Op
from coord.testing.history import Kind, WatchEnd, WatchEvents, WatchProgress, WatchRecord
from coord.testing.watch_check import check_watches


def scene(*, asked: int = 1, prev_kv: bool = True) -> tuple[Perfect, WatchRecord]:
    """Return a watch that was told everything: puts, a put again, and a revision of two events."""
    server = Perfect(random.Random(1))
    server.put(b"a", b"1")
    server.put(b"b", b"2")
    server.put(b"a", b"3")
    puts = [[int(Op.PUT), [key, key + b"4"]] for key in (b"a", b"b")]
    server.do("someone", Kind.WRITE, [0, int(Op.TXN), None, [[], puts, []]])
    return server, server.watch(asked=asked, prev_kv=prev_kv)


def swap(record: WatchRecord) -> None:
    record.told[0], record.told[1] = record.told[1], record.told[0]


def lose(record: WatchRecord) -> None:
    del record.told[1]


def repeat(record: WatchRecord) -> None:
    record.told.insert(2, record.told[1])


def halve(record: WatchRecord) -> None:
    item = record.told[3]
    assert isinstance(item, WatchEvents)
    del item.events[1]


def halve_and_say_so(record: WatchRecord) -> None:
    item = record.told[3]
    assert isinstance(item, WatchEvents)
    item.events = item.events[:1]
    item.is_fragment = True


def overtake(record: WatchRecord) -> None:
    record.told.insert(2, WatchProgress(5))
    del record.told[3:]


def forget_before(record: WatchRecord) -> None:
    item = record.told[2]
    assert isinstance(item, WatchEvents)
    item.events[0][2] = None


def go_back(record: WatchRecord) -> None:
    record.told.append(WatchProgress(3))


def start_below(record: WatchRecord) -> None:
    record.start = record.asked = 3


def start_elsewhere(record: WatchRecord) -> None:
    record.start = 2


def end_and_go_on(record: WatchRecord) -> None:
    record.told.insert(1, WatchEnd(0, "no leader"))


def end_without_cause(record: WatchRecord) -> None:
    record.told.append(WatchEnd(4, "compacted"))


SPOILERS: dict[Callable[[WatchRecord], None], str] = {
    swap: "late",
    lose: "got 0 of 1 events of revision 3",
    repeat: "got revision 3 again",
    halve: "got 1 of 2 events of revision 5",
    halve_and_say_so: "got 1 of 2 events of revision 5",
    overtake: "got 0 of 1 events of revision 4",
    forget_before: "not [",
    go_back: "progress went back",
    start_below: "below its start",
    start_elsewhere: "though 1 was asked for",
    end_and_go_on: "after its end",
    end_without_cause: "that never was",
}


def test_what_was_told_in_full_is_accepted() -> None:
    for asked, prev_kv in ((1, True), (3, True), (1, False)):
        server, _ = scene(asked=asked, prev_kv=prev_kv)
        assert check_watches(server.history, server.model) == []


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_what_was_told_wrongly_is_found(spoil: Callable[[WatchRecord], None]) -> None:
    server, record = scene()
    spoil(record)
    found = check_watches(server.history, server.model)
    assert any(SPOILERS[spoil] in what for what in found), found


def test_a_filter_leaves_out_what_it_says() -> None:
    server, record = scene()
    record.key, record.range_end = b"b", b""
    found = check_watches(server.history, server.model)
    assert any("events of revision 2" in what for what in found), found
    server, record = scene()
    record.no_put = True
    assert check_watches(server.history, server.model)


def test_a_watch_resumes_behind_its_last_whole_revision() -> None:
    _, record = scene()
    assert record.next_revision == 6
    halve_and_say_so(record)
    record.told = record.told[:4]
    assert record.next_revision == 5


def test_a_watch_from_now_on_starts_behind_what_was_acknowledged() -> None:
    server = Perfect(random.Random(1))
    server.put(b"a", b"1")
    record = server.watch(asked=0)
    server.put(b"a", b"2")
    assert record.start == 3
    record.told = []
    assert check_watches(server.history, server.model) == []
    record.start = 2
    assert any("before what was acknowledged" in what for what in check_watches(server.history, server.model))
    record.start = 4
    assert any("behind a write that came later" in what for what in check_watches(server.history, server.model))


def test_a_compacted_start_ends_with_the_revision() -> None:
    server, record = scene()
    server.do("someone", Kind.WRITE, [0, int(Op.COMPACT), None, [5]])
    record.told = [WatchEnd(5, "compacted")]
    assert check_watches(server.history, server.model) == []
    record.told = []
    assert check_watches(server.history, server.model) == []

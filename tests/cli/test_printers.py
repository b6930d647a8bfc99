"""What the table of command lines cannot show: exact widths, jsonl, rare answers."""

from __future__ import annotations

import json

import pytest

from coord.cli.output.documents import JsonPrinter, document
from coord.cli.output.fields import FieldsPrinter
from coord.cli.output.lines import LinesPrinter
from coord.cli.output.printer import EndpointHash, EndpointStatus, Printer, WatchEvents
from coord.cli.output.rows import go_duration, human_bytes
from coord.cli.output.simple import SimplePrinter
from coord.cli.output.table import TablePrinter, render
from coord.client import responses as r
from coord.protocol.entries import Member
from coord.types import AlarmType, Event, EventType, KeyValue, LeaseId, Revision

MEMBER = 0x2E1259D415F2A040
HEADER = r.Header(324952591200643719, MEMBER, Revision(7), 2)
PAIR = KeyValue(b"cfg/a", Revision(2), Revision(5), 3, LeaseId(0), b"blue")
LEASED = KeyValue(b"\xff", Revision(2), Revision(6), 1, LeaseId(0x123), b"\xfe")
GONE = KeyValue(b"cfg/a", Revision(0), Revision(7), 0, LeaseId(0), b"")
MEMBERS = r.MemberListResponse(
    HEADER, [Member(MEMBER, "default", ("http://127.0.0.1:23800",), ("http://127.0.0.1:23790",), False)]
)


def status(*errors: str) -> r.StatusResponse:
    return r.StatusResponse(HEADER, "3.4.23", 20480, 16384, 2**31, MEMBER, 7, 2, 7, list(errors), False)


def objects(printed: bytes) -> list[object]:
    return [json.loads(line) for line in printed.splitlines()]


def test_tables_are_etcdctls_to_the_letter() -> None:
    assert TablePrinter().status([EndpointStatus("127.0.0.1:23790", status())]).decode() == (
        "+-----------------+------------------+---------+---------+-----------+------------+-----------+"
        "------------+--------------------+--------+\n"
        "|    ENDPOINT     |        ID        | VERSION | DB SIZE | IS LEADER | IS LEARNER | RAFT TERM |"
        " RAFT INDEX | RAFT APPLIED INDEX | ERRORS |\n"
        "+-----------------+------------------+---------+---------+-----------+------------+-----------+"
        "------------+--------------------+--------+\n"
        "| 127.0.0.1:23790 | 2e1259d415f2a040 |  3.4.23 |   20 kB |      true |      false |         2 |"
        "          7 |                  7 |        |\n"
        "+-----------------+------------------+---------+---------+-----------+------------+-----------+"
        "------------+--------------------+--------+\n"
    )
    assert TablePrinter().member_list(MEMBERS).decode() == (
        "+------------------+---------+---------+------------------------+------------------------+------------+\n"
        "|        ID        | STATUS  |  NAME   |       PEER ADDRS       |      CLIENT ADDRS      | IS LEARNER |\n"
        "+------------------+---------+---------+------------------------+------------------------+------------+\n"
        "| 2e1259d415f2a040 | started | default | http://127.0.0.1:23800 | http://127.0.0.1:23790 |      false |\n"
        "+------------------+---------+---------+------------------------+------------------------+------------+\n"
    )


def test_long_cells_are_wrapped_between_words() -> None:
    lines = render(("error",), [("memberID:3319814642761637952 alarm:NOSPACE ",)]).decode().splitlines()
    assert lines[3:5] == ["| memberID:3319814642761637952 |", "|               alarm:NOSPACE  |"]


def test_a_table_without_rows() -> None:
    assert render(("a", "b"), []).decode() == "+---+---+\n| A | B |\n+---+---+\n+---+---+\n"


def test_jsonl_is_an_object_a_key() -> None:
    printed = LinesPrinter().get(r.RangeResponse(HEADER, [PAIR, LEASED], False, 2))
    assert objects(printed) == [
        {"key": "cfg/a", "value": "blue", "create_revision": 2, "mod_revision": 5, "version": 3},
        {
            "key_base64": "/w==",
            "value_base64": "/g==",
            "create_revision": 2,
            "mod_revision": 6,
            "version": 1,
            "lease": "0000000000000123",
        },
    ]


def test_jsonl_of_a_count() -> None:
    assert objects(LinesPrinter().get(r.RangeResponse(HEADER, [], False, 12))) == [{"count": 12}]
    assert LinesPrinter().get(r.RangeResponse(HEADER, [], False, 0)) == b""


def test_jsonl_is_an_object_an_event() -> None:
    events = [Event(EventType.PUT, PAIR), Event(EventType.DELETE, GONE, PAIR)]
    printed = objects(LinesPrinter().watch(WatchEvents(HEADER, r.Batch(Revision(7), events))))
    pair = {"key": "cfg/a", "value": "blue", "create_revision": 2, "mod_revision": 5, "version": 3}
    assert printed == [
        {"type": "PUT", "revision": 5, **pair},
        {"type": "DELETE", "revision": 7, "key": "cfg/a", "prev_kv": pair},
    ]
    nothing = r.Batch(Revision(9), [])
    assert objects(LinesPrinter().watch(WatchEvents(HEADER, nothing))) == [{"type": "PROGRESS", "revision": 9}]
    canceled = WatchEvents(HEADER, nothing, canceled=True, compact_revision=4)
    assert objects(LinesPrinter().watch(canceled)) == [{"type": "CANCELED", "compact_revision": 4}]


def test_jsonl_of_everything_else() -> None:
    printer = LinesPrinter()
    inner = r.TxnResponse(HEADER, False, [])
    answers = [
        r.PutResponse(HEADER, PAIR),
        r.DeleteResponse(HEADER, 1, []),
        r.RangeResponse(HEADER, [], False, 0),
        inner,
    ]
    put, deleted, got, nested = objects(printer.txn(r.TxnResponse(HEADER, True, answers)))[1:]
    assert [each["op"] for each in (put, deleted, got, nested)] == ["put", "del", "get", "txn"]  # type: ignore[index]
    assert objects(printer.put(r.PutResponse(HEADER, None))) == [{"revision": 7}]
    assert objects(printer.delete(r.DeleteResponse(HEADER, 2, [])))[0] == {"deleted": 2, "revision": 7}
    assert objects(printer.grant(r.LeaseGrantResponse(HEADER, LeaseId(1), 60))) == [
        {"id": "0000000000000001", "ttl": 60}
    ]
    assert objects(printer.revoke(LeaseId(1), r.LeaseRevokeResponse(HEADER)))[0]["revoked"]  # type: ignore[index]
    assert objects(printer.keep_alive(r.LeaseKeepAliveResponse(HEADER, LeaseId(1), 60)))
    left = r.LeaseTimeToLiveResponse(HEADER, LeaseId(1), 5, 60, [b"a", b"\xff"])
    assert objects(printer.time_to_live(left, True))[0]["keys"] == ["a", "\\xff"]  # type: ignore[index]
    assert objects(printer.leases(r.LeaseLeasesResponse(HEADER, [LeaseId(1), LeaseId(2)])))[1]
    assert objects(printer.member_list(MEMBERS))[0]["id"] == f"{MEMBER:x}"  # type: ignore[index]
    alarms = r.AlarmResponse(HEADER, [r.Alarm(MEMBER, AlarmType.NOSPACE)])
    assert objects(printer.alarms(alarms)) == [{"member": f"{MEMBER:x}", "alarm": "NOSPACE"}]
    assert objects(printer.health([r.Health("e", True, 0.0015, "")]))[0]["took_ms"] == 1.5  # type: ignore[index]
    assert objects(printer.status([EndpointStatus("e", status())]))[0]["is_leader"]  # type: ignore[index]
    hashed = EndpointHash("e", r.HashKVResponse(HEADER, 5, -1, 7))
    assert objects(printer.hash_kv([hashed]))[0]["hash_revision"] == 7  # type: ignore[index]


def test_alarms_in_every_format() -> None:
    alarms = r.AlarmResponse(HEADER, [r.Alarm(MEMBER, AlarmType.NOSPACE)])
    assert SimplePrinter().alarms(alarms) == b"memberID:3319814642761637952 alarm:NOSPACE \n"
    assert FieldsPrinter().alarms(alarms).endswith(b'"MemberID" : 3319814642761637952\n"AlarmType" : NOSPACE\n\n')
    shown = json.loads(JsonPrinter().alarms(alarms))
    assert shown["alarms"] == [{"memberID": MEMBER, "alarm": 1}]


def test_what_is_wrong_with_an_endpoint() -> None:
    healths = [r.Health("e1", False, 0.0, "context deadline exceeded")]
    expected = b"e1 is unhealthy: failed to commit proposal: context deadline exceeded\n"
    assert SimplePrinter().health(healths) == expected
    assert json.loads(JsonPrinter().health(healths)) == [
        {"endpoint": "e1", "health": False, "took": "", "error": "context deadline exceeded"}
    ]
    asked = [EndpointStatus("e1", status("memberID:1 alarm:NOSPACE ", "no leader"))]
    assert SimplePrinter().status(asked).endswith(b"memberID:1 alarm:NOSPACE , no leader\n")
    assert b'"Errors" : [memberID:1 alarm:NOSPACE  no leader]\n' in FieldsPrinter().status(asked)
    shown = json.loads(JsonPrinter().status(asked))[0]["Status"]
    assert list(shown)[-2:] == ["errors", "dbSizeInUse"]


JOINING = Member(1, "", ("http://10.0.0.4:7380", "http://10.0.1.4:7380"), (), True, becomes_voter=True)
STRANGER = Member(2, "", ("http://10.0.0.5:7380",), (), True)
ADDED = r.MemberAddResponse(HEADER, JOINING, [JOINING, STRANGER, *MEMBERS.members])


def test_a_new_member_is_told_how_to_start() -> None:
    # Nobody knows by which name one is called that never started, so it is left out.
    assert SimplePrinter().member_add('n"4', ADDED).decode() == (
        "Member                1 added to cluster  48276a8f75b6a87\n"
        "\n"
        'COORD_NAME="n\\"4"\n'
        'COORD_INITIAL_CLUSTER="n\\"4=http://10.0.0.4:7380,n\\"4=http://10.0.1.4:7380,default=http://127.0.0.1:23800"\n'
        'COORD_INITIAL_ADVERTISE_PEER_URLS="http://10.0.0.4:7380,http://10.0.1.4:7380"\n'
        'COORD_INITIAL_CLUSTER_STATE="existing"\n'
    )
    own = '{"ID":3319814642761637952,"name":"default","peerURLs":["http://127.0.0.1:23800"],'
    own += '"clientURLs":["http://127.0.0.1:23790"]}'
    joining = '{"ID":1,"peerURLs":["http://10.0.0.4:7380","http://10.0.1.4:7380"],"isLearner":true}'
    stranger = '{"ID":2,"peerURLs":["http://10.0.0.5:7380"],"isLearner":true}'
    header = '{"cluster_id":324952591200643719,"member_id":3319814642761637952,"raft_term":2}'
    assert JsonPrinter().member_add("n4", ADDED).decode() == (
        f'{{"header":{header},"member":{joining},"members":[{joining},{stranger},{own}]}}\n'
    )
    (line,) = objects(LinesPrinter().member_add("n4", ADDED))
    assert (line["id"], line["name"], line["becomes_voter"], line["added"]) == ("1", "n4", True, True)  # type: ignore[index]


def test_changes_of_members_in_every_format() -> None:
    rest = MEMBERS.members
    simple, json_, lines = SimplePrinter(), JsonPrinter(), LinesPrinter()
    removed = r.MemberRemoveResponse(HEADER, rest)
    assert simple.member_remove([1, 2], removed).splitlines()[1] == (
        b"Member                2 removed from cluster  48276a8f75b6a87"
    )
    assert objects(lines.member_remove([1, 2], removed)) == [{"id": "1", "removed": True}, {"id": "2", "removed": True}]
    updated, promoted = r.MemberUpdateResponse(HEADER, rest), r.MemberPromoteResponse(HEADER, rest)
    assert simple.member_update(MEMBER, updated) == b"Member 2e1259d415f2a040 updated in cluster  48276a8f75b6a87\n"
    assert simple.member_promote(MEMBER, promoted) == b"Member 2e1259d415f2a040 promoted in cluster  48276a8f75b6a87\n"
    for shown in (lines.member_update(MEMBER, updated), lines.member_promote(MEMBER, promoted)):
        assert shown == lines.member_list(MEMBERS)
    for shown in (
        json_.member_remove([1], removed),
        json_.member_update(1, updated),
        json_.member_promote(1, promoted),
    ):
        assert shown == json_.member_list(MEMBERS)
    moved = r.MoveLeaderResponse(HEADER, 0xB)
    assert simple.move_leader(0xA, moved) == b"Leadership transferred from a to b\n"
    assert objects(lines.move_leader(0xA, moved)) == [{"leader": "b", "before": "a"}]


def test_a_member_that_never_started_has_no_name() -> None:
    members = r.MemberListResponse(HEADER, [Member(1, "", ("http://10.0.0.1:7380",), (), True)])
    assert SimplePrinter().member_list(members) == b"1, unstarted, , http://10.0.0.1:7380, , true\n"
    assert json.loads(JsonPrinter().member_list(members))["members"] == [
        {"ID": 1, "peerURLs": ["http://10.0.0.1:7380"], "isLearner": True}
    ]


@pytest.mark.parametrize("printer", [SimplePrinter(), FieldsPrinter(), JsonPrinter(), LinesPrinter()])
def test_a_transaction_inside_a_transaction(printer: Printer) -> None:
    inner = r.TxnResponse(HEADER, False, [r.PutResponse(HEADER, None)])
    shown = printer.txn(r.TxnResponse(HEADER, True, [inner]))
    if isinstance(printer, SimplePrinter):
        assert shown == b"SUCCESS\n\nFAILURE\n\nOK\n"
    if isinstance(printer, JsonPrinter):
        inside = {"header": {"revision": 7}, "responses": [{"Response": {"ResponsePut": {"header": {"revision": 7}}}}]}
        assert json.loads(shown)["responses"] == [{"Response": {"ResponseTxn": inside}}]


def test_json_is_escaped_as_go_does() -> None:
    assert document({"a": "<é>&\u2028\x01"}) == '{"a":"\\u003cé\\u003e\\u0026\\u2028\\u0001"}\n'.encode()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (5e-9, "5ns"),
        (1.5e-6, "1.5µs"),
        (0.001734999, "1.734999ms"),
        (2.5, "2.5s"),
        (60, "1m0s"),
        (90.5, "1m30.5s"),
        (3661.25, "1h1m1.25s"),
    ],
)
def test_durations_are_gos(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (9, "9 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (20480, "20 kB"),
        (1_500_000, "1.5 MB"),
        (10**9, "1.0 GB"),
    ],
)
def test_sizes_are_for_people(size: int, text: str) -> None:
    assert human_bytes(size) == text

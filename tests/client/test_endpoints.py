"""How endpoints are written, in which order they are tried, and how long a client rests between tries."""

from __future__ import annotations

from random import Random

import pytest

from coord.client.endpoints import (
    BACKOFF_MAX_S,
    REFUSAL_PAUSE_MAX_S,
    Endpoint,
    Rotation,
    backoff_s,
    parse_endpoint,
    parse_endpoints,
    refusal_pause_s,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n1", Endpoint("n1", 7379)),
        ("n1:80", Endpoint("n1", 80)),
        (" 127.0.0.1:7379 ", Endpoint("127.0.0.1", 7379)),
        ("[::1]", Endpoint("::1", 7379)),
        ("[fe80::1%eth0]:80", Endpoint("fe80::1%eth0", 80)),
        ("http://n1:80/", Endpoint("n1", 80)),
        ("ws://n1", Endpoint("n1", 7379)),
        ("HTTPS://[::1]:80", Endpoint("::1", 80, is_tls=True)),
        ("wss://n1:1", Endpoint("n1", 1, is_tls=True)),
    ],
)
def test_an_endpoint_is_written_in_any_of_these_ways(text: str, expected: Endpoint) -> None:
    assert parse_endpoint(text) == expected
    assert parse_endpoint(str(expected)) == Endpoint(expected.host, expected.port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "n1:",
        "n1:0",
        "n1:65536",
        "n1:-1",
        "n1:80x",
        "n1:²",
        "::1:80",
        "[::1",
        "[::1]80",
        "ftp://n1",
        "n1/path",
    ],
)
def test_an_endpoint_that_cannot_be_one_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        parse_endpoint(text)


def test_endpoints_come_as_a_list_or_a_text_and_are_kept_once() -> None:
    expected = [Endpoint("a", 7379), Endpoint("b", 1)]
    assert parse_endpoints("a, b:1,,a:7379") == expected
    assert parse_endpoints(["a", "http://b:1", "a"]) == expected
    for nothing in ("", " , ", []):
        with pytest.raises(ValueError, match="no endpoint"):
            parse_endpoints(nothing)


def test_pauses_grow_are_bounded_and_are_spread() -> None:
    random = Random(1)
    for attempt in range(1, 100):
        pauses = [backoff_s(attempt, random) for _ in range(50)]
        full = min(0.025 * 2 ** (attempt - 1), BACKOFF_MAX_S)
        assert full / 2 <= min(pauses) < max(pauses) <= full * 1.5
    assert max(refusal_pause_s(9, random) for _ in range(50)) <= REFUSAL_PAUSE_MAX_S * 1.5


def a_rotation(count: int = 3) -> Rotation:
    return Rotation([Endpoint(f"n{number}", 1) for number in range(count)], Random(3))


def test_clients_spread_over_the_endpoints() -> None:
    first = {Rotation(a_rotation().endpoints, Random(seed)).next_endpoint() for seed in range(40)}
    assert len(first) == 3


def test_every_endpoint_has_its_turn_before_there_is_a_pause() -> None:
    rotation = a_rotation()
    for round_number in range(3):
        tried = []
        for _ in range(3):
            if not tried:
                assert (rotation.pause_s() > 0) == (round_number > 0)
            endpoint = rotation.next_endpoint()
            tried.append(endpoint)
            rotation.failed(endpoint, "refused")
        assert set(tried) == set(rotation.endpoints)
    rotation.reached(rotation.endpoints[0], 7)
    assert rotation.pause_s() == 0
    assert rotation.explain() == "n0:1: not tried yet; n1:1: refused; n2:1: refused"


def test_what_fails_to_stand_by_makes_nobody_wait() -> None:
    rotation = a_rotation()
    for _ in range(50):
        rotation.failed(rotation.endpoints[1], "refused", is_standby=True)
    assert rotation.pause_s() == 0


def test_the_leader_is_tried_first_unless_something_just_failed() -> None:
    rotation = a_rotation()
    for number, endpoint in enumerate(rotation.endpoints):
        rotation.reached(endpoint, number + 1)
    rotation.leader_id = 2
    assert {rotation.next_endpoint() for _ in range(9)} == {rotation.endpoints[1]}
    assert rotation.leads(rotation.endpoints[1])
    assert rotation.endpoints[1] not in {rotation.next_endpoint({rotation.endpoints[1]}) for _ in range(9)}
    # The leader's connection broke: it is most likely dead.
    rotation.failed(rotation.endpoints[1], "reset")
    assert {rotation.next_endpoint() for _ in range(9)} == set(rotation.endpoints)


def test_a_single_endpoint_is_tried_even_if_it_is_to_be_avoided() -> None:
    rotation = a_rotation(1)
    assert rotation.next_endpoint({rotation.endpoints[0]}) == rotation.endpoints[0]

"""Instances as they stand in the store, and the choice among them."""

from __future__ import annotations

from itertools import count
from random import Random
from typing import Any

import pytest

from coord.client.recipes.instances import (
    DOCUMENT_BYTES_MAX,
    Instance,
    decode_instance,
    encode_document,
    instance_key,
    service_prefix,
)
from coord.client.recipes.picking import Picker
from coord.client.recipes.service_view import ServiceView
from coord.errors import NoInstance
from coord.types import KeyValue, LeaseId, Revision


def pair(lease: int, value: bytes, key: bytes | None = None, created: int = 5, modified: int = 0) -> KeyValue:
    name = instance_key("api", lease) if key is None else key
    return KeyValue(name, Revision(created), Revision(modified or created), 1, LeaseId(lease), value)


REVISIONS = count(100)


def an_instance(lease: int, address: str, created: int = 0, modified: int = 0, **metadata: Any) -> KeyValue:
    return pair(lease, encode_document(address, metadata), None, created or next(REVISIONS), modified)


class View(ServiceView):
    def __init__(self) -> None:
        self.now = 10.0
        super().__init__("api", Random(1), lambda: self.now)

    def show(self, *kvs: KeyValue) -> bool:
        return self._show({kv.key: kv for kv in kvs})

    @property
    def addresses(self) -> list[str]:
        return [instance.address for instance in self]


def test_an_instance_reads_as_it_was_written() -> None:
    assert instance_key("api", 0x6948ABC) == b"api/instance/6948abc"
    document = encode_document("10.0.0.5:80", {"zone": "ä", "weight": 3})
    assert document == '{"address":"10.0.0.5:80","metadata":{"zone":"ä","weight":3}}'.encode()
    assert encode_document("[::1]:80", None) == encode_document("[::1]:80", {}) == b'{"address":"[::1]:80"}'
    instance = decode_instance(b"api/instance/", pair(7, document))
    assert instance == Instance("10.0.0.5:80", {"zone": "ä", "weight": 3})
    assert instance is not None
    assert (instance.key, instance.lease, instance.revision, str(instance)) == (b"api/instance/7", 7, 5, "10.0.0.5:80")
    with pytest.raises(TypeError):
        instance.metadata["zone"] = "b"  # type: ignore[index]
    assert len({instance, Instance("10.0.0.5:80")}) == 2


@pytest.mark.parametrize("service", ["", "/", "/api", "api/", "a" * 1025])
def test_what_cannot_name_a_service_is_refused(service: str) -> None:
    with pytest.raises(ValueError, match="cannot name a service"):
        service_prefix(service)


def test_what_can_be_no_address_and_no_metadata_is_refused() -> None:
    for address in ("", "a b", "a\nb", "a\0", "x" * 1025, "\ud800"):
        with pytest.raises(ValueError, match="address"):
            encode_document(address, None)
    with pytest.raises(TypeError, match="an address is text, not bytes"):
        encode_document(b"10.0.0.5:80", None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="names of metadata are text, not int: 1"):
        encode_document("a", {1: "b"})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match=r"metadata is what JSON knows: .*bytes"):
        encode_document("a", {"b": b"c"})
    for value in (float("nan"), "\ud800"):
        with pytest.raises(ValueError, match="metadata is what JSON knows"):
            encode_document("a", {"b": value})
    with pytest.raises(ValueError, match=f"{DOCUMENT_BYTES_MAX} are allowed"):
        encode_document("a", {"b": "c" * DOCUMENT_BYTES_MAX})


@pytest.mark.parametrize(
    "kv",
    [
        pair(0, b'{"address":"a"}', b"api/instance/0"),
        pair(7, b'{"address":"a"}', b"api/instance/07"),
        pair(7, b'{"address":"a"}', b"api/instance/8"),
        pair(7, b'{"address":"a"}', b"api/instance/b/7"),
        pair(0xAB, b'{"address":"a"}', b"api/instance/AB"),
        pair(7, b'{"address":"a"}', b"api/7"),
        pair(7, b""),
        pair(7, b"10.0.0.5:80"),
        pair(7, b"\xff"),
        pair(7, b'"address"'),
        pair(7, b"[1]"),
        pair(7, b"7"),
        pair(7, b"{}"),
        pair(7, b'{"address":7}'),
        pair(7, b'{"address":""}'),
        pair(7, b'{"address":"a\\n"}'),
        pair(7, b'{"address":"a","metadata":[1]}'),
        pair(7, b"[" * 60_000),
        pair(7, b'{"address":"a","more":"%s"}' % (b"x" * DOCUMENT_BYTES_MAX)),
    ],
    ids=lambda kv: f"{kv.key[:20]!r} {kv.value[:24]!r}",
)
def test_what_is_no_instance_is_left_out(kv: KeyValue) -> None:
    assert decode_instance(b"api/instance/", kv) is None
    view = View()
    view.show(kv, an_instance(9, "b"))
    assert view.addresses == ["b"]


def test_what_later_releases_add_is_ignored() -> None:
    assert decode_instance(b"api/instance/", pair(7, b'{"address":"a","metadata":null,"more":[1]}')) == Instance("a")


def test_an_address_is_shown_once_as_its_newest_registration_has_it() -> None:
    view = View()
    assert view.show(an_instance(7, "a", created=5, zone="old"), an_instance(8, "b", created=6))
    assert view.version == 1
    # Restarted: its old lease has not expired yet.
    assert view.show(
        an_instance(7, "a", created=5, zone="old"), an_instance(8, "b", 6), an_instance(9, "a", 7, zone="new")
    )
    assert view.addresses == ["a", "b"]
    assert view.instances[0].metadata == {"zone": "new"}
    # The residue goes: nothing has changed for anybody.
    assert not view.show(an_instance(8, "b", created=6), an_instance(9, "a", created=7, zone="new"))
    assert view.version == 2
    # Registered anew under another lease: the same instance, with another key.
    assert not view.show(an_instance(8, "b", created=6), an_instance(10, "a", created=8, zone="new"))
    assert view.instances[0].key == b"api/instance/a"
    assert view.show(an_instance(8, "b", created=6), an_instance(10, "a", created=8, modified=9, zone="newer"))
    assert view.instances[0].metadata == {"zone": "newer"}


def test_round_robin_takes_all_in_turn_whoever_comes_or_goes() -> None:
    view = View()
    view.show(*(an_instance(number, address) for number, address in enumerate("aceg", 1)))
    turn = [view.pick().address for _ in range(8)]
    assert sorted(turn[:4]) == ["a", "c", "e", "g"]
    assert turn[4:] == turn[:4]
    while view.pick().address != "c":
        pass
    view.show(*(an_instance(number, address) for number, address in enumerate("abdeg", 1)))
    assert [view.pick().address for _ in range(6)] == ["d", "e", "g", "a", "b", "d"]
    firsts = set()
    for seed in range(20):
        firsts.add(Picker(Random(seed)).pick(view.instances, "round_robin", None))
    assert len(firsts) > 2, "clients that start together begin with different ones"


def test_random_and_least_used() -> None:
    view = View()
    view.show(*(an_instance(number, address) for number, address in enumerate("abc", 1)))
    assert {view.pick("random").address for _ in range(50)} == {"a", "b", "c"}
    with view.use() as first, view.use() as second:
        third = view.pick("least_used")
        assert {first.address, second.address, third.address} == {"a", "b", "c"}
        with view.use() as also_third:
            assert also_third == third
            counted = [view.use() for _ in range(2)]
            # It was picked, but is counted only inside of a block.
            assert len(counted) == 2
            with pytest.raises(ZeroDivisionError), view.use():
                raise ZeroDivisionError
        assert view.pick("least_used") == third
        # One that is gone is given back like any other.
        view.show(an_instance(9, "z"))
    view.show(*(an_instance(number, address) for number, address in enumerate("abc", 1)))
    assert len({view.pick("least_used").address for _ in range(3)}) == 3
    with pytest.raises(ValueError, match="unknown policy 'fastest'"):
        view.pick("fastest")  # type: ignore[arg-type]


def test_only_what_suits_is_picked_and_none_is_a_clear_error() -> None:
    view = View()
    with pytest.raises(NoInstance, match="no instance of api is registered"):
        view.pick()
    view.show(an_instance(1, "a", zone="x"), an_instance(2, "b", zone="y"))
    for _ in range(3):
        assert view.pick(where=lambda instance: instance.metadata["zone"] == "y").address == "b"
    with pytest.raises(NoInstance, match="no instance of api suits: 2 are registered"):
        view.use(where=lambda instance: False)
    view.show()
    view._note_live(False)
    view.now += 2.5
    view._note_live(False)
    assert (view.is_stale, view.stale_since) == (True, 10.0)
    with pytest.raises(NoInstance, match=r"when the cluster was last heard, 2\.5 s ago"):
        view.pick()
    view._note_live(True)
    assert (view.is_stale, view.stale_since) == (False, None)

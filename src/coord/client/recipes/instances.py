"""The instances of a service: how they stand in the store, and what a client makes of them. Pure.

An instance is the key `service/instance/` + the id of its lease in lower-case hex, and goes with its lease. It is no
contender of a lock or an election that is called as the service is: who leads the `db` may be an instance of `db`. Its
value is a JSON object, `{"address": "10.0.0.5:80", "metadata": {"zone": "a"}}`, which people read with
`coord get --prefix api/` and other languages write without a library of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from attrs import field, frozen

from coord.client.txn import Key, key_bytes
from coord.types import KeyValue, LeaseId, Revision

SERVICE_BYTES_MAX: Final = 1024
ADDRESS_CHARACTERS_MAX: Final = 1024
DOCUMENT_BYTES_MAX: Final = 64 * 1024
"""All clients of a service hold the documents of all its instances."""

_NO_METADATA: Final[Mapping[str, Any]] = MappingProxyType({})


@frozen
class Instance:
    """One instance of a service: where it is reached, and what it tells of itself.

    Two are equal if address and metadata are, whatever their leases: one that has registered anew is the same instance.
    """

    address: str
    metadata: Mapping[str, Any] = field(default=_NO_METADATA, hash=False)
    key: bytes = field(default=b"", eq=False)
    lease: LeaseId = field(default=LeaseId(0), eq=False)
    revision: Revision = field(default=Revision(0), eq=False)
    """The revision that made its key."""

    def __str__(self) -> str:
        return self.address


def service_prefix(service: Key) -> bytes:
    """Return what the keys of its instances begin with. Raises `ValueError` if `service` cannot name one."""
    name = key_bytes(service)
    if not name or name.startswith(b"/") or name.endswith(b"/") or len(name) > SERVICE_BYTES_MAX:
        rule = f"1 to {SERVICE_BYTES_MAX} bytes, with no / at its ends"
        raise ValueError(f"{service!r} cannot name a service: {rule}")
    return name + b"/instance/"


def instance_key(service: Key, lease: int) -> bytes:
    """Return the key of the instance that lives with `lease`."""
    return b"%s%x" % (service_prefix(service), lease)


def encode_document(address: str, metadata: Mapping[str, Any] | None) -> bytes:
    """Return what stands at an instance's key.

    Raises `TypeError` or `ValueError` for an address or metadata that cannot be, naming what is wrong.
    """
    _check_address(address)
    document: dict[str, Any] = {"address": address}
    if metadata:
        document["metadata"] = dict(metadata)
        for name in metadata:
            if not isinstance(name, str):
                raise TypeError(f"names of metadata are text, not {type(name).__name__}: {name!r}")
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        encoded = text.encode()
    except TypeError as error:
        raise TypeError(f"metadata is what JSON knows: {error}") from None
    except ValueError as error:
        raise ValueError(f"metadata is what JSON knows: {error}") from None
    if len(encoded) > DOCUMENT_BYTES_MAX:
        raise ValueError(f"address and metadata take {len(encoded)} bytes, {DOCUMENT_BYTES_MAX} are allowed")
    return encoded


def _check_address(address: str) -> None:
    if not isinstance(address, str):
        raise TypeError(f"an address is text, not {type(address).__name__}")
    if not address or len(address) > ADDRESS_CHARACTERS_MAX:
        raise ValueError(f"an address has 1 to {ADDRESS_CHARACTERS_MAX} characters")
    if any(character.isspace() or not character.isprintable() for character in address):
        raise ValueError(f"{address!r} is no address: it has characters that cannot be seen")


def decode_instance(prefix: bytes, kv: KeyValue) -> Instance | None:
    """Return the instance that a pair tells of; None for what is none, though it stands below the service's prefix.

    What would not be taken for registration is not believed either: the keys of a service may be written by anybody.
    """
    if not kv.lease or kv.key != b"%s%x" % (prefix, kv.lease) or len(kv.value) > DOCUMENT_BYTES_MAX:
        return None
    try:
        document = json.loads(kv.value)
        address = document["address"]
        metadata = document.get("metadata") or {}
        _check_address(address)
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError):
        return None
    if not isinstance(metadata, dict):
        return None
    return Instance(address, MappingProxyType(metadata), kv.key, kv.lease, kv.create_revision)

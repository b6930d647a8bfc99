"""Entries of the replicated log are as coord.cddl says."""

from __future__ import annotations

from coord.codec import decode, encode
from coord.protocol.entries import NOTHING, Frame, WritesHeader, decode_entry, encode_writes, read_writes
from coord.protocol.ops import Op, Settled

from .cddl import Schema


def test_writes_are_as_the_schema_says_and_come_back() -> None:
    put, grant, bad = [1, int(Op.PUT), None, [b"k", b"v"]], [2, int(Op.LEASE_GRANT), None, [60]], [3, 99, None, []]
    # Not as coord's own clients encode it: a head that is longer than it need be.
    foreign = b"\x81\x98\x04" + encode(put)[1:]
    settled = {0: (Settled.LEASE, 77, 60), 1: (Settled.REFUSED, ["Unimplemented", "unknown", []])}
    header = WritesHeader(2**64 - 1, 2**63, 128)
    frames = [
        Frame(5, 1, "", NOTHING, foreign, [put]),
        Frame(2**64 - 1, 2, "root", settled, encode([grant, bad]), [grant, bad]),
        Frame(0, 0, "", NOTHING, b"\xff", None),
    ]
    data = encode_writes(header, frames)
    assert Schema.of_coord().allows("entry", decode(data))
    assert foreign in data
    assert read_writes(*decode_entry(data)[1:]) == (header, frames)

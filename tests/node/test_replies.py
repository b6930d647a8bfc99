"""Replies are spliced, and are the bytes of the codec."""

from __future__ import annotations

import pytest

from coord.codec import NULL, encode
from coord.errors import InvalidArgument
from coord.mvcc.clients import error_answer
from coord.node.replies import reply_answer
from coord.protocol.server_protocol import reply_id

HEADS = (0, 1, 23, 24, 0xFF, 0x100, 1023, 1024, 0xFFFF, 0x10000, 0xFFFFFFFF, 0x100000000, 2**63 - 1)


@pytest.mark.parametrize("request_id", HEADS)
def test_the_reply_that_carries_an_answer(request_id: int) -> None:
    refusal = InvalidArgument("no")
    for revision in HEADS:
        for payload in (NULL, encode([7, 10])):
            reply = reply_answer(request_id, (revision, True, payload))
            assert reply == b"\x83" + encode(request_id) + encode(revision) + payload
            assert reply_id(reply) == request_id
        refused = reply_answer(request_id, error_answer(revision, refusal))
        assert refused == encode([request_id, revision, None, refusal.to_wire()])
        assert reply_id(refused) == request_id

"""Transactions as deep as `limits.TXN_DEPTH_MAX` pass every walk; what is deeper is refused at once."""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from tests.mvcc.rig import Rig
from tests.node.conftest import play

import coord
from coord.client.responses import Header, TxnResponse
from coord.client.verbs import txn as txn_verb
from coord.codec import decode, encode
from coord.errors import ApiError, Code
from coord.limits import CBOR_DEPTH_MAX, FRAME_BYTES_MAX, MIB, TXN_DEPTH_MAX
from coord.node.node import Node
from coord.protocol.client_protocol import writes_frame
from coord.protocol.ops import Method, Op
from coord.protocol.server_protocol import Refused, Writes, decode_message
from coord.testing.model import Model
from coord.testing.sim_node import SimClient, SimHost, SimSettings
from coord.types import Revision

MANY_OPS = 10_000
"""The highest `--max-txn-ops`."""

PUT, READ, ABSENT = [1, [b"k", b"v"]], [20, [b"k"]], [0, 0, b"a", 0]
LOST = [1, [b"k", b"v", 77]]
HEADS = (
    b"\x81",
    b"\x82\x01",
    b"\x99\xff\xff",
    b"\x9a\xff\xff\xff\xff",
    b"\x9b\x7f" + b"\xff" * 7,
    b"\xa1",
    b"\xba\x00\xff\xff\xff",
)
"""Heads of arrays and maps, some of which promise more than there is memory."""


def deep(levels: int, innermost: list[Any]) -> list[Any]:
    """Return the arguments of a transaction of so many levels, each with a compare, a sibling and a read behind."""
    tree = [[ABSENT], [innermost], []]
    for level in range(levels - 1):
        tree = [[ABSENT], [[1, [b"%d" % level, b""]], [3, tree], READ], [[3, [[], [], []]]]]
    return tree


def with_little_stack(call: Callable[[], None]) -> None:
    """Run `call` where Python allows it half of its usual stack: a server's own is below a quarter."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            failures.append(error)

    usual = sys.getrecursionlimit()
    thread = threading.Thread(target=run)
    sys.setrecursionlimit(500)
    try:
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(usual)
    if failures:
        raise failures[0]


def test_the_deepest_write_is_applied_undone_and_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.testing.model.MAX_OPS", MANY_OPS)

    def scenario() -> None:
        rig, model = Rig(), Model()
        client = rig.register()
        for number, innermost in enumerate((LOST, PUT, READ, PUT), start=1):
            arguments = deep(TXN_DEPTH_MAX, innermost)
            (answer,) = rig.entry([number, 3, None, arguments], client=client, low=1, max_txn_ops=MANY_OPS)
            assert answer == model.write(3, None, arguments)
            assert answer.ok == (innermost is not LOST)
            (again,) = rig.entry([number, 3, None, arguments], client=client, low=1, max_txn_ops=MANY_OPS)
            assert again.revision == answer.revision

    with_little_stack(scenario)


def test_the_deepest_write_passes_the_client_and_the_edge() -> None:
    def scenario() -> None:
        operation = coord.op.put("k", b"v")
        for _ in range(TXN_DEPTH_MAX - 1):
            operation = coord.op.txn(then=[operation], orelse=[coord.op.get("k")])
        verb = txn_verb([], [operation], [])
        message = decode_message(writes_frame([(1, 0)], [(0, Op.TXN, None, verb.arguments)]))
        assert isinstance(message, Writes)
        (answer,) = Rig().entry(*message.decoded, max_txn_ops=MANY_OPS)
        response: Any = verb.parse(Header(1, 1, Revision(2), 1), answer.result)
        for _ in range(TXN_DEPTH_MAX - 1):
            assert isinstance(response, TxnResponse)
            (response,) = response.responses
        assert response.responses[0].header.revision == 2
        with pytest.raises(ValueError, match="at most 129 deep"):
            coord.op.txn(orelse=[operation])

    with_little_stack(scenario)


def test_a_node_serves_the_deepest_and_refuses_a_deeper_one() -> None:
    async def scenario(host: SimHost, node: Node) -> None:
        client = SimClient(node)
        result = await client.write(Op.TXN, deep(TXN_DEPTH_MAX, PUT))
        for _ in range(TXN_DEPTH_MAX - 1):
            result = result[1][1][2]
        assert result == [True, [[1, 2, None]]]
        with pytest.raises(ApiError, match="nest deeper than 129 levels") as caught:
            await client.write(Op.TXN, deep(TXN_DEPTH_MAX + 1, PUT))
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert await client.get(b"k") == b"v"
        read = await client.request(Method.TXN, [[], [READ], [[20, [b"a"]]] * MANY_OPS])
        assert read[1][0][2][2] == 1

    play(scenario, SimHost(1, SimSettings(options={"max_txn_ops": MANY_OPS})))


@pytest.mark.parametrize("head", HEADS, ids=bytes.hex)
@pytest.mark.parametrize("levels", [CBOR_DEPTH_MAX, 10 * CBOR_DEPTH_MAX, FRAME_BYTES_MAX])
def test_depth_bombs_are_refused_at_once(head: bytes, levels: int) -> None:
    bomb = head * min(levels, (FRAME_BYTES_MAX - 64) // len(head))
    message = b"\x85\x02\x00\x00" + encode([[1, 0]]) + encode(bomb)
    began = time.process_time()
    assert isinstance(decode_message(bomb), Refused)
    body = decode_message(message)
    assert time.process_time() - began < 0.5
    assert isinstance(body, Refused)
    assert (body.ids, body.error.code) == ([1], Code.INVALID_ARGUMENT)


def test_depth_bombs_take_no_memory() -> None:
    for head in HEADS:
        bomb = head * (4 * CBOR_DEPTH_MAX)
        tracemalloc.start()
        try:
            assert isinstance(decode_message(bomb), Refused)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < MIB


def test_what_fits_the_depth_is_decoded() -> None:
    for levels, fits in ((CBOR_DEPTH_MAX, True), (CBOR_DEPTH_MAX + 1, False)):
        data = b"\x81" * levels + b"\x00"
        if fits:
            assert encode(decode(data)) == data
        else:
            with pytest.raises(coord.errors.DecodeError):
                decode(data)

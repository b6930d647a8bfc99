"""Frames of whole binary messages: read back by the machine of `websockets`, and masked as RFC 6455 wants it."""

from __future__ import annotations

import os

import pytest
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side

from coord.transport import frames
from coord.transport.frames import binary_frame, frame_size, masked_binary_frame, new_mask

LENGTHS = (0, 1, 125, 126, 65_535, 65_536, 200_000)


@pytest.mark.parametrize("length", LENGTHS)
def test_stock_library_reads_what_either_side_sends(length: int) -> None:
    message = os.urandom(length)
    for data, reader in ((binary_frame(message), Side.CLIENT), (masked_binary_frame(message), Side.SERVER)):
        machine = Protocol(reader, max_size=length)
        machine.receive_data(data)
        [frame] = machine.events_received()
        assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.BINARY, True, message)  # type: ignore[union-attr]


@pytest.mark.parametrize("length", LENGTHS)
def test_size_of_a_frame_is_known_once_its_head_is_there(length: int) -> None:
    data = b"before" + binary_frame(bytes(length))
    head = len(data) - 6 - length
    for cut in range(head):
        assert frame_size(data[: 6 + cut], 6) == (0, 0)
    assert frame_size(data[: 6 + head], 6) == (head, length)


def test_no_mask_is_used_twice_and_the_kernel_is_asked_for_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return b"".join(
            number.to_bytes(4, "big") for number in range(len(asked) * 10_000, len(asked) * 10_000 + size // 4)
        )

    monkeypatch.setattr(frames, "_masks", [])
    monkeypatch.setattr(os, "urandom", urandom)
    masks = [new_mask() for _ in range(3_000)]
    assert len(set(masks)) == len(masks)
    assert len(asked) == 3
    assert len({masked_binary_frame(b"same")[2:6] for _ in range(50)}) == 50


def test_child_of_a_fork_uses_other_masks() -> None:
    new_mask()
    read, write = os.pipe()
    if not (child := os.fork()):
        os.write(write, new_mask() + new_mask())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 8) != new_mask() + new_mask()
    os.close(read)
    os.close(write)

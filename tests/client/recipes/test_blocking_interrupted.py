"""S26: Ctrl-C, wherever it comes, leaves no key and no lease behind, and a client that works."""

# ruff: noqa: SIM117  # blocks stand inside each other as programs write them

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import coord
from coord.client.blocking import BlockingClient
from coord.client.recipes.blocking_session import BlockingSession
from coord.errors import LockTimeout

from .blocking_rig import a_client, served
from .machine_node import MachineNode

# Python drops an interrupt that comes while it ends a generator, and says so.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CLIENT = str(Path(coord.__file__).parent / "client")
GONE_S = 2.0
PYTHONS = "call BlockingSession.__exit__"
"""A place that is Python's: before the first step of what ends the session its lease is still kept, as nothing of ours
has run. No lock hangs on it any more."""


class Interrupter:
    """Raises `KeyboardInterrupt` in this thread where the client lets go of the interpreter for the time number `at`.

    Python handles signals at the start of functions and after calls of functions written in C, so that it is there that
    Ctrl-C can come: after a lock was acquired, but not between its release and the end of a `with` block.
    """

    def __init__(self, at: int) -> None:
        self.left = at
        self.where = ""

    def __enter__(self) -> Interrupter:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_return") and not self.where and frame.f_code.co_filename.startswith(CLIENT):
            self.left -= 1
            if not self.left:
                code = frame.f_code
                self.where = f"{event} {code.co_qualname} in {Path(code.co_filename).name}:{frame.f_lineno}"
                raise KeyboardInterrupt


def interrupted_everywhere(story: Callable[[BlockingClient], None], *, others: int = 0) -> None:
    """Run a story again and again, interrupted a little later each time; `others` have keys below `a/` all the time."""
    wrong = []
    with served() as (node, listener), a_client(listener) as client, a_client(listener, seed=2) as other:
        with other.session() as holding, other.session() as nobody:
            with holding.lock("a") if others else nullcontext():
                story(client)
                for at in range(1, 100_000):
                    interrupter = Interrupter(at)
                    with suppress(KeyboardInterrupt, LockTimeout), interrupter:
                        story(client)
                    if not interrupter.where:
                        break
                    leases = 3 if interrupter.where.startswith(PYTHONS) else 2
                    give_up = time.monotonic() + GONE_S
                    while (left := left_behind(node, others, leases)) and time.monotonic() < give_up:
                        time.sleep(0.002)
                    if left:
                        wrong.append((interrupter.where, left))
                    for lease in set(node.leases_left) - {holding.lease, nobody.lease}:
                        with listener.lock:
                            node.expire(lease)
                # Its locks and its connection have outlived all that.
                story(client)
    assert at > 100
    assert wrong == []


def left_behind(node: MachineNode, keys_max: int, leases_max: int) -> tuple[int, int] | None:
    """Return how many keys and leases there are if that is more than there should be."""
    keys, leases = len(node.keys_below(b"a/")), len(node.leases_left)
    return (keys, leases) if keys > keys_max or leases > leases_max else None


def a_lock(client: BlockingClient) -> None:
    with client.session() as session:
        with session.lock("a") as lock:
            client.put("k", b"v", fence=lock)


def a_wait(client: BlockingClient) -> None:
    with client.session() as session:
        with suppress(LockTimeout), session.lock("a", wait=0.01):
            raise AssertionError


def a_registration(client: BlockingClient) -> None:
    with client.session() as session, session.register("a", "10.0.0.5:80"):
        pass


def test_a_lock() -> None:
    interrupted_everywhere(a_lock)


def test_a_wait_for_a_lock() -> None:
    interrupted_everywhere(a_wait, others=1)


def test_a_registration() -> None:
    interrupted_everywhere(a_registration)


Use = Callable[[BlockingSession], AbstractContextManager[object]]
USES: dict[str, Use] = {
    "lock": lambda session: session.lock("a"),
    "register": lambda session: session.register("a", "10.0.0.5:80"),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_what_belongs_to_a_session_that_lives_on(use: Use) -> None:
    """The session's end removes nothing here: the end of the block itself does."""
    with served() as (node, listener), a_client(listener) as client:
        for at in range(1, 100_000):
            with client.session() as session:
                interrupter = Interrupter(at)
                with suppress(KeyboardInterrupt), interrupter, use(session):
                    pass
                if not interrupter.where:
                    break
                # Before the first step of the end of the block nothing of ours has run.
                if ".__exit__ in" not in interrupter.where or not interrupter.where.startswith("call"):
                    give_up = time.monotonic() + GONE_S
                    while node.keys_below(b"a/"):
                        assert time.monotonic() < give_up, interrupter.where
                        time.sleep(0.002)
        assert at > 50

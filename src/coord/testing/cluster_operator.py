"""An operator of a simulated cluster: adds, promotes, removes and replaces members, and hands the lead on.

It asks whoever it reaches, believes no answer that leaves the outcome open, and looks again instead.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import trio
from attrs import define

from coord.errors import ApiError, DataDirError
from coord.protocol.entries import Member
from coord.protocol.ops import Method
from coord.testing.cluster import Cluster, State
from coord.testing.cluster_connection import ConnectionLost
from coord.testing.sim_node import peer_url

ASK_S: Final = 3.0
PAUSE_S: Final = 0.25
"""Between two tries."""
LEAVE_S: Final = 3.0
"""A member that was removed has so long to learn of it; then its process is killed."""


@define(eq=False)
class Operator:
    """One change at a time; each method goes on until it is done, or until `gives_up` says that it is too late."""

    cluster: Cluster
    chance: random.Random
    gives_up: Callable[[], bool]

    async def ask(self, method: Method, *arguments: Any) -> Any | None:
        """Ask some member; None if it did not say that it was done."""
        up = self.cluster.in_state(State.UP)
        if not up:
            return None
        connection = self.cluster.connection(self.chance.choice(up))
        try:
            with trio.move_on_after(ASK_S):
                _, result = await connection.request(method, list(arguments), ASK_S)
                self.cluster.trace("operator", method=method.name, result=result)
                return result
        except (ApiError, ConnectionLost) as error:
            self.cluster.trace("operator", method=method.name, error=str(error))
        finally:
            connection.close()
        return None

    async def find(self, name: str) -> Member | None:
        """Return the row of the member at a name's peer URL, None if the cluster has none; waits for an answer."""
        while True:
            rows = await self.ask(Method.MEMBER_LIST, True)
            if rows is not None:
                found = [member for member in map(Member.from_wire, rows) if peer_url(name) in member.peer_urls]
                return found[0] if found else None
            await trio.sleep(PAUSE_S)

    async def remove(self, name: str, *, must: bool = False) -> bool:
        """Remove a member, see that its process ends, and forget its machine; tell whether it is gone."""
        while (member := await self.find(name)) is not None:
            if await self.ask(Method.MEMBER_REMOVE, [member.id]) is None:
                if self.gives_up() and not must:
                    return False
                await trio.sleep(PAUSE_S)
        with trio.move_on_after(LEAVE_S):
            while self.cluster.members[name].state is not State.DOWN:  # noqa: ASYNC110  # virtual time
                await trio.sleep(0.02)
        await self.cluster.kill(name)
        self.cluster.retire(name)
        return True

    async def add(self, name: str, *, is_learner: bool = False, must: bool = False) -> bool:
        """Add a member, start it on an empty disk, and wait until it is what it is to be; tell whether it is."""
        while (member := await self.find(name)) is None:
            if await self.ask(Method.MEMBER_ADD, [peer_url(name)], is_learner) is None:
                if self.gives_up() and not must:
                    # One that was asked for may still be added, and then it is to be served.
                    await trio.sleep(ASK_S)
                    if await self.find(name) is None:
                        return False
                await trio.sleep(PAUSE_S)
        self.cluster.add(name)
        await self.start(name)
        while member is not None and (member.incarnation == 0 or (member.is_learner and not is_learner)):
            if self.gives_up():
                break
            await trio.sleep(PAUSE_S)
            member = await self.find(name)
        return True

    async def promote(self, name: str) -> bool:
        """Let a learner vote; tell whether it does."""
        while (member := await self.find(name)) is not None and member.is_learner:
            if await self.ask(Method.MEMBER_PROMOTE, member.id) is None:
                if self.gives_up():
                    return False
                await trio.sleep(PAUSE_S)
        return member is not None

    async def start(self, name: str) -> None:
        """Start a member that was added, again and again: one that lags behind may turn it away."""
        while True:
            try:
                await self.cluster.start(name)
                return
            except DataDirError as error:
                self.cluster.trace("operator", turned_away=name, error=str(error))
                await trio.sleep(1.0)

    async def move(self, name: str | None) -> None:
        """Hand the lead to a member, or to whom the leader chooses; once."""
        member = await self.find(name) if name is not None else None
        await self.ask(Method.MOVE_LEADER, 0 if member is None else member.id)

"""Leading: to own a name, and to tell others something by it."""

from __future__ import annotations

from coord.client.recipes.ownership import Ownership
from coord.client.recipes.running import run
from coord.errors import FenceLost
from coord.types import Revision


class Leadership(Ownership):
    """A won election; made by `Session.lead`.

    Give it to writes as `fence=`, as a lock. Its value is what others learn of the owner by `Client.observe`.
    """

    @property
    def value(self) -> bytes:
        """The value that was proclaimed last, at first that of `lead`."""
        return self._contender.value

    async def proclaim(self, value: bytes) -> Revision:
        """Let others know another value; who owns, and the fence, stay. Returns the revision that did it.

        It is fenced, so that an owner of the past cannot be heard. Raises `LeadershipLost`.
        """
        self.check()
        try:
            return await run(self._session.driver, self._contender.proclaim(value))
        except FenceLost:
            self.end("its key was deleted")
            # S24: in the words of whoever noticed the loss first.
            self.check()
            raise

    async def resign(self) -> None:
        """Give the leadership up before the end of its block: cancel the block, then let the next one lead.

        The block ends without an error. In this order nobody else leads while it still runs; a call from inside of the
        block does not return, and one from another task does once the block has ended. Raises `LeadershipLost` if it is
        lost already.
        """
        self.check()
        self._is_given_up = True
        self.end("it was resigned")
        await self._left.wait()

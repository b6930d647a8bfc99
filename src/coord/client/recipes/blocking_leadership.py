"""Leading, in a thread: to own a name, and to tell others something by it."""

from __future__ import annotations

from coord.client.recipes.blocking_ownership import BlockingOwnership
from coord.client.recipes.blocking_running import Runner
from coord.errors import FenceLost
from coord.types import Revision


class BlockingLeadership(BlockingOwnership):
    """A won election; made by `BlockingSession.lead`.

    Give it to writes as `fence=`, as a lock. Its value is what others learn of the owner by `BlockingClient.observe`.
    """

    @property
    def value(self) -> bytes:
        """The value that was proclaimed last, at first that of `lead`."""
        return self._contender.value

    def proclaim(self, value: bytes) -> Revision:
        """Let others know another value; who owns, and the fence, stay. Returns the revision that did it.

        It is fenced, so that an owner of the past cannot be heard. Raises `LeadershipLost`.
        """
        self.check()
        try:
            return Runner(self._session.calls).run(self._contender.proclaim(value))
        except FenceLost:
            self.end("its key was deleted")
            # S24: in the words of whoever noticed the loss first.
            self.check()
            raise

    def resign(self) -> None:
        """Give the leadership up before the end of its block, and let the next one lead.

        Nothing of the block may go on as a leader then; what depends on it raises, and the block ends without an error.
        Raises `LeadershipLost` if it is lost already.
        """
        self.check()
        self.leave("it was resigned")

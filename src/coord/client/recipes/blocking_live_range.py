"""A copy of an interval that follows the cluster, for threads."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from coord.client.blocking_watch import BlockingWatch
from coord.client.recipes.mirror import Mirror
from coord.client.responses import Header
from coord.errors import ClientClosed, CoordError
from coord.types import KeyValue, Revision

if TYPE_CHECKING:
    from coord.client.blocking import BlockingClient

RELIST_PAUSE_S: Final = 0.5


class BlockingLiveRange:
    """The pairs of an interval, kept current: a read, and a watch from the revision after it on.

        with BlockingLiveRange(client, b"api/", b"api0") as live:
            while not live.kvs:
                live.next(1.0)

    Entering reads, and raises what a read raises. From then on no trouble of the cluster's is raised: while it is away,
    or when what the watch needs next is compacted, the copy stands as it was and `is_live` is False until it has been
    read anew. One thread at a time may wait.
    """

    def __init__(self, client: BlockingClient, start: bytes, end: bytes, timeout: float | None) -> None:
        self._client = client
        self._start = start
        self._end = end
        self._timeout = timeout
        self._mirror = Mirror()
        self._watch: BlockingWatch | None = None
        self._header = Header(0, 0, self._mirror.revision, 0)

    def __enter__(self) -> Self:
        self._list(self._timeout)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget()

    @property
    def kvs(self) -> dict[bytes, KeyValue]:
        """The pairs by key."""
        return self._mirror.kvs

    @property
    def revision(self) -> Revision:
        """The revision that they show, or a later one at which they were the same."""
        return self._mirror.revision

    @property
    def header(self) -> Header:
        """The revision again, and which node told it."""
        return self._header

    @property
    def is_live(self) -> bool:
        """A node tells of changes as they happen."""
        return self._watch is not None and self._watch.is_live

    def next(self, timeout: float) -> None:
        """Wait until the pairs or `is_live` may have changed, for at most `timeout` seconds. Raises `ClientClosed`."""
        try:
            if self._watch is not None:
                self._mirror.take([self._watch.next(timeout)])
                self._header = self._watch.header(self.revision)
            else:
                self._list(timeout)
        except TimeoutError:
            return
        except ClientClosed:
            raise
        except CoordError:
            # Whatever it is, an old copy serves better than none, and only time can tell whether it passes.
            if self._watch is None:
                time.sleep(min(RELIST_PAUSE_S, timeout))
            self._forget()

    def _list(self, timeout: float | None) -> None:
        response = self._client.range_response(self._start, range_end=self._end, timeout=timeout)
        self._mirror.listed(response)
        self._header = response.header
        # What happens between the two is in the watch's history.
        self._watch = self._client.watch(self._start, range_end=self._end, since=self.revision + 1, timeout=timeout)

    def _forget(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

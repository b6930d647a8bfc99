"""The rows of the comparison with etcd, and what each has to reach."""

from __future__ import annotations

from attrs import frozen


@frozen
class Row:
    """One line of the table: a load, and the ratio that coord must reach to etcd's figure."""

    name: str
    mode: str
    conns: int
    clients: int
    must: float | None
    """A ratio; None where the row has no bar, or one of its own."""
    goal: float | None
    limit_ms: tuple[float, float] | None = None
    """For the longest gap between two acknowledged writes: what its p95 must not exceed, and the goal."""

    @property
    def is_gap(self) -> bool:
        return self.limit_ms is not None

    @property
    def unit(self) -> str:
        return "ms" if self.is_gap else "/s"

    def ratio(self, ours: float, theirs: float) -> float:
        """How many times better ours is."""
        return theirs / ours if self.is_gap else ours / theirs


ROWS = (
    Row("put-1-1", "put", 1, 1, 0.9, 1.0),
    Row("put-100-100", "put", 100, 100, 1.3, 1.5),
    Row("put-100-1000", "put", 100, 1000, 2.2, 2.5),
    Row("put-10-1000", "put", 10, 1000, 3.5, 4.0),
    Row("get-1-1", "get", 1, 1, 1.2, 1.3),
    Row("get-100-100", "get", 100, 100, 2.0, 2.5),
    Row("get-100-1000", "get", 100, 1000, 3.5, 4.0),
    Row("get-10-1000", "get", 10, 1000, 5.5, 6.0),
    Row("lock", "lock", 1, 1, 1.0, 1.3),
    Row("handoff", "handoff", 1, 20, 1.5, 3.0),
    Row("watch", "watch", 1, 100, 1.0, 1.5),
    Row("failover", "failover", 10, 100, None, None, (300.0, 150.0)),
)

BEYOND = (
    Row("sget-10-1000", "sget", 10, 1000, None, None),
    Row("range-10k", "range", 2, 4, None, None),
    Row("put-many", "put-many", 10, 20, None, None),
    Row("txn-100", "txn", 10, 100, None, None),
    Row("txn-mixed", "mixed", 10, 1000, None, None),
)
"""Rows without a bar, which are measured only when they are named: gets of what a node has, ranges of 10 000 keys,
100 puts in one call and in one transaction (keys a second), and transactions of a get or a put in turn."""

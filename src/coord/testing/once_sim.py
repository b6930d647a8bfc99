"""The simulator of exactly once: programs write through real clients while answers are lost; at the end all is counted.

    python -m coord.testing.once_sim --seed 7 --trace
    python -m coord.testing.once_sim --seeds 0:100

What a call did is told by the version of a key that only this call writes: 1 if it was applied once. A call that
returned must have been, and its answer must be that of the one time; one of unknown outcome may have been; one that was
refused must not.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

import trio
from attrs import define, field

import coord
from coord.client import op
from coord.client.client import Client
from coord.errors import (
    AnswerGone,
    ApiError,
    ConnectionFailed,
    CoordError,
    DeadlineExceeded,
    OutcomeUnknown,
    Unavailable,
)
from coord.protocol.ops import Op
from coord.testing.cluster import Cluster, open_cluster
from coord.testing.cluster_changes import CHANGES
from coord.testing.cluster_clients import World
from coord.testing.cluster_end import check_end, converge
from coord.testing.cluster_faults import FAULTS, Fault, Nemesis
from coord.testing.deterministic import Trace, fork, run_traced
from coord.testing.history import History
from coord.testing.history_ledger import Replay, replay
from coord.testing.link_faults import LINK_FAULTS
from coord.testing.seeds import play

VACUOUS: Final = "too little happened to judge it by"
LASTS_S_MAX: Final = 120.0
"""Of virtual time; a run that lasts longer hangs."""
STRIKES: Final[dict[str, Fault]] = {
    **FAULTS,
    **{name: CHANGES[name] for name in ("move", "stop", "roll", "silence")},
    **LINK_FAULTS,
}
PATIENT_S: Final = 30.0
"""Who waits so long outlives every fault, and so is answered."""
DONE_MIN: Final = 5
"""A run with fewer calls that returned than this proves nothing."""
MUST_HAPPEN: Final = (
    "answers that came after another sending",
    "calls of unknown outcome",
    "calls of unknown outcome that happened",
    "calls that were cancelled",
    "clients that were forgotten",
    "elections",
    "writes that stand in the log twice",
)
SEEDS_TELLING: Final = 40
"""In so many seeds everything must happen at least once."""
_REFUSALS: Final = (Unavailable, DeadlineExceeded, ConnectionFailed)
"""What a call may raise of which nothing happened."""


class Fate(Enum):
    """What a program knows of its call."""

    OPEN = "open"
    """It never returned: its program was killed."""
    DONE = "done"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    CANCELLED = "cancelled"


@define(eq=False)
class Attempt:
    """A call that writes `key`, which no other call does."""

    key: bytes
    what: str
    fate: Fate = Fate.OPEN
    revision: int = 0
    """What the answer said."""
    error: str = ""


@define(eq=False)
class Book:
    """All that programs tried."""

    chance: random.Random
    trace: Callable[..., None]
    ends_at: float
    attempts: list[Attempt] = field(factory=list)
    increments: Counter[Fate] = field(factory=Counter)
    wrong: list[str] = field(factory=list)
    """What a program saw that coord does not promise."""

    def begin(self, what: str) -> Attempt:
        """Begin a call."""
        attempt = Attempt(b"once/%d" % len(self.attempts), what)
        self.attempts.append(attempt)
        self.trace("call", key=attempt.key, does=what)
        return attempt

    @property
    def is_over(self) -> bool:
        """True when programs should stop."""
        return trio.current_time() >= self.ends_at


@define
class Plan:
    """What a seed chose."""

    seed: int
    size: int
    seconds: float
    programs: int
    tasks: int
    """Of each program: they share its client."""
    timeout: float
    faults: tuple[str, ...]
    tracks: int
    options: dict[str, Any]

    @property
    def is_certain(self) -> bool:
        """Every call must come to its answer: it waits long enough, and nobody is forgotten."""
        return self.timeout >= PATIENT_S and self.options["client_records_max"] > self.seconds * 100

    @staticmethod
    def of(seed: int) -> Plan:
        """Draw a plan: each seed has another subset of the faults, and other sizes."""
        chance = random.Random(seed)
        programs = chance.randint(2, 4)
        return Plan(
            seed=seed,
            size=chance.choice((3, 3, 3, 5)),
            seconds=chance.choice((4.0, 6.0, 8.0)),
            programs=programs,
            tasks=chance.choice((1, 3, 10)),
            timeout=chance.choice((1.0, 3.0, 5.0, PATIENT_S)),
            faults=tuple(name for name in STRIKES if chance.random() < 0.5),
            tracks=chance.choice((1, 2, 3)),
            options={
                "snapshot_count": chance.choice((10, 200, 10_000)),
                "catch_up_entries": chance.choice((20, 5000)),
                # A client of so few is forgotten as soon as others come.
                "client_records_max": chance.choice((1, programs, 10_000, 10_000)),
            },
        )


@define
class Report:
    """What came of a run."""

    plan: Plan
    found: list[str] = field(factory=list)
    digest: str = ""
    lines: int = 0
    happened: Counter[str] = field(factory=Counter)

    def __str__(self) -> str:
        verdict = "ok" if not self.found else "FAILED"
        told = ", ".join(f"{name}: {count}" for name, count in sorted(self.happened.items()))
        return f"seed {self.plan.seed}: {verdict}, {self.plan.size} members, {told}; trace {self.digest[:12]}"


def run(seed: int, show: Callable[[str], None] | None = None, plan: Plan | None = None) -> Report:
    """Play a seed and judge it. What a node or a client raises that it should not comes out."""
    report = Report(plan or Plan.of(seed))
    trace = run_traced(seed, lambda trace: _play(report, trace), LASTS_S_MAX, show)
    report.digest, report.lines = trace.digest, trace.lines
    return report


async def _play(report: Report, trace: Trace) -> None:
    plan = report.plan
    chance = random.Random(plan.seed)
    async with open_cluster(plan.size, seed=plan.seed, trace=trace, **plan.options) as cluster:
        book = Book(fork(chance), trace, trio.current_time() + plan.seconds)
        nemesis = Nemesis(cluster, fork(chance), {name: STRIKES[name] for name in plan.faults}, book.ends_at)
        async with trio.open_nursery() as nursery:
            for place in range(plan.programs):
                nursery.start_soon(_supervise, cluster, book, fork(chance), f"p{place}", plan)
            await nemesis.run(plan.tracks)
            await trio.sleep_until(book.ends_at)
            nursery.cancel_scope.cancel()
        report.found += await converge(cluster, World(cluster.processes, History(), fork(chance), trace, book.ends_at))
        # Every call has ended by then: it is sent again for no longer than its timeout.
        for program in cluster.programs.by_name.values():
            with trio.move_on_after(2 * plan.timeout + 1.0):
                await program.ended.wait()
        if not report.found:
            await _judge(report, cluster, book)


# -- programs ---------------------------------------------------------------------------------------------------------


async def _supervise(cluster: Cluster, book: Book, chance: random.Random, name: str, plan: Plan) -> None:
    """Run a program, and start it again when it was killed."""
    while not book.is_over:
        await cluster.launch(name, _work, cluster, book, fork(chance), plan).ended.wait()
        await trio.sleep(0.2)


async def _work(cluster: Cluster, book: Book, chance: random.Random, plan: Plan) -> None:
    while not book.is_over:
        # At times a program opens a client anew, which registers anew.
        ends_at = min(trio.current_time() + chance.uniform(0.5, 10), book.ends_at)
        try:
            async with cluster.client(timeout=plan.timeout) as client, trio.open_nursery() as nursery:
                for _ in range(plan.tasks):
                    nursery.start_soon(_write, client, book, fork(chance), ends_at)
        except ConnectionFailed:
            continue


async def _write(client: Client, book: Book, chance: random.Random, ends_at: float) -> None:
    while trio.current_time() < ends_at:
        await trio.sleep(chance.expovariate(15))
        if chance.random() < 0.2:
            await _increment(client, book)
            continue
        what = chance.choice(tuple(_CALLS))
        attempt = book.begin(what)
        limit_s = chance.choice((0.01, 0.1, 1.0)) if chance.random() < 0.15 else 60.0
        with trio.move_on_after(limit_s) as limit:
            await _try(client, book, attempt)
        if limit.cancelled_caught:
            attempt.fate = Fate.CANCELLED
        book.trace("ended", key=attempt.key, fate=attempt.fate.value, revision=attempt.revision, error=attempt.error)


async def _try(client: Client, book: Book, attempt: Attempt) -> None:
    try:
        attempt.revision = await _CALLS[attempt.what](client, attempt.key)
        attempt.fate = Fate.DONE
    except OutcomeUnknown as error:
        attempt.fate, attempt.error = Fate.UNKNOWN, error.text
    except _REFUSALS as error:
        attempt.fate, attempt.error = Fate.REFUSED, str(error)
    except (ApiError, _Mistaken) as error:
        # No other call can have come between, so that whatever the cluster refuses is a mistake of ours.
        attempt.fate, attempt.error = Fate.UNKNOWN, str(error)
        book.wrong.append(f"{attempt.what} of {attempt.key!r} was answered {error!r}")


class _Mistaken(CoordError):
    """An answer that cannot be that of the one time."""


async def _put(client: Client, key: bytes) -> int:
    return await client.put(key, b"v")


async def _create(client: Client, key: bytes) -> int:
    """S18: judged again, the compare would fail, since the key is there by then."""
    made = await client.txn(
        when=[coord.version(key) == 0], then=[op.put(key, b"v")], orelse=[op.get(key, keys_only=True)]
    )
    if not made.succeeded:
        raise _Mistaken(f"it is there already: {made.responses}")
    return int(made.header.revision)


async def _create_large(client: Client, key: bytes) -> int:
    """Its answer is too large to be recorded whole, so that a second sending is told its revision alone."""
    large = [op.put(key + b"/large", b"v" * 1500), op.get(key + b"/large")]
    try:
        made = await client.txn(when=[coord.version(key) == 0], then=[op.put(key, b"v"), *large])
    except AnswerGone as gone:
        revision, succeeded = gone.details
        if not succeeded:
            raise _Mistaken("it is there already") from None
        return int(revision)
    if not made.succeeded:
        raise _Mistaken("it is there already")
    return int(made.header.revision)


async def _grant(client: Client, key: bytes) -> int:
    """Granted again, the lease would be there already."""
    lease = int(key.rpartition(b"/")[2]) + 1
    await client.lease_grant(3600, lease=lease)
    return await client.put(key, b"v", lease=lease)


_CALLS: Final = {"put": _put, "create": _create, "create large": _create_large, "grant": _grant}


async def _increment(client: Client, book: Book) -> None:
    fate = Fate.OPEN
    book.increments[fate] += 1
    try:
        await client.update("counter", lambda value: b"%d" % (int(value or b"0") + 1))
        fate = Fate.DONE
    except OutcomeUnknown:
        fate = Fate.UNKNOWN
    except _REFUSALS:
        fate = Fate.REFUSED
    book.increments[Fate.OPEN] -= 1
    book.increments[fate] += 1


# -- verdict ----------------------------------------------------------------------------------------------------------


async def _judge(report: Report, cluster: Cluster, book: Book) -> None:
    async with cluster.client("judge") as client:
        pairs = await client.range_response("once/", prefix=True)
        counter = await client.get("counter")
    plan, played = report.plan, replay(cluster.ledger)
    report.found += check_end(cluster, played)
    report.found += book.wrong
    versions = {pair.key: (pair.version, pair.mod_revision) for pair in pairs.kvs if not pair.key.endswith(b"/large")}
    for attempt in book.attempts:
        version, revision = versions.pop(attempt.key, (0, 0))
        if wrong := _misdeed(attempt, version, revision):
            report.found.append(f"{attempt.what} of {attempt.key!r} {wrong} ({attempt.fate.value}: {attempt.error})")
        elif plan.is_certain and attempt.fate in (Fate.UNKNOWN, Fate.REFUSED):
            report.found.append(f"{attempt.what} of {attempt.key!r} was given up: {attempt.error}")
        report.happened[f"{attempt.what} done"] += attempt.fate is Fate.DONE
        report.happened["calls of unknown outcome that happened"] += attempt.fate is Fate.UNKNOWN and version == 1
    report.found += [f"nobody wrote {key!r}" for key in versions]
    count = int(counter.value) if counter else 0
    least, doubtful = book.increments[Fate.DONE], book.increments[Fate.UNKNOWN] + book.increments[Fate.OPEN]
    if not least <= count <= least + doubtful:
        report.found.append(f"{least} increments are done and {doubtful} in doubt, and the counter says {count}")
    _tally(report, cluster, book, played)


def _misdeed(attempt: Attempt, version: int, revision: int) -> str:
    """Return what is wrong with what became of a call; empty if nothing is."""
    if version > 1:
        return f"was done {version} times"
    match attempt.fate:
        case Fate.DONE if not version:
            return "is lost"
        case Fate.DONE if attempt.revision != revision:
            return f"was answered revision {attempt.revision}, but was done at {revision}"
        case Fate.REFUSED if version:
            return "was refused, but was done"
    return ""


def _tally(report: Report, cluster: Cluster, book: Book, played: Replay) -> None:
    fates = Counter(attempt.fate for attempt in book.attempts)
    sent = Counter((one.client, one.number) for one in played.writes if one.number)
    done_keys = {attempt.key for attempt in book.attempts if attempt.fate is Fate.DONE}
    twice = {pair for pair, count in sent.items() if count > 1}
    answered_twice = {
        one.arguments[0] for one in played.writes if (one.client, one.number) in twice and one.op == Op.PUT
    } & done_keys
    report.happened += Counter(
        {
            "calls done": fates[Fate.DONE],
            "calls of unknown outcome": fates[Fate.UNKNOWN],
            "calls that were refused": fates[Fate.REFUSED],
            "calls that were cancelled": fates[Fate.CANCELLED],
            "calls that never ended": fates[Fate.OPEN],
            "increments done": book.increments[Fate.DONE],
            "writes that stand in the log twice": len(twice),
            "answers that came after another sending": len(answered_twice),
            "clients that were forgotten": sum("no longer has this client" in one.error for one in book.attempts),
            "elections": cluster.happened["raft.election.won"],
        }
    )
    if fates[Fate.DONE] < DONE_MIN:
        report.found.append(f"{VACUOUS}: {report}")


def main(arguments: list[str] | None = None) -> int:
    """See the module's docstring; return the number of failed seeds."""
    return play(arguments, run, MUST_HAPPEN, SEEDS_TELLING)


if __name__ == "__main__":
    sys.exit(min(main(), 1))

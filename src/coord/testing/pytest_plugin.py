"""A pytest plugin: tests of services that use coord, against a cluster in the same process and in virtual time.

    @pytest.mark.coord_cluster(size=3, seed=7)
    async def test_another_takes_over(coord_cluster: coord.testing.Cluster) -> None:
        first = coord_cluster.launch("first", my_service, coord_cluster.client)
        await coord_cluster.advance(1.0)
        await coord_cluster.kill("first")
        ...

Whoever installs coord beside pytest has it. Nothing of coord is loaded before a test asks for it.
"""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from coord.testing.cluster import Cluster

LASTS_S_MAX: Final = 600.0
"""Of virtual time: a cluster never falls idle, so that a test that waits for what never comes would go on for ever."""


class _NotYet:
    """Stands for the cluster outside of the test itself, where Trio does not run."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(
            f"coord_cluster.{name}: the cluster runs during the test itself, not while fixtures are made; "
            "call a helper from the test, or write an async context manager around it"
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    """See pytest."""
    group = parser.getgroup("coord", "simulated coord clusters")
    group.addoption("--coord-seed", type=int, help="play this seed in all tests that use coord_cluster")


def pytest_configure(config: pytest.Config) -> None:
    """See pytest."""
    config.addinivalue_line(
        "markers",
        "coord_cluster(size=3, seed=0, lasts_s=600, **options): the cluster that the fixture coord_cluster gives: its "
        "members, what its chance follows from, how much virtual time the test may take, and options of its nodes",
    )


@pytest.fixture
def coord_seed(request: pytest.FixtureRequest) -> int:
    """Return the seed from which everything in a test follows; parametrize it to play several."""
    chosen: int | None = request.config.getoption("--coord-seed")
    return _settings(request.node).get("seed", 0) if chosen is None else chosen


@pytest.fixture
def coord_cluster(coord_seed: int) -> Cluster:
    """Give an `async def` test a cluster that has just started, on a virtual clock; it ends with the test."""
    cluster: Any = _NotYet()
    return cluster  # type: ignore[no-any-return]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test of a cluster as the main task of a run of Trio."""
    given = pyfuncitem.funcargs
    if not isinstance(given.get("coord_cluster"), _NotYet):
        return None
    if not iscoroutinefunction(pyfuncitem.obj):
        pytest.fail(f"{pyfuncitem.name} takes coord_cluster and so has to be an `async def`", pytrace=False)
    seed = given["coord_seed"]
    settings = {"size": 3, "lasts_s": LASTS_S_MAX, **_settings(pyfuncitem), "seed": seed}
    names = pyfuncitem._fixtureinfo.argnames
    pyfuncitem.add_report_section("call", "coord", f"replay with --coord-seed={seed} {pyfuncitem.nodeid}")
    _run(pyfuncitem.obj, {name: given[name] for name in names}, **settings)
    return True


def _settings(node: pytest.Item) -> dict[str, Any]:
    marker = node.get_closest_marker("coord_cluster")
    if marker is not None and marker.args:
        raise pytest.UsageError("coord_cluster takes named arguments: coord_cluster(size=3, seed=0)")
    return {} if marker is None else dict(marker.kwargs)


def _run(test: Any, arguments: dict[str, Any], *, size: int, seed: int, lasts_s: float, **options: Any) -> None:
    import trio

    from coord.testing.cluster import open_cluster
    from coord.testing.deterministic import run_seeded

    async def main() -> None:
        with trio.fail_after(lasts_s):
            async with open_cluster(size, seed=seed, **options) as cluster:
                if "coord_cluster" in arguments:
                    arguments["coord_cluster"] = cluster
                await test(**arguments)

    run_seeded(seed, main)

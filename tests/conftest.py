"""What all tests share: the fixtures that users of coord have, pytest's own for tests of plugins, and `--shuffle`."""

from __future__ import annotations

import random
from collections.abc import Generator

import pytest

from coord.testing.deterministic import seeded_scheduler

pytest_plugins = ("coord.testing.pytest_plugin", "pytester")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shuffle",
        type=int,
        metavar="SEED",
        help="let Trio run the tasks of each pass in any order, drawn from SEED and the test's name: "
        "what a test takes for granted shows in a few seeds, and the seed shows it again",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    # Left alone, Trio runs a pass forwards or backwards, by a coin that no seed reaches: most orders never come up.
    seed = item.config.getoption("--shuffle")
    if seed is None:
        return (yield)
    with seeded_scheduler(random.Random(f"{seed} {item.nodeid}").getrandbits(64)):
        return (yield)

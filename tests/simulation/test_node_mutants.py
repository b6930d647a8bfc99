"""The bugs planted in nodes still fit the source, and some of them are found here; `make mutants` hunts all."""

from __future__ import annotations

import pytest

from coord.testing.mutants import Mutant, check, run_apart
from coord.testing.node_mutants import MUTANTS

QUICK = (
    "accept a changed incarnation",
    "acknowledge entries before the sync",
    "acknowledge a renewal without clearing its checkpoint",
    "expire what an earlier leader meant to",
    "ignore what the client has seen",
    "let a leader count itself before its own sync",
    "look only at checkpoints that are applied",
    "skip what a snapshot brought",
    "take a message of another sender",
    "trim the overlay before the commit",
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_fits_the_source(mutant: Mutant) -> None:
    check(mutant)


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_found(name: str) -> None:
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    assert run_apart("coord.testing.node_mutants", mutant).failure

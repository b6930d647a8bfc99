"""The bugs planted in clients still fit the source, and most of them are found here; `make mutants` hunts all."""

from __future__ import annotations

import pytest

from coord.testing.client_mutants import MUTANTS
from coord.testing.mutants import Mutant, check, run_apart

QUICK = (
    "ask nobody else for a renewal",
    "believe in a lease until somebody says that it has ended",
    "count a lease from when its renewal was answered",
    "count without what the machine has slept",
    "forget that a sending was not answered",
    "own by what a retried write did once",
    "register no more once the session is lost",
    "return before the contender's key is gone",
    "run the other branch where a fence is lost",
    "send a write without its fence",
    "take a refusal of the second sending for final",
    "wait for a contender by its name",
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_fits_the_source(mutant: Mutant) -> None:
    check(mutant)


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_found(name: str) -> None:
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    assert run_apart("coord.testing.client_mutants", mutant).failure

"""The harness finds bugs that are known to be there; `make mutants` hunts all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coord.testing import mutants
from coord.testing.raft_mutants import MUTANTS, TOO_RARE

LIST = "coord.testing.raft_mutants"
HERE = Path(__file__).parent

RUN_SCRIPT = """
import importlib.util, sys
from coord.testing import mutants
mutants.plant(mutants.find(sys.argv[1], sys.argv[2]))
spec = importlib.util.spec_from_file_location("stage", sys.argv[3])
stage = importlib.util.module_from_spec(spec)
sys.modules["stage"] = stage
spec.loader.exec_module(stage)
from pathlib import Path
try:
    stage.Stage().run(Path(sys.argv[4]))
except stage.ScriptFailed as error:
    print("found:", error)
"""


@pytest.mark.parametrize("mutant", [*MUTANTS, *TOO_RARE], ids=lambda mutant: mutant.name)
def test_mutant_still_changes_the_source(mutant: mutants.Mutant) -> None:
    mutants.check(mutant)


@pytest.mark.parametrize("name", ["vote twice in a term", "acknowledge before the sync", "join a running read round"])
def test_simulator_finds(name: str) -> None:
    finding = mutants.run_apart(LIST, mutants.find(LIST, name), timeout_s=120)

    assert finding.failure


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("count copies of older terms", "figure_8_old_term_is_not_counted"),
        ("use a read round again", "read_round_is_not_reused"),
        ("read before a commit in the own term", "read_waits_for_own_term_commit"),
        ("send a vote before the sync", "term_and_vote_are_one_write"),
        ("acknowledge before the sync", "no_ack_before_the_flush"),
        ("believe a completion by its term alone", "completion_of_an_overwritten_entry"),
        ("keep a suffix that differs", "an_uncommitted_suffix_gives_way"),
        ("change members before the own term", "single_server_change_needs_own_term"),
        ("start a second configuration early", "second_promotion_waits_for_the_first"),
        ("forget the commit at restart", "commit_is_remembered_over_a_restart"),
        ("keep the log behind a snapshot", "installed_snapshot_drops_the_log"),
        ("vote twice in a term", "one_leader_in_a_term"),
        ("take a request for a round for an answer to others", "read_request_answers_no_other_round"),
        ("send what an earlier leadership cut", "a_later_leadership_sends_its_own_log"),
        ("listen to whoever campaigns", "partial_mesh_keeps_its_leader"),
    ],
)
def test_script_finds(name: str, script: str) -> None:
    path = HERE / "scripts" / f"{script}.txt"
    command = [sys.executable, "-c", RUN_SCRIPT, LIST, name, str(HERE / "stage.py"), str(path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "found:" in run.stdout, run.stderr


def test_a_mutant_whose_text_is_gone_is_told() -> None:
    gone = mutants.Mutant("gone", "I1", (mutants.Patch("coord.raft.core", "this text is not there", ""),))

    with pytest.raises(LookupError, match="0 times"):
        mutants.check(gone)

"""The page about locks, elections and services from the shell runs as it stands, in one shell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.test_walkthrough import BLOCK, Shell
from tests.integration.cluster import NodeProcess

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
KEY = "[0-9a-f]+"
BEGUN = f"until coord get --prefix '' --keys-only | grep -qE '/{KEY}$'; do sleep 0.1; done; sleep 1"
"""What was begun in the background has put its key, and a second later it has said so."""
PRINTED = (
    # What each block prints, in the order of the page.
    r"one host at a time\n",
    rf"key jobs/nightly/{KEY}, token \d+\nexit status 3\n",
    r"SUCCESS\n\nOK\n",
    rf"Error: lock 'jobs/nightly' was not acquired within 0 s: jobs/nightly/{KEY} has it\nsomebody has it\n"
    rf"jobs/nightly/{KEY}\n\n",
    rf'{{"key":"deploy/{KEY}","value":"","create_revision":\d+,.*}}\n',
    rf"db/primary/{KEY}\n10\.0\.0\.1:5432\ndb/primary/{KEY}\n10\.0\.0\.1:5432\n",
    rf"registered 10\.0\.0\.5:80 as api/instance/{KEY}\n"
    r'10\.0\.0\.5:80 {"zone": "a", "version": "7"}\n'
    r"(?:[+|].*\n){5}"
    r'{"instances":\[\]}\n',
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path_factory.mktemp("node"))
    try:
        node.start()
        yield node
        assert node.terminate() == 0
        node.log()
    finally:
        node.cleanup()


def test_the_page_runs_as_it_stands(node: NodeProcess, tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) == len(PRINTED)
    shell = Shell(tmp_path)
    try:
        shell.run(f"export COORD_ENDPOINTS={node.endpoint}")
        for block, printed in zip(blocks, PRINTED, strict=True):
            # However slow the machine is.
            patient = re.sub(r"^sleep 1\.5$", lambda _: BEGUN, block, flags=re.MULTILINE)
            patient = patient.replace("sleep 3 &", "sleep 5 &")
            said = shell.run(patient.replace("timeout 3", "timeout 6"))
            assert re.fullmatch(printed, said), f"{block}\nprinted:\n{said}"
        assert shell.run("coord get --prefix '' --keys-only; coord lease list") == "jobs/last\n\nfound 0 leases\n"
    finally:
        shell.close()

"""The page about testing: its service and its tests run as they stand there, in milliseconds each."""

from __future__ import annotations

import time

import pytest

from .test_examples import examples

BLOCKS = [code for _, code in examples("python", "docs/testing.md")]
CPU_SECONDS_MAX = 20.0
"""Of all tests of the page, which take a few; a clock would count what else the machine is busy with."""


def test_its_tests_pass(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for code in BLOCKS:
        if code.startswith("# "):
            pytester.path.joinpath(code.partition("\n")[0].removeprefix("# ")).write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(pytester.path)
    began = time.process_time()
    result = pytester.runpytest_inprocess("-p", "coord.testing.pytest_plugin", "--strict-markers", "-W", "error")
    result.assert_outcomes(passed=8)
    assert time.process_time() - began < CPU_SECONDS_MAX


def test_its_program_runs() -> None:
    (program,) = (code for code in BLOCKS if not code.startswith("# "))
    exec(compile(program, "docs/testing.md", "exec"), {})

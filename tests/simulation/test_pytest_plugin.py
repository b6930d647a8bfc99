"""The plugin that gives users a cluster: their tests run as they are written, and fail as they should."""

from __future__ import annotations

import pytest
import trio

from coord.testing import Cluster

HEAD = "import pytest, trio\n"


@pytest.mark.coord_cluster(size=1)
async def test_a_test_is_a_task_of_trio_with_a_cluster(coord_cluster: Cluster) -> None:
    assert coord_cluster.names == ["n1"]
    began = trio.current_time()
    await coord_cluster.advance(3600 / 60)
    assert trio.current_time() - began == pytest.approx(60)


@pytest.mark.parametrize("coord_seed", [3, 4])
async def test_a_seed_can_be_a_parameter(coord_cluster: Cluster, coord_seed: int) -> None:
    assert coord_seed in (3, 4)
    assert coord_cluster.names == ["n1", "n2", "n3"]


class TestInAClass:
    async def test_methods_are_tests_too(self, coord_cluster: Cluster, tmp_path: object) -> None:
        assert tmp_path
        async with coord_cluster.client() as client:
            await client.put("k", b"v")


@pytest.fixture(autouse=True)
def no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a second to load, each time."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(HEAD + test)
    return pytester.runpytest_inprocess("-p", "coord.testing.pytest_plugin", "--strict-markers", *options)


def test_what_a_test_raises_is_shown_as_it_is_with_the_seed(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.coord_cluster(seed=12)
async def test_it(coord_cluster):
    answer = 41
    assert answer == 42
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert 41 == 42*", "*replay with --coord-seed=12 *::test_it*"])
    assert "ExceptionGroup" not in result.stdout.str()


def test_an_option_chooses_the_seed_of_all_tests(pytester: pytest.Pytester) -> None:
    test = """
@pytest.mark.coord_cluster(seed=12)
async def test_it(coord_cluster, coord_seed):
    assert coord_seed == 77
"""
    run(pytester, test, "--coord-seed=77").assert_outcomes(passed=1)
    run(pytester, test).assert_outcomes(failed=1)


def test_one_seed_plays_one_test(pytester: pytest.Pytester) -> None:
    test = """
async def test_it(coord_cluster):
    async with coord_cluster.client() as client:
        await coord_cluster.kill(await coord_cluster.leader())
        await client.get("k")
    print("it took", trio.current_time())
"""
    runs = [run(pytester, test, "-s", f"--coord-seed={seed}") for seed in (5, 5, 6)]
    took = [next(line for line in result.outlines if "it took" in line) for result in runs]
    assert took[0] == took[1] != took[2]


def test_who_waits_for_ever_fails_in_virtual_time(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.coord_cluster(size=1, lasts_s=20)
async def test_it(coord_cluster):
    await trio.sleep_forever()
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TooSlowError*"])


def test_skipping_and_failing_by_hand_work(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
async def test_skips(coord_cluster):
    pytest.skip("not today")

async def test_fails(coord_cluster):
    pytest.fail("by hand")
""",
    )
    result.assert_outcomes(skipped=1, failed=1)


@pytest.mark.parametrize(
    ("test", "says"),
    [
        ("def test_it(coord_cluster):\n    pass\n", "*test_it takes coord_cluster and so has to be an `async def`*"),
        (
            "@pytest.fixture\ndef leader(coord_cluster):\n    return coord_cluster.leader_now()\n\n"
            "async def test_it(leader, coord_cluster):\n    pass\n",
            "*coord_cluster.leader_now: the cluster runs during the test itself*",
        ),
        (
            "@pytest.mark.coord_cluster(3)\nasync def test_it(coord_cluster):\n    pass\n",
            "*coord_cluster takes named arguments*",
        ),
    ],
)
def test_a_mistake_is_told(pytester: pytest.Pytester, test: str, says: str) -> None:
    result = run(pytester, test)
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1
    result.stdout.fnmatch_lines([says])


def test_tests_without_a_cluster_are_left_alone(pytester: pytest.Pytester) -> None:
    run(pytester, "def test_it():\n    pass\n").assert_outcomes(passed=1)


def test_it_may_be_named_besides_being_installed(pytester: pytest.Pytester) -> None:
    """Its entry point has the name of its module, so that pytest knows it is the same."""
    pytester.makeconftest('pytest_plugins = ["coord.testing.pytest_plugin"]')
    run(pytester, "async def test_it(coord_cluster):\n    pass\n").assert_outcomes(passed=1)

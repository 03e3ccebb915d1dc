# SPDX-License-Identifier: Apache-2.0
"""The runner of the tiers looks twice at a few failed tests, and tells those that pass then by name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[3] / "tools"

TESTS = """
import pathlib
import pytest

HERE = pathlib.Path(__file__).parent

class TestOnce:
    @pytest.mark.parametrize("name", ["first", "a b::c"])
    def test_fails_once(self, name):
        mark = HERE / name
        seen = mark.exists()
        mark.touch()
        assert seen

def test_good():
    pass

@pytest.mark.parametrize("number", range({always}))
def test_bad(number):
    assert False
"""


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    for name in ("test", "tiers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("test")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "BUILD", tmp_path / "build")
    (tmp_path / "build").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return module


def ran(runner: ModuleType, folder: Path, always: int) -> tuple[list[str], list[str], str]:
    """Return what stayed red, what was unstable, and the summary's last line."""
    (folder / "tests").mkdir()
    (folder / "tests" / "test_some.py").write_text(TESTS.replace("{always}", str(always)))
    results = [runner.run(runner.Tier("some", "tests"), True, ())]
    runner.look_again(results, True, ())
    return results[0].failed, results[0].unstable, runner.summary(results, True).splitlines()[-1]


def test_what_passes_when_run_again_is_unstable(runner: ModuleType, tmp_path: Path) -> None:
    failed, unstable, last = ran(runner, tmp_path, always=1)
    assert failed == ["tests.test_some::test_bad[0]"]
    assert unstable == [f"tests.test_some.TestOnce::test_fails_once[{name}]" for name in ("a b::c", "first")]
    assert last == "3 passed, 1 failed, 0 skipped"


def test_more_than_a_few_are_not_looked_at_twice(runner: ModuleType, tmp_path: Path) -> None:
    failed, unstable, last = ran(runner, tmp_path, always=runner.MOST_UNSTABLE - 1)
    assert len(failed) == runner.MOST_UNSTABLE + 1 and unstable == []
    assert last == f"1 passed, {runner.MOST_UNSTABLE + 1} failed, 0 skipped"


def test_rows_run_at_the_same_time_and_each_in_its_order(runner: ModuleType, tmp_path: Path) -> None:
    """Each tier waits for a file that another one makes, in another row or before it in its own."""

    def tier(name: str, row: int, after: str) -> object:
        wait = f"import os, time\nwhile not os.path.exists({after!r}): time.sleep(0.01)"
        make = f"open({name!r}, 'w').close()"
        return runner.Tier(name, command=("timeit", "-n1", "-r1", f"{wait}\n{make}"), row=row, minutes=0.5)

    (tmp_path / "begin").touch()
    tiers = [tier("a", 0, "c"), tier("b", 2, "begin"), tier("c", 1, "d"), tier("d", 2, "b"), tier("e", 0, "a")]
    results = runner.run_all(tiers, True, ())
    assert [result.tier.name for result in results] == list("abcde")
    assert [result.complaint for result in results] == [None] * 5

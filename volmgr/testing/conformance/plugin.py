# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin of the conformance suite: the option ``--driver-factory`` and the fixture ``bench``.

It knows the factories and nothing of what the suite tests.
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
from collections.abc import Iterator

import pytest

from volmgr.drivers.making import making
from volmgr.testing.conformance.bench import Bench
from volmgr.testing.conformance.factories import DriverFactory, all_factories

WORK = "the-work-of-a-test"
_count = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--driver-factory", action="append", default=[], help="test only this driver; may be repeated")


def chosen_factories(config: pytest.Config) -> list[DriverFactory]:
    """Return the factories that the command line names, all of them if it names none."""
    wanted = config.getoption("--driver-factory", default=[])
    found = all_factories()
    unknown = set(wanted) - {factory.name for factory in found}
    if unknown:
        raise pytest.UsageError(f"no driver factory {', '.join(unknown)}; there are {[f.name for f in found]}")
    return [factory for factory in found if not wanted or factory.name in wanted]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "factory" in metafunc.fixturenames:
        factories = chosen_factories(metafunc.config)
        metafunc.parametrize("factory", factories, ids=[item.name for item in factories], scope="session")


@pytest.fixture(scope="session")
def factory_world(factory: DriverFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """Where a factory's drivers have their folders; skips what this machine cannot test."""
    reason = factory.unavailable()
    if reason is not None:
        pytest.skip(f"{factory.name}: {reason}")
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(factory.world(tmp_path_factory.mktemp(factory.name)))


@pytest.fixture
def bench(factory: DriverFactory, factory_world: pathlib.Path) -> Iterator[Bench]:
    """A fresh driver over a folder of its own; what a test does is one work, so a call made twice is a repeat."""
    folder = factory_world / f"test-{next(_count)}"
    folder.mkdir(mode=0o700)
    driver = factory.make(folder)
    try:
        with making(WORK, again=True):
            yield Bench(driver, factory, folder)
    finally:
        factory.end(driver, folder)

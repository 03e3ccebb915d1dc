# SPDX-License-Identifier: Apache-2.0
"""What every tier shares: the concurrency backend, a mark per tier, what a missing tool means. It knows no fixtures.

The backend is chosen before a test module is imported, as a console script would do it: ``VOLMGR_CONCURRENCY``, else
eventlet. With ``VOLMGR_STRICT=1`` a test that cannot run for want of a tool fails instead of being skipped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from volmgr import concurrency

concurrency.setup()

from volmgr.connector import module_state  # noqa: E402  (after the choice)
from volmgr.drivers.making import making  # noqa: E402

# How long an example takes depends on what else the machine does. The examples are the same in every run, so that what
# turns red is what was changed; with VOLMGR_NEW_EXAMPLES=1 others are looked for.
hypothesis.settings.register_profile("volmgr", deadline=None, derandomize="VOLMGR_NEW_EXAMPLES" not in os.environ)
hypothesis.settings.load_profile("volmgr")

TIERS = ("unit", "conformance", "functional", "lab", "fabric", "simulation", "chaos")
_SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def is_strict() -> bool:
    """Return whether a test that cannot run is a failure."""
    return os.environ.get("VOLMGR_STRICT", "") not in ("", "0")


def unavailable(reason: str) -> None:
    """End the running test: skipped with ``reason``, or failed where strictness is asked for.

    :param reason: what is missing and how to get it.
    """
    if is_strict():
        pytest.fail(f"cannot run here: {reason}", pytrace=False)
    pytest.skip(reason)


def require(tool: str, package: str | None = None) -> str:
    """Return the path of the program ``tool``, or end the running test.

    :param tool: name of a program; the system's sbin folders are searched too.
    :param package: the Debian package that has it, if it is named otherwise.
    """
    path = shutil.which(tool, path=_SYSTEM_PATH)
    if path is None:
        unavailable(f"{tool} is missing: install {package or tool}")
    assert path is not None
    return path


@pytest.fixture
def one_work() -> Iterator[None]:
    """Make what a test lets drivers do one piece of work: a creation that is repeated finds what is its own."""
    with making("the-work-of-a-test", again=True):
        yield


@pytest.fixture(name="require", scope="session")
def _require_fixture() -> Callable[..., str]:
    """:func:`require`, for tests that would rather ask for it than import it."""
    return require


def _has_initiator() -> bool:
    return module_state("iscsi_tcp") != "missing" and os.geteuid() == 0


#: marks of tests that mean something in some runs only; in the others they are not there at all, which is no skip.
_ONLY_WHERE: dict[str, Callable[[], bool]] = {
    "server_database": lambda: os.environ.get("VOLMGR_TEST_DATABASE", "sqlite") != "sqlite",
    "kernel_initiator": _has_initiator,
    "no_kernel_initiator": lambda: not _has_initiator(),
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with the tier whose folder it is in; leave out what means nothing in this run."""
    out = [item for item in items if any(item.get_closest_marker(m) and not here() for m, here in _ONLY_WHERE.items())]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]
    root = Path(__file__).parent
    for item in items:
        tier = item.path.relative_to(root).parts[0] if item.path.is_relative_to(root) else ""
        if tier in TIERS:
            item.add_marker(tier)
        if item.path.is_relative_to(root / "functional" / "db"):
            item.add_marker("database")

# SPDX-License-Identifier: Apache-2.0
"""Every promised verb is answered, and every promised method of a driver entered, in one recorded run of the daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import require
from tests.functional.surface import reaching, stories
from tests.functional.surface.site import Site
from tests.unit.surface import rows
from volmgr.testing.recording import Entry
from volmgr.testing.storpool.process import StorPoolServer

# The first test waits for all stories.
pytestmark = [pytest.mark.once, pytest.mark.timeout(1200)]
ELSEWHERE = reaching.elsewhere()


class Run:
    """The run: each story in its order, whatever has become of those before it."""

    def __init__(self, site: Site) -> None:
        self.failures: dict[str, Exception] = {}
        for story in stories.STORIES:
            try:
                story(site)
            except Exception as error:
                self.failures[story.__name__] = error
        self.entered: set[Entry] = site.entered()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    for tool, package in (("tgtd", "tgt"), ("qemu-img", "qemu-utils")):
        require(tool, package)
    folder = tmp_path_factory.mktemp("surface")
    with StorPoolServer(folder / "storpool") as server:
        site = Site(folder, server)
        try:
            site.start()
            yield Run(site)
        finally:
            site.end()


@pytest.mark.parametrize("story", [story.__name__ for story in stories.STORIES])
def test_the_story_ends_well(run: Run, story: str) -> None:
    if (error := run.failures.get(story)) is not None:
        raise error


@pytest.mark.parametrize("verb", rows.named("rpc"))
def test_the_verb_is_answered(run: Run, verb: str) -> None:
    assert reaching.answered(verb, run.entered)


@pytest.mark.parametrize("name", [name for name in reaching.METHODS if name not in ELSEWHERE])
def test_the_method_is_entered(run: Run, name: str) -> None:
    assert reaching.reached(reaching.METHODS[name], run.entered)


def test_what_is_reached_elsewhere_is_not_reached_here_and_says_why(run: Run) -> None:
    """A row that could be asked for here belongs here."""
    assert set(ELSEWHERE) <= set(reaching.METHODS)
    assert all(len(reason) > 30 for reason in ELSEWHERE.values())
    assert [name for name in ELSEWHERE if reaching.reached(reaching.METHODS[name], run.entered)] == []

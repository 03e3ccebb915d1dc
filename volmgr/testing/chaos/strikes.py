# SPDX-License-Identifier: Apache-2.0
"""Kills the daemon at every point of a story, one after the other, and holds what is left against the legal outcomes.

Legal is what the story makes without a kill, with or without its faults; or, where nothing of the request was admitted,
what there was before. Then the same request is sent again, twice, under its key.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volmgr import exception
from volmgr.db import models
from volmgr.images.base import ImageInfo
from volmgr.images.directory import data_name
from volmgr.testing.chaos import fingerprint
from volmgr.testing.chaos.fingerprint import Fingerprint
from volmgr.testing.chaos.pair import Pair
from volmgr.testing.chaos.points import normal
from volmgr.testing.chaos.scenarios import SCENARIOS
from volmgr.testing.chaos.stage import Stage, counted, must
from volmgr.testing.chaos.story import IMAGE, MARK, MEND, PUT, RENAME, Call, Scenario, told
from volmgr.types import GiB

LOG = logging.getLogger(__name__)
ROLES = ("@v", "@s", "@c", "@g", "@h", "@k", "@b")
TAKEN = "-/taken"
#: points that are the same code whatever the verb's story: they are struck in the first story of each verb.
#: of so many points of a story with two workers one is struck, unless the whole is asked for.
PAIR_SHARE = 5
ADMISSION = ("received", "admitted")
#: what the points begin with at which a machine attaches what another one exports, whatever the verb.
ATTACHING = "initiator/"
#: stories whose daemons start as in production; those of all others are forks of one that has loaded everything.
EXECUTED = ("create-from-snapshot", "connect")


@dataclass
class Telling:
    """One telling of a story: its ids, its project, its request's key."""

    scenario: Scenario
    ids: dict[str, str] = field(default_factory=lambda: {role: str(uuid.uuid4()) for role in ROLES})
    project: str = field(default_factory=lambda: f"p-{uuid.uuid4().hex[:12]}")
    key: str = field(default_factory=lambda: str(uuid.uuid4()))

    def prepare(self, stage: Stage, *, faults: bool = True) -> None:
        """Make what there is before, and order the faults."""
        for call in self.scenario.before:
            if call.method == MARK:
                self._mark(stage, call)
            elif call.method == IMAGE:
                self._image(stage, **told(call.arguments, self.ids))
            elif call.method in (PUT, RENAME):
                self._tamper(stage, **told(call.arguments, self.ids))
            else:
                must(stage.do(call.method, told(call.arguments, self.ids), project=self.project))
        stage.outside.wait_idle()
        stage.lay_faults(*(told(dict(rule), self.ids) for rule in self.scenario.faults if faults))

    def _mark(self, stage: Stage, call: Call) -> None:
        volume_id = self.ids[call.arguments["volume"]]
        (row,) = stage.outside.rows(models.volumes, models.volumes.c.id == volume_id)
        fd = os.open(stage.outside.path_of(row.object_id), os.O_WRONLY)
        os.pwrite(fd, call.arguments["text"].encode().ljust(fingerprint.MARK_BYTES, b"\0"), 0)
        os.close(fd)

    def _image(self, stage: Stage, image_id: str, text: str, damaged: bool = False) -> None:
        store = stage.outside.image_store()
        upload = store.upload(ImageInfo(image_id, store.name, "raw", "1"))
        upload.write(text.encode().ljust(fingerprint.MARK_BYTES * 64, b"\0"))
        upload.commit()
        if damaged:
            fd = os.open(os.path.join(store.path, data_name(image_id, "1")), os.O_WRONLY)
            os.pwrite(fd, b"damaged", 0)
            os.close(fd)

    def _tamper(self, stage: Stage, name: str, to: str | None = None) -> None:
        folder = stage.outside.folders()[0]
        if to is not None:
            (folder / name).rename(folder / to)
            return
        (folder / name).touch()
        os.truncate(folder / name, GiB)

    def _mend(self, stage: Stage) -> dict[str, Any]:
        """Let an audit find what is wrong with this story's resources, and mend just that."""
        found = stage.do("audit", {"fix": False}, project=self.project)["findings"]
        own = [item["id"] for item in found if any(name in json.dumps(item) for name in self.ids.values())]
        if own:
            stage.do("audit", {"fix": True, "findings": own}, project=self.project)
        return {}  # what an audit finds the second time is nothing, which is no answer to compare

    def beside(self, stage: Stage) -> None:
        """Send what the request must wait for."""
        if (call := self.scenario.beside) is not None:
            stage.ask(call.method, told(call.arguments, self.ids), project=self.project)

    def request(self, stage: Stage) -> dict[str, Any]:
        """Send the request that matters and wait for its end."""
        call = self.scenario.call
        if call.method == MEND:
            return self._mend(stage)
        return stage.do(call.method, told(call.arguments, self.ids), project=self.project, key=self.key)

    def send(self, stage: Stage) -> dict[str, Any]:
        """Send the request that matters, and wait for nothing."""
        call = self.scenario.call
        return stage.ask(call.method, told(call.arguments, self.ids), project=self.project, key=self.key)

    def take(self, stage: Stage) -> Fingerprint:
        """Return what stands now."""
        return fingerprint.take(stage.outside, self.ids, self.project)


@dataclass(frozen=True)
class Strike:
    """One kill: a point, or (driver verb, when) of the simulator; ``again``: the next life dies at once, too."""

    point: str = ""
    number: int = 1
    inside: tuple[str, str] | None = None
    again: str = ""

    def __str__(self) -> str:
        place = f"{self.point}#{self.number}" if self.point else "in {}, {}".format(*(self.inside or ("", "")))
        return f"{place}, and again at {self.again}" if self.again else place


@dataclass
class Recorded:
    """A story without a kill.

    :param points: what it passed, without ids. :param outcomes: what it may leave, with and without its faults.
    :param nothing: what it may leave where its request was never admitted, beside what there was before.
    """

    scenario: Scenario
    points: list[str]
    outcomes: list[Fingerprint]
    nothing: list[Fingerprint] = field(default_factory=list)

    def _boundaries(self, first: int, *, whole: bool) -> list[tuple[str, int]]:
        """Return the points to be struck at, each with its number.

        Of two workers either may be asked first, so what both pass is left out; and as they take long to start, in
        brief a share of their points does.
        """
        found = counted(self.points)[first:]
        if not self.scenario.pair:
            return found
        return [item for item in found if not item[0].endswith(ADMISSION)][:: 1 if whole else PAIR_SHARE]

    def strikes(self, *, whole: bool = False) -> Iterator[Strike]:
        """Return every kill of this story.

        :param whole: also where another story of this verb is struck at the very same point.
        """
        first = self.points.index(self.scenario.since) if self.scenario.since else 0
        opening = whole or next(item for item in SCENARIOS if item.verb == self.scenario.verb) is self.scenario
        for point, number in self._boundaries(first, whole=whole):
            if (opening or not point.endswith(ADMISSION)) and (whole or not (self.scenario.lean and "/-/" in point)):
                yield Strike(point, number)
        for inside in self.scenario.inside:
            yield Strike(inside=inside)
        # Whoever takes over dies as well.
        begun = next((point for point in self.points if point.endswith("/before")), None)
        if begun is not None and not first:
            yield Strike(begun, again=f"{self.scenario.verb}/{TAKEN}")


@dataclass
class Result:
    """How a story went: how often it was killed, what it passed in all lives, what was wrong."""

    scenario: Scenario
    kills: int = 0
    reached: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)


def record(stage: Stage, scenario: Scenario) -> Recorded:
    """Tell a story without a kill.

    :raises AssertionError: something is wrong after it.
    """
    outcomes: list[Fingerprint] = []
    points: list[str] = []
    for faults in (True, False) if scenario.faults else (False,):
        telling = Telling(scenario)
        telling.prepare(stage, faults=faults)
        before = len(stage.passed())
        telling.beside(stage)
        telling.request(stage)
        found = stage.outside.settle()
        assert not found, f"{scenario.name} without a kill: {found}"
        outcomes.append(telling.take(stage))
        passed = [normal(point) for point in stage.passed()[before:]]
        points = points or [point for point in passed if point.startswith((f"{scenario.verb}/", ATTACHING))]
    nothing = []
    if scenario.beside is not None:
        telling = Telling(scenario)
        telling.prepare(stage, faults=False)
        telling.beside(stage)
        stage.outside.wait_idle()
        nothing.append(telling.take(stage))
    stage.lay_faults()
    return Recorded(scenario, points, outcomes, nothing)


def strike(stage: Stage, recorded: Recorded, kill: Strike) -> list[str]:
    """Tell a story with a kill; returns what is wrong then, in words. The daemon lives before and after it."""
    telling = Telling(recorded.scenario)
    telling.prepare(stage)
    before, serials = telling.take(stage), fingerprint.serials(stage.outside, telling.ids)
    _aim(stage, telling, kill)
    try:
        telling.beside(stage)
        # Of two workers the one that is asked may live on, and would be waited for.
        (telling.send if recorded.scenario.pair else telling.request)(stage)
    except exception.VolmgrError:
        pass  # the connection is lost with the daemon; whether it is, is looked at next
    try:
        stage.wait_killed()
    except subprocess.TimeoutExpired:
        return ["the point was never reached"]
    _revive(stage, kill)
    found = stage.outside.settle(patient=recorded.scenario.call.method != MEND)
    after = telling.take(stage)
    if recorded.scenario.call.method == MEND and after == before:
        found = []  # nothing was mended yet, so what was wrong before is so still
    (*rows,) = stage.outside.rows(models.operations, models.operations.c.request_key == telling.key)
    # A request that is no operation may have been done in part: what SQL says is then what was promised.
    legal = recorded.outcomes if rows else [before, *recorded.nothing, *recorded.outcomes]
    if after not in legal:
        found.append(f"no legal outcome: {fingerprint.difference(after, legal[-1])}")
    found += [
        f"volume {name} has another serial than before"
        for name, serial in fingerprint.serials(stage.outside, telling.ids).items()
        if serials.get(name, serial) != serial
    ]
    return found + _repeat(stage, recorded, telling, rows)


def _aim(stage: Stage, telling: Telling, kill: Strike) -> None:
    if kill.inside is None:
        stage.aim(kill.point, kill.number)
        return
    verb, when = kill.inside
    # Whatever resource it is about: nothing else runs.
    stage.lay_faults({"verb": verb, "action": "kill", "when": when, "times": 1, "id": telling.key})


def _revive(stage: Stage, kill: Strike) -> None:
    if kill.again:
        stage.aim(kill.again)
        stage.restart()
        stage.wait_killed()
    stage.aim("")
    stage.start()


def _repeat(stage: Stage, recorded: Recorded, telling: Telling, rows: list[Any]) -> list[str]:
    """Send the request again, twice; returns what is wrong with the answers."""
    try:
        answers = [telling.request(stage) for _ in range(2)]
    except exception.VolmgrError as error:
        return [f"the same request again is refused: {error}"]
    found = [] if _same(*answers) else [f"the same request again has another answer: {answers}"]
    if rows and (rows[0].id, rows[0].state) != (answers[0].get("id"), answers[0].get("state")):
        found.append(f"the same request again is {answers[0]}, it was {rows[0].id} {rows[0].state}")
    found += stage.outside.settle()
    after = telling.take(stage)
    if after not in recorded.outcomes:
        found.append(f"after the same request again: {fingerprint.difference(after, recorded.outcomes[-1])}")
    return found


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    # Whether something was taken away is told to the first who asks; the rest of an answer stays.
    differs = {"disconnected", "removed"}
    return {**one, **dict.fromkeys(differs)} == {**other, **dict.fromkeys(differs)}


def all_of(
    folder: Path, scenario: Scenario, tell: Callable[[str], None] = lambda _line: None, *, whole: bool = False
) -> Result:
    """Tell one story without a kill and then with each of its kills, in one folder; returns how that went.

    :param tell: is given a line for each kill. :param whole: see :meth:`Recorded.strikes`.
    """
    forked = scenario.name not in EXECUTED
    stage: Stage = (Pair if scenario.pair else Stage)(folder, forked=forked, **dict(scenario.options)).start()
    result = Result(scenario)
    try:
        recorded = record(stage, scenario)
        for kill in recorded.strikes(whole=whole):
            found = strike(stage, recorded, kill)
            result.kills += 1
            result.violations += [f"{scenario.name}, {kill}: {text}" for text in found]
            tell(f"{scenario.name}, {kill}: {'; '.join(found) or 'ok'}")
            if found:
                break  # what is wrong now would be wrong after the next kill as well
        result.reached = {normal(point) for point in stage.passed()}
    finally:
        stage.close()
    return result


def lanes(
    folder: Path,
    scenarios: Sequence[Scenario],
    count: int,
    tell: Callable[[str], None] = lambda _line: None,
    *,
    whole: bool = False,
) -> dict[str, Result]:
    """Tell stories, ``count`` of them at once; returns the results by name."""
    # Two workers wait for each other a lot, which others fill if there are any left.
    left, results = sorted(scenarios, key=lambda item: not item.pair), {}

    def work() -> None:
        while left:
            scenario = left.pop(0)
            try:
                results[scenario.name] = all_of(folder / scenario.name, scenario, tell, whole=whole)
            except Exception as error:
                LOG.exception("%s", scenario.name)
                results[scenario.name] = Result(scenario, violations=[f"{scenario.name}: {error!r}"])

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results

# SPDX-License-Identifier: Apache-2.0
"""Faults to order: a verb fails, is slow, hangs or dies, at a step of its work, a number of times.

A test in the same process calls the methods of :class:`Faults`. One that steers a daemon writes a JSON file, a list of
objects with the keys of :class:`Rule`; what such rules have spent is noted in ``<file>.spent`` before they strike, so
that a rule with ``times`` 1 does not kill the daemon's next life as well. This module knows no verb and no storage.
"""

from __future__ import annotations

import collections
import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from volmgr import exception
from volmgr.runtime import Clock, SystemClock

LOG = logging.getLogger(__name__)
POLL = 0.05
ANY = "*"

#: A step of a verb: before anything changed; the building object is there, not its final name; all is done.
BEFORE, BUILDING, AFTER = "before", "building", "after"


class Hang:
    """A verb that waits until the test lets it go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()

    def release(self) -> None:
        """Let the verb go on, and every later one that meets this rule."""
        self.released.set()


@dataclass
class Rule:
    """One fault.

    :param verb: method name of the driver, or ``*``. :param when: ``before``, ``building`` or ``after``.
    :param action: ``fail``, ``delay``, ``hang`` or ``kill``.
    :param times: how often it strikes, None for always. :param match: only for this resource id.
    :param error: what to raise; in the file an error's code, with ``message``.
    :param seconds: the length of a delay. :param deadline: seconds after which a hang ends in Timeout.
    :param hook: called for ``kill``; from the file it is SIGKILL to this process.
    :param id: tells rules of the file apart that are otherwise equal.
    """

    verb: str
    action: str = "fail"
    when: str = BEFORE
    times: int | None = 1
    match: str | None = None
    error: Any = None
    message: str | None = None
    seconds: float = 0.0
    deadline: float = 60.0
    id: str | None = None
    hook: Callable[[], None] | None = field(default=None, repr=False)
    hang: Hang | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)

    def fits(self, verb: str, when: str, resource_id: str) -> bool:
        return (
            self.verb in (verb, ANY)
            and self.when == when
            and self.match in (None, resource_id)
            and (self.times is None or self.times > 0)
        )


class Faults:
    """The faults of one driver.

    :param clock: what delays and deadlines are measured by.
    :param path: the JSON file, None for none. It is read again when it changes.
    """

    def __init__(self, clock: Clock | None = None, path: str | None = None) -> None:
        self.calls: collections.Counter[str] = collections.Counter()
        self._clock = clock or SystemClock()
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._rules: list[Rule] = []
        self._from_file: list[Rule] = []
        self._lock = threading.Lock()
        self.latency = 0.0

    @property
    def armed(self) -> bool:
        """Whether :meth:`reach` may do anything; keeps verbs without faults fast."""
        return bool(self._rules or self._path or self.latency)

    def fail(self, verb: str, error: Any, times: int | None = 1, when: str = BEFORE, match: str | None = None) -> None:
        """Let ``verb`` raise ``error`` (an instance or a class)."""
        self._add(Rule(verb, "fail", when, times, match, error=error))

    def delay(
        self, verb: str, seconds: float, times: int | None = None, when: str = BEFORE, match: str | None = None
    ) -> None:
        """Let ``verb`` take ``seconds`` longer."""
        self._add(Rule(verb, "delay", when, times, match, seconds=seconds))

    def hang(
        self, verb: str, when: str = BEFORE, times: int | None = 1, match: str | None = None, deadline: float = 60.0
    ) -> Hang:
        """Let ``verb`` wait until the returned object is released; after ``deadline`` seconds it raises Timeout."""
        made = Hang()
        self._add(Rule(verb, "hang", when, times, match, deadline=deadline, hang=made))
        return made

    def kill(
        self,
        verb: str,
        when: str = BEFORE,
        hook: Callable[[], None] | None = None,
        times: int | None = 1,
        match: str | None = None,
    ) -> None:
        """Call ``hook`` in ``verb``; without one this process gets SIGKILL."""
        self._add(Rule(verb, "kill", when, times, match, hook=hook))

    def clear(self) -> None:
        """Forget all faults made here, and let go of what hangs."""
        with self._lock:
            rules, self._rules = self._rules, []
        for rule in rules:
            if rule.hang is not None:
                rule.hang.release()

    def _add(self, rule: Rule) -> None:
        with self._lock:
            self._rules = [*self._rules, rule]

    def reach(self, verb: str, when: str, resource_id: str) -> None:
        """Called by the driver at each step; strikes with every rule that fits.

        :raises BaseException: what a rule says. :raises Timeout: a hang was not released in time.
        """
        if when == BEFORE and self.latency:
            self._clock.wait(threading.Event(), self.latency)
        if self._path is not None:
            self._read()
        for rule in self._take(verb, when, resource_id):
            self._strike(rule, verb)

    def _take(self, verb: str, when: str, resource_id: str) -> list[Rule]:
        with self._lock:
            taken = [rule for rule in (*self._rules, *self._from_file) if rule.fits(verb, when, resource_id)]
            for rule in taken:
                if rule.times is not None:
                    rule.times -= 1
                if rule.key is not None:
                    self._spend(rule.key)
            return taken

    def _strike(self, rule: Rule, verb: str) -> None:
        if rule.action == "delay":
            self._clock.wait(threading.Event(), rule.seconds)
        elif rule.action == "kill":
            (rule.hook or _kill_self)()
        elif rule.action == "hang":
            self._hang(rule, verb)
        else:
            raise _error(rule)

    def _hang(self, rule: Rule, verb: str) -> None:
        hang = rule.hang or Hang()
        hang.reached.set()
        end = self._clock.monotonic() + rule.deadline
        while not self._clock.wait(hang.released, POLL if rule.key else rule.deadline):
            if self._clock.monotonic() >= end:
                raise exception.Timeout(f"{verb} hung for {rule.deadline:g} s", verb=verb)
            if rule.key is not None:
                self._read()
                if all(other.key != rule.key for other in self._from_file):
                    return

    # --- the file -----------------------------------------------------------------------------------------------

    def _read(self) -> None:
        assert self._path is not None
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            self._stamp, self._from_file = None, []
            return
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp == self._stamp:
            return
        try:
            with open(self._path, encoding="utf-8") as source:
                texts = json.load(source)
            rules = [self._parse(item) for item in texts]
        except (ValueError, TypeError) as error:
            raise exception.InvalidConfiguration(reason=f"{self._path} is no list of faults: {error}") from error
        spent = self._spent()
        for rule in rules:
            if rule.times is not None and rule.key is not None:
                rule.times -= spent[rule.key]
        self._stamp, self._from_file = stamp, rules

    @staticmethod
    def _parse(item: dict[str, Any]) -> Rule:
        rule = Rule(**item)
        rule.key = rule.id or json.dumps(item, sort_keys=True)
        return rule

    def _spent(self) -> collections.Counter[str]:
        try:
            with open(f"{self._path}.spent", encoding="utf-8") as source:
                return collections.Counter(json.loads(line) for line in source)
        except FileNotFoundError:
            return collections.Counter()

    def _spend(self, key: str) -> None:
        fd = os.open(f"{self._path}.spent", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, (json.dumps(key) + "\n").encode())
        finally:
            os.close(fd)


def _error(rule: Rule) -> BaseException:
    error = rule.error
    if isinstance(error, BaseException):
        return error
    if isinstance(error, type) and issubclass(error, BaseException):
        return error()
    made = exception.by_code(str(error or "volmgr.error"))
    return made(rule.message or "A fault was ordered here")


def _kill_self() -> None:
    LOG.warning("A fault was ordered: this process kills itself")
    os.kill(os.getpid(), signal.SIGKILL)

# SPDX-License-Identifier: Apache-2.0
"""Which kill points there must be, as the operations' own source says, to be held against those that were reached.

The source is read, not run: a step in a branch that no story enters is found all the same.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from volmgr import operations
from volmgr.operations import registry

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: what every operation passes; ``taken`` needs a death.
WHOLE = ("close", "closed", "taken")
#: operations that no client asks for.
OWN = ("discard", "receive_volume", "restore_storage", "wipe")
#: steps that only a driver with ``reverts_in_place`` has, which neither the simulator nor files are: their kills are in
#: tests/unit/operations/test_going_on.py.
IN_PLACE = (("revert_to_snapshot", "release"), ("revert_to_snapshot", "revert"))


@dataclass(frozen=True)
class StepSource:
    """A step as it is written.

    :param verb: None where a function makes it for several verbs.
    :param pattern: its name, ``*`` for what is filled in.
    """

    verb: str | None
    pattern: str
    undo: bool
    pivot: bool
    where: str

    @property
    def whens(self) -> tuple[str, ...]:
        """What happens at it."""
        more = (("undo", "undone") if self.undo else ()) + (("pivoted",) if self.pivot else ())
        return ("before", "after", *more)


def normal(point: str) -> str:
    """Return a point without the ids in it."""
    return _UUID.sub("*", point)


def source_steps() -> list[StepSource]:
    """Return every step that an operation of the product makes."""
    found: list[StepSource] = []
    for module in pkgutil.iter_modules(operations.__path__, f"{operations.__name__}."):
        tree = ast.parse(inspect.getsource(importlib.import_module(module.name)))
        for node in tree.body:
            verb = _verb(node) if isinstance(node, ast.ClassDef) else None
            found += [_step(call, verb, module.name) for call in _calls(node)]
    return found


def _verb(node: ast.ClassDef) -> str | None:
    for item in node.body:
        if (
            isinstance(item, ast.Assign)
            and isinstance(item.value, ast.Constant)
            and [target.id for target in item.targets if isinstance(target, ast.Name)] == ["verb"]
        ):
            return str(item.value.value)
    return None


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    for item in ast.walk(node):
        if isinstance(item, ast.Call) and isinstance(item.func, ast.Name) and item.func.id == "Step":
            yield item


def _step(call: ast.Call, verb: str | None, module: str) -> StepSource:
    name = call.args[0] if call.args else next(item.value for item in call.keywords if item.arg == "name")
    keywords = {item.arg for item in call.keywords}
    undo = "undo" in keywords or (len(call.args) > 2 and not _is_none(call.args[2]))
    return StepSource(verb, _pattern(name), undo, "pivot" in keywords, f"{module}:{call.lineno}")


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _pattern(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
    return "*"


def missing(reached: Iterable[str], verbs: Iterable[str] | None = None) -> list[str]:
    """Return what no run has reached, in words.

    :param reached: points without ids. :param verbs: all that are registered, by default.
    """
    points, written = set(reached), source_steps()  # reading the source registers every verb
    found = []
    known = tuple(verbs) if verbs is not None else registry.verbs()
    for verb in known:
        ends = WHOLE if verb in OWN else ("received", "admitted", *WHOLE)
        found += [f"{verb}/-/{when} was never reached" for when in ends if f"{verb}/-/{when}" not in points]
    for step in written:
        if (step.verb, step.pattern) in IN_PLACE:
            continue
        for when in step.whens:
            wanted = f"{step.verb or '*'}/{step.pattern}/{when}"
            if not any(fnmatchcase(point, wanted) for point in points):
                found.append(f"{wanted} ({step.where}) was never reached")
    # Whatever step was run must have had both its ends.
    steps = {tuple(point.split("/")[:2]) for point in points if "/-/" not in point}
    for verb, name in sorted(steps):
        found += [
            f"{verb}/{name}/{when} was never reached"
            for when in ("before", "after")
            if f"{verb}/{name}/{when}" not in points
        ]
    return found

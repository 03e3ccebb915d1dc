# SPDX-License-Identifier: Apache-2.0
"""Which promised names were reached, from what was recorded; those reached elsewhere are data, with the reasons."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.unit.surface import rows
from tests.unit.surface.test_drivers import CLASSES as BASES
from volmgr.drivers.file import FileDriver
from volmgr.drivers.interfaces import Interface
from volmgr.drivers.sim import SimDriver
from volmgr.testing import array
from volmgr.testing.recording import MANAGER, Entry

#: every class that a recorded object can have.
LOADED: dict[str, type] = {
    **BASES,
    **{
        cls.__name__: cls
        for cls in (
            FileDriver, SimDriver, array.ArrayDriver, array.IserArray, array.ProxiedArray, array.FibreChannelArray,
            array.PolledReplicaDriver,
        )
    },
}
#: reasons by name, and for each the rows ``CLASS.METHOD`` that it holds for; the lab's run reaches those of ``lvm``.
ELSEWHERE: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "elsewhere.json").read_text("utf-8"))
METHODS = {f"{row['class']}.{row['name']}": row for row in rows.of("driver method")}


def elsewhere() -> dict[str, str]:
    """Return the rows that the run without a kernel need not reach, each with its reason."""
    return {name: reason["why"] for reason in ELSEWHERE.values() for name in reason["rows"]}


def answered(verb: str, entered: Iterable[Entry]) -> bool:
    """Return whether the manager has answered a verb."""
    return any((item.definer, item.name) == (MANAGER, verb) for item in entered)


def reached(row: dict[str, Any], entered: Iterable[Entry]) -> bool:
    """Return whether a promised method of a class was entered.

    Where the class has a body that does something, that very body; else that of any driver that inherits the class.
    """
    cls, name = BASES[row["class"]], row["name"]
    definer = next(base for base in cls.__mro__ if name in vars(base))
    found = inspect.getattr_static(definer, name)
    empty = getattr(found, "__isabstractmethod__", False) or getattr(found, "_volmgr_marked_default", False)
    if empty or not issubclass(cls, Interface):
        heirs = {known for known, loaded in LOADED.items() if issubclass(loaded, cls)}
        return any(item.name == name and item.loaded in heirs for item in entered)
    return any((item.definer, item.name) == (definer.__name__, name) for item in entered)

# SPDX-License-Identifier: Apache-2.0
"""Writes the page of verbs: what can be asked of volmgr over RPC, and which driver can do what.

Both come from the code itself (the manager's methods, ``supports()`` and ``lacks`` of the drivers), so the page cannot
disagree with what the daemon does; a unit test compares them.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from volmgr import concurrency  # noqa: E402  (a checkout need not be installed)

concurrency.setup()

from volmgr.cli import verbs  # noqa: E402  (after the choice)
from volmgr.drivers.fake import FakeISCSIDriver  # noqa: E402
from volmgr.drivers.file import FileDriver  # noqa: E402
from volmgr.drivers.interfaces import VERBS  # noqa: E402
from volmgr.drivers.lvm import LVMVolumeDriver  # noqa: E402
from volmgr.drivers.options import Configuration  # noqa: E402
from volmgr.drivers.sim import SimDriver  # noqa: E402
from volmgr.drivers.storpool import StorPoolDriver  # noqa: E402
from volmgr.manager import VolumeManager  # noqa: E402
from volmgr.operations import registry  # noqa: E402
from volmgr.targets.lio import LioTarget  # noqa: E402
from volmgr.targets.tgt import TgtTarget  # noqa: E402
from volmgr.tools.lvm import VolumeGroup  # noqa: E402

PAGE = ROOT / "doc" / "source" / "verbs.rst"
WIDTH = 118
INTRODUCTION = """\
.. This page is made by tools/genverbs.py from the code; do not edit it.

=====
Verbs
=====

What can be asked of volmgr over RPC, and which driver can do what.

Requests
========

Ids are UUIDs that the caller chooses, arguments go by name and are JSON, ``context`` comes first. What is not in a list
of arguments is refused as ``Invalid`` and changes nothing. The Python client, :class:`volmgr.rpc.client.VolumeAPI`, has
a method of each name. A list takes ``filters``, ``marker`` (the id of the last item of the page before), ``limit``,
``sort_keys`` and ``sort_dirs``.
"""
KINDS = {
    "journalled": (
        "Changing verbs",
        "Each is an operation in the journal: it answers ``{operation_id, state}`` once its intent is stored, and goes "
        "on after a crash. ``wait_operation`` waits for its end.",
    ),
    "connects": (
        "Connections",
        "Level-triggered: rows change in one transaction, then the target is made to follow, then comes the answer. A "
        "repeat joins.",
    ),
    "answered": ("Answered at once", "They read SQL, change rows that no storage follows, or steer the journal."),
}
#: by column: the driver, set up so.
COLUMNS: dict[str, Any] = {
    "sim": SimDriver,
    "file, tgt": FileDriver,
    "file, LIO": FileDriver,
    "LVM thick": LVMVolumeDriver,
    "LVM thin": LVMVolumeDriver,
    "StorPool": StorPoolDriver,
    "fake": FakeISCSIDriver,
}


def exposed() -> list[str]:
    """Return the names of the verbs that can be called."""
    names = [name for name in dir(VolumeManager) if getattr(getattr(VolumeManager, name), "exposed", False)]
    return sorted(set(names) - {"ring"})


def kind_of(verb: str) -> str:
    """Return one of :data:`KINDS`."""
    method = getattr(VolumeManager, verb)
    if getattr(method, "journalled", False):
        return "journalled"
    return "connects" if method.level else "answered"


def signature(verb: str) -> str:
    """Return a verb with its arguments, as Python writes them; those of its operation are by keyword only."""
    given = list(inspect.signature(getattr(VolumeManager, verb)).parameters.values())[2:]
    told = [_shown(item.name, item.default) for item in given if item.kind is not item.VAR_KEYWORD]
    operation = registry.find(verb, 1)
    if operation is not None and any(item.kind is item.VAR_KEYWORD for item in given):
        known = {item.name for item in given}
        told.append("*")
        for field in dataclasses.fields(operation.args):
            if field.name not in known:
                empty = field.default is dataclasses.MISSING
                told.append(_shown(field.name, inspect.Parameter.empty if empty else field.default))
    return f"{verb}({', '.join(told)})"


def _shown(name: str, default: Any) -> str:
    return name if default is inspect.Parameter.empty else f"{name}={default!r}"


def requests() -> list[str]:
    """Return the page's part about RPC."""
    lines = []
    for kind, (title, text) in KINDS.items():
        lines += ["", title, "-" * len(title), "", *textwrap.wrap(text, WIDTH)]
        for verb in exposed():
            if kind_of(verb) != kind:
                continue
            summary = inspect.getdoc(getattr(VolumeManager, verb)) or ""
            commands = ", ".join(f"``{command}``" for command in verbs.COMMANDS.get(verb, ()))
            told = f"{' '.join(summary.split())} {f'Command: {commands}.' if commands else _without(verb)}"
            lines += ["", f"``{signature(verb)}``", *textwrap.wrap(told, WIDTH, initial_indent="    ",
                                                                  subsequent_indent="    ")]
    return lines


def _without(verb: str) -> str:
    reason = verbs.NO_COMMAND[verb]
    return f"No command: {reason}."


def drivers() -> dict[str, Any]:
    """Return a driver for each column, which touches nothing."""
    made = {}
    for name, cls in COLUMNS.items():
        options: dict[str, Any] = {}
        given: dict[str, Any] = {}
        if cls is LVMVolumeDriver:
            options["lvm_type"] = "thin" if name.endswith("thin") else "default"
            if name.endswith("thin"):
                options["replication_device"] = [{"volume_group": "volmgr-cellar"}]
            given["vg_obj"] = VolumeGroup("volmgr-volumes")
        if cls is FileDriver:
            target = TgtTarget if name.endswith("tgt") else LioTarget
            given["target"] = SimpleNamespace(can_hold="can_hold" in vars(target))
        made[name] = cls(configuration=Configuration(options), **given)
    return made


def matrix() -> list[str]:
    """Return the page's part about drivers."""
    made, notes = drivers(), dict[str, int]()
    rooms: dict[str, list[str]] = {}
    for verb, (mixin, _method) in VERBS.items():
        rooms.setdefault(mixin.__name__, []).append(verb)
    title = "Drivers"
    text = (
        "What a driver can do is which mixins it inherits and which of their methods it has. A request that needs what "
        "is not there is refused as ``Unsupported`` before anything changes. Some verbs that a driver has not are done "
        "by the manager instead: a migration by a copy, a revert by a clone that takes the volume's place."
    )
    lines = ["", title, "=" * len(title), "", *textwrap.wrap(text, WIDTH)]
    for room in sorted(rooms):
        rows = []
        for verb in sorted(rooms[room]):
            cells = []
            for driver in made.values():
                lack = driver.lacks.get(verb)
                mark = "yes" if driver.supports(verb) else "–"
                if mark == "yes" and lack is not None:
                    mark = f"no ({notes.setdefault(lack, len(notes) + 1)})"
                cells.append(mark)
            rows.append((f"``{verb}``", *cells))
        lines += ["", room, "-" * len(room), "", *table(("verb", *made), rows)]
    for note, number in notes.items():
        lines += ["", *textwrap.wrap(f"({number}) {note}.", WIDTH)]
    return lines


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Return a simple table of reStructuredText."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    rule = "  ".join("=" * width for width in widths)

    def line(row: tuple[str, ...]) -> str:
        return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()

    return [rule, line(head), rule, *map(line, rows), rule]


def page() -> str:
    """Return the whole page."""
    return "\n".join([INTRODUCTION.rstrip("\n"), *requests(), *matrix(), ""])


def main() -> int:
    """Write the page.

    :returns: the exit status.
    """
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())

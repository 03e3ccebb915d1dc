# SPDX-License-Identifier: Apache-2.0
"""Writes the page of state machines from volmgr.states: tables, and pictures drawn by Graphviz where it is installed.

The machines are the code's own, so the page cannot disagree with what the daemon does; a unit test compares them. This
script must not know what the states mean.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from volmgr import states  # noqa: E402  (a checkout need not be installed)

PAGE = ROOT / "doc" / "source" / "states.rst"
FOLDER = ROOT / "doc" / "source" / "states"
DEADLINE_SECONDS = 60
INTRODUCTION = """\
.. This page is made by tools/genstates.py from volmgr/states.py; do not edit it.

======
States
======

What states a resource can be in and which event leads from which to which. Nothing else in volmgr decides which status
allows which verb. A *transitional* state never stands without an unfinished operation: after a crash and a restart it
has been finished or undone.
"""


def stem(machine: states.Machine) -> str:
    """Return the name of a machine's picture, without its ending."""
    return machine.noun.replace(" ", "-")


def dot(machine: states.Machine) -> str:
    """Return ``machine`` in Graphviz's language: solid boxes stand for ever, dashed ones only during an operation."""
    lines = [f'digraph "{machine.noun}" {{', "  rankdir=LR;", '  node [shape=box, fontname="sans-serif"];']
    for state in machine.states:
        style = "rounded,dashed" if state in machine.transitional else "rounded"
        width = 2 if state == machine.start else 1
        lines.append(f'  "{state}" [style="{style}", penwidth={width}];')
    for source, event, target in sorted(machine.transitions):
        if source != target:
            lines.append(f'  "{source}" -> "{target}" [label="{event}", fontname="sans-serif", fontsize=10];')
    return "\n".join([*lines, "}", ""])


def draw(machine: states.Machine) -> bool:
    """Draw a machine's picture; returns whether Graphviz is installed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    argv = ["dot", "-Tsvg", "-o", str(FOLDER / f"{stem(machine)}.svg")]
    try:
        subprocess.run(argv, input=dot(machine), text=True, check=True, timeout=DEADLINE_SECONDS)
    except FileNotFoundError:
        return False
    return True


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a simple table of reStructuredText."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    rule = "  ".join("=" * width for width in widths)

    def line(row: Sequence[str]) -> str:
        return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()

    return [rule, line(head), rule, *map(line, rows), rule, ""]


def section(machine: states.Machine, picture: bool) -> list[str]:
    """Return the page's part about one machine."""
    title = machine.noun[0].upper() + machine.noun[1:]
    lines = ["", title, "-" * len(title), ""]
    if picture:
        lines += [f".. image:: states/{stem(machine)}.svg", f"   :alt: the states of a {machine.noun}", ""]
    rows = []
    for state, meaning in machine.states.items():
        kind = "transitional" if state in machine.transitional else "stable"
        rows.append((f"``{state}``", meaning, f"{kind}, first" if state == machine.start else kind))
    lines += table(("state", "meaning", "kind"), rows)
    by_event: dict[str, dict[str, list[str]]] = {}
    for source, event, target in machine.transitions:
        by_event.setdefault(event, {}).setdefault(target, []).append(source)
    rows = [
        (f"``{event}``", ", ".join(sorted(sources)), target)
        for event, targets in by_event.items()
        for target, sources in targets.items()
    ]
    return lines + table(("event", "from", "to"), rows)


def page(pictures: bool) -> str:
    """Return the whole page."""
    lines = [INTRODUCTION]
    for machine in states.MACHINES:
        lines += section(machine, pictures)
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> int:
    """Write the page and its pictures.

    :returns: the exit status.
    """
    drawn = all([draw(machine) for machine in states.MACHINES])
    if not drawn:
        print("genstates: graphviz is missing (Debian: graphviz); the pictures stay as they are", file=sys.stderr)
    pictures = all((FOLDER / f"{stem(machine)}.svg").exists() for machine in states.MACHINES)
    PAGE.write_text(page(pictures), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())

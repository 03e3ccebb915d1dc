# SPDX-License-Identifier: Apache-2.0
"""Draws the state machines of volmgr.states as SVG pictures; it must not know what the states mean.

The machines are the code's own, so a picture cannot disagree with what the daemon does. Graphviz does the drawing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from volmgr import states  # noqa: E402  (a checkout need not be installed)

FOLDER = ROOT / "doc" / "source" / "states"
DEADLINE_SECONDS = 60


def dot(machine: states.Machine) -> str:
    """Return ``machine`` in Graphviz's language: solid boxes stand for ever, dashed ones only during an operation."""
    lines = [f'digraph "{machine.noun}" {{', "  rankdir=LR;", '  node [shape=box, fontname="sans-serif"];']
    for state in machine.states:
        style = "rounded,dashed" if state in machine.transitional else "rounded"
        width = 2 if state == machine.start else 1
        lines.append(f'  "{state}" [style="{style}", penwidth={width}];')
    for source, event, target in sorted(machine.transitions):
        lines.append(f'  "{source}" -> "{target}" [label="{event}", fontname="sans-serif", fontsize=10];')
    return "\n".join([*lines, "}", ""])


def main() -> int:
    """Write one picture per machine.

    :returns: the exit status.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    for machine in states.MACHINES:
        picture = FOLDER / f"{machine.noun}.svg"
        try:
            argv = ["dot", "-Tsvg", "-o", str(picture)]
            subprocess.run(argv, input=dot(machine), text=True, check=True, timeout=DEADLINE_SECONDS)
        except FileNotFoundError:
            print("genstates: graphviz is missing (Debian: graphviz)", file=sys.stderr)
            return 1
        print(picture.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())

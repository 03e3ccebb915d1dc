# SPDX-License-Identifier: Apache-2.0
"""The rights that a unit file gives, and a command line that has exactly these: for tests of what the daemon needs.

systemd itself does not run everywhere; setpriv(1) asks the kernel for the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

UNITS = Path(__file__).parents[2] / "etc" / "systemd"
UNIT = UNITS / "volmgr-volume.service"


def settings(*files: Path) -> dict[str, list[str]]:
    """Return the settings of a unit by name, each with its values in their order; an empty one forgets those before.

    :param files: the unit and its drop-ins.
    """
    found: dict[str, list[str]] = {}
    for file in files:
        for line in file.read_text().splitlines():
            name, separator, value = line.partition("=")
            if not separator or line.startswith(("#", ";")):
                continue
            if not value:
                found[name] = []
            else:
                found.setdefault(name, []).append(value)
    return found


def capabilities(name: str, *files: Path) -> list[str]:
    """Return the capabilities of a setting of a unit, as capabilities(7) spells them.

    :param name: CapabilityBoundingSet or AmbientCapabilities.
    """
    return sorted(word for value in settings(*files).get(name, ()) for word in value.split())


def setpriv(files: Sequence[Path], uid: int | None = None) -> list[str]:
    """Return the beginning of a command line that gives a program a unit's rights and no others.

    :param uid: the user to be, whose group has the same number; None stays root, with the bounding set's rights.
    """
    bound = capabilities("CapabilityBoundingSet", *files)
    words = ["setpriv", "--no-new-privs", f"--bounding-set={_listed(bound)}"]
    if uid is not None:
        ambient = capabilities("AmbientCapabilities", *files)
        words += [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        words += [f"--inh-caps={_listed(ambient)}", f"--ambient-caps={_listed(ambient)}"]
    return [*words, "--"]


def _listed(names: Sequence[str]) -> str:
    return ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in names)])


def of_process(pid: int) -> dict[str, int]:
    """Return the capability sets of a process by name (``CapEff``, ``CapBnd``…), as bits."""
    pairs = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(value, 16) for name, _, value in pairs if name.startswith("Cap")}

# SPDX-License-Identifier: Apache-2.0
"""The test tiers as data, in the order in which they run; this module runs nothing.

A new folder of tests gets its tier here and nowhere else.
"""

from __future__ import annotations

import glob
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

_SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


@dataclass(frozen=True)
class Need:
    """Something that a whole tier cannot do without.

    :param program: a name to find on the path, or a pattern of absolute paths.
    :param package: the Debian package that has it.
    """

    program: str
    package: str

    def missing(self) -> str | None:
        """Return what to say when it is not there, else None."""
        if os.path.isabs(self.program):
            found = bool(glob.glob(self.program))
        else:
            found = shutil.which(self.program, path=_SYSTEM_PATH) is not None
        return None if found else f"{self.program} is missing: install {self.package}"


@dataclass(frozen=True)
class Tier:
    """One run of a tool or of pytest.

    :param name: what ``--tier`` takes.
    :param folder: the folder of tests, relative to the checkout; empty for a tool.
    :param command: for a tool, the module and its arguments (``python -m …``).
    :param options: further arguments of pytest.
    :param env: environment of the run.
    :param needs: what must be there.
    :param guest: pytest runs in a guest with a kernel of its own, which this module starts.
    :param memory: of that guest, in MiB; 0 for as much as the module gives it.
    :param matrix: its tests are told by driver and target at the end of the whole run.
    :param row: those of one row run one after the other, the rows at the same time: no tier fills two processors by
        itself, and the first row waits often.
    :param quick: part of ``--quick``.
    :param optional: no error while the folder is not there.
    :param on_request: runs only when it is named.
    :param minutes: deadline of the whole run.
    """

    name: str
    folder: str = ""
    command: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()
    guest: str = ""
    memory: int = 0
    matrix: bool = False
    row: int = 0
    quick: bool = False
    optional: bool = False
    on_request: bool = False
    minutes: float = 30

    def absent(self, root: Path) -> str | None:
        """Return why the tier cannot run at all here, else None."""
        if self.folder and not (root / self.folder).is_dir():
            return f"there is no folder {self.folder}"
        reasons = [reason for need in self.needs if (reason := need.missing())]
        return "; ".join(reasons) or None


EVENTLET = {"VOLMGR_CONCURRENCY": "eventlet"}
THREADING = {"VOLMGR_CONCURRENCY": "threading"}
POSTGRESQL = Need("/usr/lib/postgresql/*/bin/postgres", "postgresql")
MARIADB = Need("mariadbd", "mariadb-server")
UML = Need("linux.uml", "user-mode-linux")
LAB = "volmgr.testing.lab"
QEMU = Need("qemu-system-x86_64", "qemu-system-x86")
FABRIC = "volmgr.testing.fabric"
DATABASE = ("-m", "database")
BRIEF = ("-m", "not extended")
#: what runs over every kind of LVM volume, at length, and has a tier of its own.
CONFORMANCE = "tests/lab/inside/conformance"
WITHOUT_IT = ("--ignore", CONFORMANCE)
AGAIN = ("-m", "not once")


def _on(database: str) -> dict[str, str]:
    return {**EVENTLET, "VOLMGR_TEST_DATABASE": database}


TIERS = (
    Tier("ruff", command=("ruff", "check", "."), quick=True, minutes=5),
    Tier("mypy", command=("mypy",), quick=True, minutes=15),
    Tier("unit", "tests/unit", env=EVENTLET, quick=True),
    Tier("conformance", "tests/conformance", env=EVENTLET, quick=True),
    Tier("functional", "tests/functional", env=EVENTLET, minutes=45),
    Tier("unit-threading", "tests/unit", options=AGAIN, env=THREADING, row=2),
    Tier("conformance-threading", "tests/conformance", options=AGAIN, env=THREADING, row=2),
    Tier("functional-threading", "tests/functional", options=AGAIN, env=THREADING, minutes=45),
    Tier("postgresql", "tests", options=DATABASE, env=_on("postgresql"), needs=(POSTGRESQL,), row=1),
    Tier("mariadb", "tests", options=DATABASE, env=_on("mariadb"), needs=(MARIADB,), row=1),
    Tier("lab-harness", "tests/lab", env=EVENTLET, needs=(UML,), row=1),
    Tier(
        "lab", "tests/lab/inside", options=(*BRIEF, *WITHOUT_IT, "--durations=25"), env=EVENTLET, needs=(UML,),
        guest=LAB, row=1, minutes=60,
    ),
    Tier(
        "lab-conformance", CONFORMANCE, env=EVENTLET, needs=(UML,), guest=LAB, memory=2048, minutes=180,
        on_request=True, matrix=True,
    ),
    Tier(
        "lab-extended", "tests/lab/inside", options=("-m", "extended", *WITHOUT_IT), env=EVENTLET, needs=(UML,),
        guest=LAB, minutes=90, on_request=True,
    ),
    Tier(
        "fabric", "tests/fabric/inside", options=BRIEF, env=EVENTLET, needs=(QEMU,), guest=FABRIC, row=2, minutes=60,
    ),
    Tier(
        "fabric-extended", "tests/fabric/inside", options=("-m", "extended"), env=EVENTLET, needs=(QEMU,),
        guest=FABRIC, minutes=60, on_request=True,
    ),
    Tier("simulation", "tests/simulation", env=THREADING, row=2, optional=True, minutes=45),
    Tier("chaos", "tests/chaos", options=BRIEF, env=EVENTLET, optional=True, minutes=45),
)

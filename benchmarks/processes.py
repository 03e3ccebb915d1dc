# SPDX-License-Identifier: Apache-2.0
"""Counts the processes that a daemon starts, as its own interpreter tells of them; nobody else's count."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Programs:
    """The names of what was started, in order; complete after the block."""

    names: list[str] = field(default_factory=list)


class Counter:
    """Counts what a process starts that has :attr:`environment`.

    :param folder: where its file is made.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "programs"
        self._file.touch()
        hook = str(Path(__file__).with_name("hook"))
        self.environment = {"PYTHONPATH": hook, "VOLMGR_BENCH_PROGRAMS": str(self._file)}

    @contextlib.contextmanager
    def counted(self) -> Iterator[Programs]:
        """Count while the block runs."""
        before = len(self._file.read_text(encoding="utf-8").splitlines())
        found = Programs()
        yield found
        found.names += self._file.read_text(encoding="utf-8").splitlines()[before:]

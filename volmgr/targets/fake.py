# SPDX-License-Identifier: Apache-2.0
"""A target that serves nobody: it keeps its exports in memory and records what it was asked.

For the sim driver, for the fake drivers of the tree, and for whoever wants to see what volmgr would tell a target. It
follows the contract of :mod:`volmgr.targets.base` to the letter and touches nothing outside itself.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from volmgr import exception
from volmgr.targets import iscsi_data
from volmgr.targets.base import Target, TargetConfig
from volmgr.types import ExportSpec, Grant, Json, ObservedExport


class FakeTarget(Target):
    """In memory.

    :ivar exports: what is exported now, by target name.
    :ivar calls: (method, target name or empty) of everything that was asked, oldest first.
    :ivar failure: if set, every call that would reach a real target raises it.
    """

    protocol: ClassVar[str] = "iscsi"
    grows_in_use: ClassVar[bool] = True
    #: it serves nobody, so each worker can have one of its own.
    clustered: ClassVar[bool] = True

    def __init__(self, config: TargetConfig) -> None:
        super().__init__(config)
        self.exports: dict[str, ExportSpec] = {}
        self.calls: list[tuple[str, str]] = []
        self.failure: Exception | None = None
        self._running = False
        self._lock = threading.Lock()

    def _asked(self, method: str, name: str = "") -> None:
        self.calls.append((method, name))
        if self.failure is not None:
            raise self.failure
        if method != "start" and not self._running:
            raise exception.BackendDown("The fake target is not started", hint="Call start() first")

    def start(self) -> None:
        """Begin to answer."""
        with self._lock:
            self._asked("start")
            self._running = True

    def stop(self, *, and_exports: bool = False) -> None:
        """Answer no more; exports stay, as those of a real target do, unless they are to go."""
        with self._lock:
            self.calls.append(("stop", ""))
            self._running = False
            if and_exports:
                self.exports.clear()

    def check(self) -> None:
        """Return if it was started and no failure is set."""
        with self._lock:
            self._asked("check")

    @property
    def can_hold(self) -> bool:
        return True

    @contextlib.contextmanager
    def hold(self, seconds: float) -> Iterator[None]:
        """Do nothing: nobody is served."""
        yield

    def validate_connector(self, connector: dict[str, Any]) -> None:
        """Check that the connector has an initiator name, as any iSCSI target needs."""
        iscsi_data.validate_connector(connector)

    def sync(self, spec: ExportSpec) -> bool:
        """Keep ``spec``, or forget it where none is wanted."""
        with self._lock:
            self._asked("sync", spec.target_name)
            before = self.exports.pop(spec.target_name, None)
            if not spec.wanted:
                return before is not None
            self.exports[spec.target_name] = spec
            return before != spec

    def connection(self, spec: ExportSpec, grant: Grant) -> dict[str, Json]:
        """Return what an iSCSI target would."""
        return iscsi_data.connection(self.config.portals, spec, grant, spec.target_name)

    def observe(self) -> Sequence[ObservedExport]:
        """Return the exports in memory; nobody is ever logged in."""
        with self._lock:
            self._asked("observe")
            return [
                ObservedExport(
                    target_name=spec.target_name,
                    paths=(spec.path,),
                    serials=(spec.serial,),
                    initiators=tuple(sorted(peer for grant in spec.grants for peer in self._peers(grant))),
                )
                for spec in self.exports.values()
            ]

    def _peers(self, grant: Grant) -> tuple[str, ...]:
        """Return the names by which this kind of target knows who is let in."""
        return (grant.initiator,) if grant.initiator else ()

    def wipe(self) -> None:
        """Lose everything, as a reboot makes a real target do."""
        with self._lock:
            self.exports.clear()

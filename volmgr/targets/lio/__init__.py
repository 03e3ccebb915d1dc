# SPDX-License-Identifier: Apache-2.0
"""iSCSI exports by LIO, the kernel's own SCSI target: block devices and files, growing in use.

Each export is one LIO target with one portal group, one LUN and an entry for each initiator. A sync reads what is there
under the export's own name, plans, and writes to configfs from this process; nothing else is listed, so its cost does
not grow with the number of exports. No configuration is saved: what should be there is known elsewhere and told again.
It knows nothing of drivers, databases or RPC.

Option (``TargetConfig.options``): ``lio_configfs``, the target core's folder in configfs.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, ClassVar

from volmgr import concurrency, exception
from volmgr.privileged import modules
from volmgr.targets import iscsi_data
from volmgr.targets.base import Target, TargetConfig
from volmgr.targets.lio import iscsi
from volmgr.targets.lio.configfs import ROOT, Configfs, apply
from volmgr.targets.lio.tree import Make, Offer, Step, plan
from volmgr.types import ExportSpec, Grant, Json, ObservedExport

LOG = logging.getLogger(__name__)

MODULES = ("target_core_mod", "target_core_iblock", "target_core_file", "iscsi_target_mod")
#: What the kernel answers when somebody else changed the same folders since they were read.
_STALE = (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY)
_TRIES = 3


class LioTarget(Target):
    """The exports of one backend on this host's LIO. One instance serves all threads."""

    protocol: ClassVar[str] = "iscsi"
    grows_in_use: ClassVar[bool] = True
    serves_files: ClassVar[bool] = True
    #: whether initiators come by RDMA.
    is_rdma: ClassVar[bool] = False

    def __init__(self, config: TargetConfig) -> None:
        super().__init__(config)
        self.tree = Configfs(str(config.options.get("lio_configfs", ROOT)))
        self._locks: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()
        self._guard = threading.Lock()

    # --- the kernel's part

    def start(self) -> None:
        """Load the modules that are missing and make sure that configfs is there.

        :raises BackendDown: it cannot be had; the hint names the command.
        """
        with self._told("start"):
            modules.ensure(MODULES, timeout=self.config.timeout)
            self._check_root()
            apply(self.tree, Make("iscsi", shared=True))

    def stop(self, *, and_exports: bool = False) -> None:
        """Let go; with ``and_exports`` end our exports. LIO itself is the kernel's and stays."""
        if and_exports:
            with self._told("list the targets"):
                present = iscsi.our_names(self.tree, self.config.prefix)
            for name in present:
                self._sync(name, None)

    def check(self) -> None:
        """Return if LIO's configfs is there.

        :raises BackendDown: it is not.
        """
        self._check_root()

    def _check_root(self) -> None:
        if os.path.isdir(f"{self.tree.root}/core"):
            return
        raise exception.BackendDown(
            f"LIO is not there: {self.tree.root} is missing",
            hint="Run as root: modprobe target_core_mod && mount -t configfs configfs /sys/kernel/config",
        )

    # --- exports

    def validate_connector(self, connector: dict[str, Any]) -> None:
        """Check that the connector names its initiator."""
        iscsi.check_initiator(connector.get("initiator"))

    def sync(self, spec: ExportSpec) -> bool:
        """Make the export exactly what ``spec`` says; see :meth:`volmgr.targets.base.Target.sync`.

        :raises Invalid: something in ``spec`` cannot be told to LIO; nothing was changed.
        :raises NotFound: the storage is not there; nothing was changed.
        :raises Busy: the storage, or something of the export, is used by somebody else.
        """
        if not iscsi.is_ours(self.config.prefix, spec.target_name):
            raise exception.Invalid(f"{spec.target_name} is not a target of {self.config.prefix}", field="target_name")
        wanted = iscsi.wanted(spec, self.config.portals, rdma=self.is_rdma) if spec.wanted else None
        return self._sync(spec.target_name, wanted)

    def _sync(self, name: str, wanted: Any) -> bool:
        lock = self._lock_of(name)
        if not lock.acquire(timeout=self.config.timeout):
            raise exception.Timeout(f"The export {name} was busy for {self.config.timeout:g} s", target=name)
        try:
            self._check_root()
            steps = self._plan(name, wanted)
        except BaseException:
            lock.release()
            raise
        if not steps:
            lock.release()
            return False
        # Who ends a session waits in the kernel for its commands, and those for the storage. If that hangs, the export
        # stays locked until it goes on, and the caller is told.
        outcome: Future[bool] = Future()
        worker = threading.Thread(target=self._make_so, args=(outcome, lock, name, wanted, steps), daemon=True)
        worker.start()
        try:
            return outcome.result(self.config.timeout)
        except FutureTimeout:
            raise exception.Timeout(
                f"LIO did not finish the export {name} within {self.config.timeout:g} s",
                hint="Its storage may not answer: see the kernel's log, dmesg",
                target=name,
            ) from None

    def _lock_of(self, name: str) -> threading.Lock:
        with self._guard:
            lock = self._locks.get(name)
            if lock is None:
                self._locks[name] = lock = threading.Lock()
            return lock

    def _plan(self, name: str, wanted: Any) -> list[Step]:
        with self._told(f"read {name}"):
            return plan(wanted, iscsi.read(self.tree, name))

    def _make_so(
        self, outcome: Future[bool], lock: threading.Lock, name: str, wanted: Any, steps: Sequence[Step]
    ) -> None:
        """Do the steps, planning again when somebody else came between; at the end give the lock back."""
        error: BaseException | None = None
        try:
            for _ in range(_TRIES):
                stale = concurrency.offload(self._run, steps)
                if stale is None:
                    break
                LOG.warning("The export %s was changed by somebody else meanwhile: %s", name, stale)
                steps = self._plan(name, wanted)
            else:
                raise exception.Busy(f"Somebody else keeps changing the export {name} in LIO", target=name) from stale
        except BaseException as caught:
            error = caught
        lock.release()
        if error is None:
            outcome.set_result(True)
        else:
            outcome.set_exception(error)

    def _run(self, steps: Sequence[Step]) -> OSError | None:
        """Do the steps in their order; returns the error that says that they are no longer the right ones."""
        for step in steps:
            try:
                apply(self.tree, step)
            except OSError as error:
                if error.errno in _STALE and os.path.isdir(f"{self.tree.root}/core"):
                    return error
                raise self._refused(step, error) from error
        return None

    def _refused(self, step: Step, error: OSError) -> exception.VolmgrError:
        """Return what to raise for a step that the kernel refused."""
        return _refused(step, error)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn what the kernel refuses into an error of ours."""
        try:
            yield
        except OSError as error:
            raise exception.BackendDown(f"LIO: cannot {what}: {error.strerror}", hint=_hint(error)) from error

    def connection(self, spec: ExportSpec, grant: Grant) -> dict[str, Json]:
        """Return the connection's data."""
        return iscsi_data.connection(self.config.portals, spec, grant, spec.target_name)

    def observe(self) -> Sequence[ObservedExport]:
        """Return our exports, and what a lost one left behind, by one walk."""
        with self._told("list the targets"):
            self._check_root()
            names = iscsi.our_names(self.tree, self.config.prefix)
            return [iscsi.observed(iscsi.read(self.tree, name)) for name in names]


def _refused(step: Step, error: OSError) -> exception.VolmgrError:
    """Return what to raise for a step that the kernel refused; no value that was written is in it."""
    path = step.backstore if isinstance(step, Offer) else step.path
    said = f"LIO refused {type(step).__name__.lower()} {path}: {error.strerror}"
    if isinstance(step, Make) and "/np/" in path:
        return exception.BackendDown(
            f"LIO cannot listen on {path.rpartition('/')[2]}: {error.strerror}",
            hint="Check target_ip_address and target_port, and what else listens there",
        )
    if error.errno == errno.EBUSY:
        return exception.Busy(said, hint="Something else uses the storage or the LUN: see lsblk, and targetcli ls")
    return exception.BackendDown(said, hint=_hint(error))


def _hint(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "LIO needs root, and a configfs that can be written"
    return "See the kernel's log: dmesg"

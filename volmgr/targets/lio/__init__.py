# SPDX-License-Identifier: Apache-2.0
"""iSCSI exports by LIO, the kernel's own SCSI target: block devices and files, growing in use.

Each export is one LIO target with one portal group, one LUN and an entry for each initiator. A sync reads what is there
under the export's own name, plans, and writes to configfs from this process; nothing else is listed, so its cost does
not grow with the number of exports. Where it only takes everybody away from what this life has made it reads no more
than their entries, as to read is the most of what that costs. No configuration is saved: what should be there is known
elsewhere and told again.
It knows nothing of drivers, databases or RPC.

Option (``TargetConfig.options``): ``lio_configfs``, the target core's folder in configfs.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

from volmgr import concurrency, exception
from volmgr.privileged import modules
from volmgr.targets import iscsi_data
from volmgr.targets.base import Target, TargetConfig
from volmgr.targets.lio import iscsi
from volmgr.targets.lio.configfs import ROOT, Configfs, apply
from volmgr.targets.lio.tree import Make, Offer, Step, plan, takes_everybody_away
from volmgr.types import ExportSpec, Grant, Json, ObservedExport

LOG = logging.getLogger(__name__)

MODULES = ("target_core_mod", "target_core_iblock", "target_core_file", "iscsi_target_mod")
#: What the kernel answers when somebody else changed the same folders since they were read.
_STALE = (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY)
_TRIES = 3
#: The lock of whoever looks at all exports; no target has this name.
_WHOLE = "LIO"
_HANGING = "The storage behind it may not answer: see dmesg; ps axo pid,stat,wchan,cmd; dmsetup info -c"
_PAUSE = 0.05
R = TypeVar("R")


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
        #: what this life has made, by name; touched only by who holds the name's lock.
        self._made: dict[str, Any] = {}
        #: calls that were given up and have not ended, by what they hold.
        self._hanging: dict[str, concurrency.Call[Any]] = {}

    # --- the kernel's part

    def start(self) -> None:
        """Load the modules that are missing and make sure that configfs is there.

        :raises BackendDown: it cannot be had; the hint names the command.
        """
        modules.ensure(MODULES, timeout=self.config.timeout)
        self._bounded(_WHOLE, "start", self._make_root)

    def _make_root(self) -> None:
        with self._told("start"):
            self._check_root()
            apply(self.tree, Make("iscsi", shared=True))

    def stop(self, *, and_exports: bool = False) -> None:
        """Let go; with ``and_exports`` end our exports. LIO itself is the kernel's and stays."""
        if and_exports:
            for name in self._bounded(_WHOLE, "list the targets", self._names):
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
        for _ in range(_TRIES):
            changed, stale = self._bounded(name, f"finish the export {name}", lambda: self._attempt(name, wanted))
            if stale is None:
                return changed
            LOG.warning("The export %s was changed by somebody else meanwhile: %s", name, stale)
        raise exception.Busy(f"Somebody else keeps changing the export {name} in LIO", target=name) from stale

    def _bounded(self, name: str, what: str, work: Callable[[], R]) -> R:
        """Do something with the kernel's tree within the time that a request may take.

        Who ends a session waits in the kernel for its commands, and those for the storage; who then looks into the same
        folder waits for him. If that hangs the caller is told, and ``name`` stays taken until the kernel goes on.

        :param name: what nobody else touches meanwhile. :param what: for the error.
        :raises Timeout: it took longer, or an earlier call for ``name`` still hangs.
        """
        deadline = time.monotonic() + self.config.timeout
        with self._lock_of(name):
            while (hanging := self._hanging.get(name)) is not None and not hanging.done:
                if time.monotonic() > deadline:
                    raise exception.Timeout(
                        f"{name} was busy for {self.config.timeout:g} s", hint=_HANGING, target=name
                    )
                time.sleep(_PAUSE)
            self._hanging.pop(name, None)
            call = concurrency.Call(work)
            try:
                return call.result(self.config.timeout)
            except TimeoutError:
                self._hanging[name] = call
                raise exception.Timeout(
                    f"LIO did not {what} within {self.config.timeout:g} s", hint=_HANGING, target=name
                ) from None

    def _lock_of(self, name: str) -> threading.Lock:
        with self._guard:
            lock = self._locks.get(name)
            if lock is None:
                self._locks[name] = lock = threading.Lock()
            return lock

    def _attempt(self, name: str, wanted: Any) -> tuple[bool, OSError | None]:
        """Read, plan, do; returns whether there was anything to do, and what says that the plan was outdated."""
        self._check_root()
        steps = self._plan(name, wanted)
        # Until all of it is done nobody knows what is there.
        self._made.pop(name, None)
        stale = self._run(steps)
        if stale is None and wanted is not None:
            self._made[name] = wanted
        return bool(steps), stale

    def _plan(self, name: str, wanted: Any) -> list[Step]:
        """Read what is there and return what is to be done."""
        made, have = self._made.get(name), None
        with self._told(f"read {name}"):
            if wanted is not None and made is not None and takes_everybody_away(wanted, made):
                have = iscsi.read_doomed(self.tree, made)
            return plan(wanted, have or iscsi.read(self.tree, name))

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
        """Return our exports, and what a lost one left behind, by one walk.

        :raises Timeout: one of them cannot be looked at, as the storage behind it hangs; the others are not guessed.
        """
        return self._bounded(_WHOLE, "list the exports", self._observe)

    def _names(self) -> list[str]:
        with self._told("list the targets"):
            self._check_root()
            return iscsi.our_names(self.tree, self.config.prefix)

    def _observe(self) -> list[ObservedExport]:
        found = self._names()
        with self._told("list the targets"):
            return [iscsi.observed(iscsi.read(self.tree, name, sessions=True)) for name in found]

    def present(self) -> frozenset[str]:
        """Return the names of our targets by one listing; a lost one's storage object alone does not count."""
        with self._told("list the targets"):
            self._check_root()
            return frozenset(name for name in self.tree.folders("iscsi") if iscsi.is_ours(self.config.prefix, name))


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

# SPDX-License-Identifier: Apache-2.0
"""Exports over iSCSI by tgtd, the SCSI target that runs as an ordinary process: over files as well as block devices.

Each export is one tgtd target with one LUN, one CHAP account and an access list of initiator names. tgtd can make a LUN
read-only, not an initiator, so read-only grants are served by a twin target over the same storage. Nothing is visible
before it is complete: tgtd refuses everybody while the access list is empty, and the list is written last. It knows
nothing of drivers, databases or RPC.

Options (``TargetConfig.options``): ``tgt_socket``, the control socket of a tgtd that somebody else runs, in place of a
private one; ``tgt_threads``, I/O threads for each LUN of the private one, 1 by default.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from volmgr import exception, names
from volmgr.targets import iscsi_data
from volmgr.targets.base import Target, TargetConfig
from volmgr.targets.tgt_make import Maker, Wanted
from volmgr.targets.tgt_state import Known
from volmgr.tools import tgt
from volmgr.tools.tgt import errors
from volmgr.tools.tgtd import Identity, Tgtd
from volmgr.types import ExportSpec, Grant, Json, ObservedExport

LOG = logging.getLogger(__name__)

_LOCKS = 64
_SERIAL_MAX = 36


class TgtTarget(Target):
    """The exports of one backend on one tgtd.

    What it was last told of each export it remembers, so that a tgtd that died is started again and filled without
    anybody asking. ``grows_in_use`` is False: tgtd reads the size of a LUN only when it opens it, and every known
    way to open it again can show an attached initiator an error that it does not retry.
    """

    protocol: ClassVar[str] = "iscsi"
    grows_in_use: ClassVar[bool] = False
    serves_files: ClassVar[bool] = True

    def __init__(self, config: TargetConfig) -> None:
        super().__init__(config)
        socket = config.options.get("tgt_socket")
        self._daemon: Tgtd | None = None
        if socket:
            self.client = tgt.TgtClient(str(socket), config.timeout)
        else:
            threads = int(config.options.get("tgt_threads", 1))
            self._daemon = Tgtd(config.state_path, config.portals, timeout=config.timeout, threads=threads)
            self.client = self._daemon.client
        self.known = Known(self.client)
        self._maker = Maker(self.client, self.known)
        self._specs: dict[str, ExportSpec] = {}
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._filled: object = None
        self._filling = threading.Lock()
        self._random = random.SystemRandom()

    # --- the daemon

    def start(self) -> None:
        """Start or adopt the private tgtd, or check the shared one and add our portals to it; then fill it.

        :raises BackendDown: it cannot be had; the hint names the package or option.
        """
        if self._daemon is not None:
            self._daemon.start()
        else:
            present = self.client.portals()
            for portal in self.config.portals:
                if str(portal) not in present and f"0.0.0.0:{portal.port}" not in present:
                    self.client.new_portal(str(portal))
        self._refill(self._life())

    def stop(self, *, and_exports: bool = False) -> None:
        """Let go; with ``and_exports`` end our exports, and the tgtd if it is a private one."""
        if not and_exports:
            return
        self._specs.clear()
        if self._daemon is not None:
            self._daemon.stop()
            return
        for target in self.known.read():
            if target.name.startswith(self.config.prefix):
                self._maker.remove(target.name)

    def check(self) -> None:
        """Return if tgtd answers now; a private one that died is started again and filled first.

        :raises BackendDown: it does not answer, or could not be started.
        """
        try:
            self.client.portals()
        except errors.TgtDown:
            self._revive()
        self._refill(self._life())

    def _revive(self) -> None:
        """Start a private tgtd that went away.

        :raises TgtDown: it is a shared one, which is not ours to start.
        """
        if self._daemon is None:
            self.client.portals()
        else:
            LOG.warning("tgtd does not answer any more, it is started again")
            self._daemon.start()

    def _life(self) -> Identity | int:
        """Return what tells this life of tgtd from any other, starting a private one that is dead."""
        if self._daemon is None:
            return self.client.pid()
        try:
            return self._daemon.identity()
        except errors.TgtDown:
            self._revive()
            return self._daemon.identity()

    def _refill(self, life: object) -> None:
        """Make all remembered exports again if this is another life of tgtd; one caller does, the others go on."""
        self.known.of(life)
        with self._filling:
            if self._filled == life:
                return
            self._filled = life
        for name in list(self._specs):
            with self._lock(name):
                spec = self._specs.get(name)
                if spec is None:
                    continue
                try:
                    self._make(spec)
                except exception.VolmgrError as error:
                    LOG.error("The export %s could not be made again: %s", name, error)

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        lock = self._locks[hash(name) % _LOCKS]
        if not lock.acquire(timeout=self.config.timeout):
            raise exception.Timeout(f"The export {name} was busy for {self.config.timeout:g} s", target=name)
        try:
            yield
        finally:
            lock.release()

    # --- a moment

    @property
    def can_hold(self) -> bool:
        """A private tgtd can be held; a shared one serves others, too."""
        return self._daemon is not None

    @contextlib.contextmanager
    def hold(self, seconds: float) -> Iterator[None]:
        """Stop our tgtd for the length of a block, as :meth:`Target.hold` says."""
        if self._daemon is None:
            raise exception.Unsupported(verb="hold", hint="A tgtd that others use is not stopped: unset tgt_socket")
        self._life()
        with self._daemon.held(seconds):
            yield

    # --- exports

    def validate_connector(self, connector: dict[str, Any]) -> None:
        """Check that the connector names its initiator."""
        iscsi_data.validate_connector(connector)

    def sync(self, spec: ExportSpec) -> bool:
        """Make the export exactly what ``spec`` says; see :meth:`volmgr.targets.base.Target.sync`.

        :raises Conflict: the export's CHAP account is another target's.
        :raises Invalid: something in ``spec`` cannot be told to tgtd; nothing was changed.
        """
        if not spec.target_name.startswith(self.config.prefix):
            raise exception.Invalid(f"{spec.target_name} is not a target of {self.config.prefix}", field="target_name")
        _plan(spec)
        self._refill(self._life())
        with self._lock(spec.target_name):
            if spec.wanted:
                self._specs[spec.target_name] = spec
            else:
                self._specs.pop(spec.target_name, None)
            changed = self._again(lambda: self._make(spec))
        if self.known.life != self._filled:
            self._refill(self.known.life)
        return changed

    def _again(self, work: Callable[[], bool]) -> bool:
        """Do the work; if tgtd says that something is not as noted, read its listing and do it once more."""
        try:
            return work()
        except errors.TgtNumberedError as error:
            LOG.warning("tgtd differs from what was noted, its listing is read: %s", error)
        except errors.TgtDown:
            self._revive()
        self.known.forget()
        self.known.of(self._life())
        try:
            return work()
        except errors.TgtError:
            self.known.forget()
            raise

    def _make(self, spec: ExportSpec) -> bool:
        main, twin = _plan(spec)
        try:
            changed = False
            for name, wanted in ((spec.target_name, main), (_twin(spec.target_name), twin)):
                if wanted is None:
                    changed |= self._maker.remove(name)
            present = [wanted for wanted in (main, twin) if wanted is not None]
            # Who must go goes from both before anybody is let in.
            for wanted in present:
                changed |= self._maker.revoke(wanted)
            for wanted in present:
                changed |= self._maker.make_storage(wanted, self._new_tid)
            if present:
                changed |= self._maker.make_account([wanted.name for wanted in present], spec.auth)
            for wanted in present:
                changed |= self._maker.allow(wanted)
            return changed
        except exception.VolmgrError:
            # Half-made, and not as noted: the next sync reads what is there.
            self.known.forget()
            raise

    def _new_tid(self) -> int:
        # Far above what tgt-admin gives out, and from so many that two hardly meet: no list is needed.
        return self._random.randrange(2**20, 2**30)

    def connection(self, spec: ExportSpec, grant: Grant) -> dict[str, Json]:
        """Return the connection's data; read-only grants connect to the twin."""
        name = _twin(spec.target_name) if grant.mode == "ro" else spec.target_name
        return iscsi_data.connection(self.config.portals, spec, grant, name)

    def observe(self) -> Sequence[ObservedExport]:
        """Return our exports by one request; a twin is part of its export. What tgtd said is believed from now on."""
        self._refill(self._life())
        found: dict[str, list[tgt.Target]] = {}
        for target in self.known.read():
            parsed = names.parse_target_name(self.config.prefix, target.name)
            if parsed is not None:
                found.setdefault(names.target_name(self.config.prefix, parsed[0], parsed[1]), []).append(target)
        return [_observed(name, targets) for name, targets in found.items()]


def _twin(name: str) -> str:
    return f"{name}{names.READ_ONLY_SUFFIX}"


def _plan(spec: ExportSpec) -> tuple[Wanted | None, Wanted | None]:
    """Return what the main target and its read-only twin should be; None: there should be none."""
    if not spec.wanted:
        return None, None
    if spec.lun < 1:
        raise exception.Invalid("LUN 0 is tgtd's own controller", field="lun", lun=spec.lun)
    serial = spec.serial or spec.resource_id.replace("-", "")
    if len(serial) > _SERIAL_MAX:
        raise exception.Invalid(f"tgtd keeps {_SERIAL_MAX} characters of a serial", field="serial", serial=serial)
    by_mode: dict[bool, set[str]] = {True: set(), False: set()}
    for grant in spec.grants:
        by_mode[grant.mode == "ro"].add(iscsi_data.check_initiator(grant.initiator))
    main = Wanted(
        name=spec.target_name,
        path=spec.path,
        lun=spec.lun,
        serial=serial,
        scsi_id=names.scsi_id(serial),
        read_only=spec.read_only,
        thin=spec.discard,
        initiators=frozenset(by_mode[False]),
    )
    if not by_mode[True]:
        return main, None
    return main, dataclasses.replace(
        main, name=_twin(spec.target_name), read_only=True, initiators=frozenset(by_mode[True])
    )


def _observed(name: str, targets: Sequence[tgt.Target]) -> ObservedExport:
    disks = [lun for target in targets for lun in target.disks]
    return ObservedExport(
        target_name=name,
        paths=tuple(sorted({lun.path for lun in disks if lun.path})),
        serials=tuple(sorted({lun.serial for lun in disks})),
        initiators=tuple(sorted({acl for target in targets for acl in target.acls})),
        sessions=tuple(sorted({session.initiator for target in targets for session in target.sessions})),
    )

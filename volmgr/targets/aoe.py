# SPDX-License-Identifier: Apache-2.0
"""Exports over ATA over Ethernet by vblade: block devices and files, for hosts on one Ethernet segment.

An export has an address, shelf and blade, which its creator gives out. Whoever may use it is told to vblade as a mask
of MAC addresses. Nobody granted means that no process runs: a vblade without mask serves everybody. Changed grants or a
new size end the process and start another: the protocol has no sessions, initiators send again what nobody answered.
A read-only grant, and more addresses than a mask holds, are further processes at the same address.

A thread looks every second whether the processes live and starts those that died again. It knows nothing of drivers,
databases or RPC.

Option (``TargetConfig.options``): ``aoe_eth_dev``, the network interface.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from volmgr import exception, names
from volmgr.targets.base import Target, TargetConfig
from volmgr.tools import vblade
from volmgr.tools.vblade import Blade, Process
from volmgr.types import ExportSpec, Grant, Json, ObservedExport

LOG = logging.getLogger(__name__)

#: Seconds between two looks at the processes.
INTERVAL = 1.0
#: Seconds from one attempt to start a process again to the next, longer each time.
PAUSES = (0, 1, 5, 15, 60)
_LOCKS = 64
_MAC = re.compile(r"\A[0-9a-f]{2}((:[0-9a-f]{2}){5}|(-[0-9a-f]{2}){5}|[0-9a-f]{10})\Z")
_ETHERNET, _LOOPBACK, _UP = 1, 772, 0x1  # if_arp.h, if.h
_SYSFS = "/sys/class/net"


class AoeTarget(Target):
    """The exports of one backend on one network interface. One instance serves all threads."""

    protocol: ClassVar[str] = "aoe"
    grows_in_use: ClassVar[bool] = True
    serves_files: ClassVar[bool] = True
    #: a vblade without a mask lets everybody in.
    shows_ungranted: ClassVar[bool] = False

    def __init__(self, config: TargetConfig) -> None:
        super().__init__(config)
        self.interface = str(config.options.get("aoe_eth_dev") or "eth0")
        self.folder = os.path.join(os.path.abspath(config.state_path), "vblade")
        self._running: dict[str, list[Process]] = {}
        self._specs: dict[str, ExportSpec] = {}
        self._failed: dict[str, tuple[int, float]] = {}
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    # --- life

    def start(self) -> None:
        """Check the interface, adopt the processes of an earlier life, and watch.

        :raises BackendDown: there is no such interface, or it is down.
        """
        self._check_interface()
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        known = {process.pid for processes in self._running.values() for process in processes}
        for process in vblade.found(self.folder):
            if process.pid not in known:
                self._running.setdefault(process.blade.name, []).append(process)
        if self._watcher is None:
            self._stopping.clear()
            self._watcher = threading.Thread(target=self._watch, name="volmgr-vblades", daemon=True)
            self._watcher.start()

    def stop(self, *, and_exports: bool = False) -> None:
        """Watch no more; with ``and_exports`` end every process of ours, those of an earlier life too."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join(self.config.timeout)
            self._watcher = None
        if and_exports:
            self._specs.clear()
            for name in list(self._running):
                with self._lock(name):
                    self._make(name, ())
            for process in vblade.found(self.folder):
                vblade.end(process, self.config.timeout)

    def check(self) -> None:
        """Return if the interface is there and up; processes that died are started again first.

        :raises BackendDown: it is not.
        """
        self._check_interface()
        self._mend()

    def _check_interface(self) -> None:
        folder = f"{_SYSFS}/{self.interface}"
        try:
            with open(f"{folder}/type", encoding="ascii") as kind, open(f"{folder}/flags", encoding="ascii") as flags:
                is_ethernet, is_up = int(kind.read()) in (_ETHERNET, _LOOPBACK), int(flags.read(), 16) & _UP
        except (FileNotFoundError, NotADirectoryError) as error:
            raise exception.BackendDown(
                f"There is no network interface {self.interface}",
                hint="Set aoe_eth_dev to one of: ip -brief link",
                interface=self.interface,
            ) from error
        if not is_ethernet:
            raise exception.BackendDown(
                f"The network interface {self.interface} is not Ethernet",
                hint="Set aoe_eth_dev to one of: ip -brief link",
                interface=self.interface,
            )
        if not is_up:
            raise exception.BackendDown(
                f"The network interface {self.interface} is down",
                hint=f"Run as root: ip link set {self.interface} up",
                interface=self.interface,
            )

    # --- watching

    def _watch(self) -> None:
        while not self._stopping.wait(INTERVAL):
            self._mend()

    def _mend(self) -> None:
        """Make the exports again of which a process died, or whose last attempt failed."""
        for name, spec in list(self._specs.items()):
            processes = self._running.get(name, ())
            tries, again = self._failed.get(name, (0, 0.0))
            if processes and all(process.alive() for process in processes) and not tries:
                continue
            if time.monotonic() < again:
                continue
            try:
                self._mend_one(name, spec)
            except (exception.VolmgrError, OSError) as error:
                LOG.error("The export %s could not be made again, it is tried further: %s", name, error)

    def _mend_one(self, name: str, spec: ExportSpec) -> None:
        with self._lock(name):
            if self._specs.get(name) is not spec:
                return  # somebody has just made it another one
            for process in self._running.get(name, ()):
                if not process.alive():
                    said = process.last_words()
                    LOG.warning("vblade (process %d) of %s ended, it is started again: %s", process.pid, name, said)
            self._ensure(spec)

    def _ensure(self, spec: ExportSpec) -> bool:
        """Make the export so, and note how it went for the next look."""
        name = spec.target_name
        try:
            changed = self._make(name, self._blades(spec))
        except BaseException:
            tries = self._failed.get(name, (0, 0.0))[0]
            self._failed[name] = (tries + 1, time.monotonic() + PAUSES[min(tries, len(PAUSES) - 1)])
            raise
        self._failed.pop(name, None)
        return changed

    # --- exports

    def validate_connector(self, connector: dict[str, Any]) -> None:
        """Check that the connector has MAC addresses, in ``aoe_macs``.

        :raises InvalidConnector: it has none, or something that is none of a single host.
        """
        macs = connector.get("aoe_macs")
        if not isinstance(macs, list | tuple) or not macs:
            raise exception.InvalidConnector(
                missing="aoe_macs", hint="List the MAC addresses of the host's Ethernet interfaces: ip -brief link"
            )
        for mac in macs:
            _checked(mac)

    def sync(self, spec: ExportSpec) -> bool:
        """Make the export exactly what ``spec`` says; see :meth:`volmgr.targets.base.Target.sync`.

        A process of ours that serves another export at this address is ended: the address belongs to this one alone.

        :raises Invalid: ``spec`` has no address. :raises NotFound: the storage is not there; nothing was changed.
        """
        name = spec.target_name
        parsed = names.parse_target_name(self.config.prefix, name)
        if parsed is None or parsed[2]:
            raise exception.Invalid(f"{name} is not a target of {self.config.prefix}", field="target_name")
        with self._lock(name):
            if not spec.wanted or not spec.grants:
                self._specs.pop(name, None)
                self._failed.pop(name, None)
                return self._make(name, ())
            self._blades(spec)
            self._specs[name] = spec
            return self._ensure(spec)

    def _blades(self, spec: ExportSpec) -> tuple[Blade, ...]:
        """Return what should run, those that may write first."""
        if spec.shelf is None or spec.blade is None:
            raise exception.Invalid(
                "An ATA over Ethernet export needs a shelf and a blade",
                hint="They are given out by volmgr-volume; a driver used alone cannot be exported this way",
                field="shelf",
            )
        if len(spec.path.encode()) > 4095 or not spec.path.startswith("/"):
            raise exception.Invalid(f"vblade cannot be told the path {spec.path!r}", field="path")
        writers, readers = set[str](), set[str]()
        for grant in spec.grants:
            macs = {_checked(mac) for mac in grant.macs}
            if not macs:
                raise exception.InvalidConnector(missing="aoe_macs")
            (readers if spec.read_only or grant.mode == "ro" else writers).update(macs)
        size = _size(spec.path)
        made = []
        # A port of a host that may write and one that may not is one that may.
        for ports, read_only in ((sorted(writers), False), (sorted(readers - writers), True)):
            for at in range(0, len(ports), vblade.MASKS_MAX):
                mask = tuple(ports[at : at + vblade.MASKS_MAX])
                address = (spec.target_name, spec.shelf, spec.blade, self.interface)
                made.append(Blade(*address, spec.path, size // vblade.SECTOR, mask, read_only))
        return tuple(made)

    def _make(self, name: str, wanted: Sequence[Blade]) -> bool:
        """End what should not run, then start what should; whatever fails, what runs stays known."""
        present = self._running.get(name, [])
        storage = os.stat(wanted[0].path) if wanted else None
        served: list[Blade] = []
        ended = False
        for process in list(present):
            same = process.blade in wanted and process.blade not in served
            if same and storage is not None and process.alive() and process.serves(storage):
                served.append(process.blade)
                continue
            vblade.end(process, self.config.timeout)
            ended = True
            present.remove(process)
        if not present:
            self._running.pop(name, None)
        missing = [blade for blade in wanted if blade not in served]
        if missing:
            self._check_interface()
            self._clear(missing[0])
        for blade in missing:
            present.append(vblade.start(blade, self.folder, self.config.timeout))
            self._running[name] = present
        return ended or bool(missing)

    def _clear(self, blade: Blade) -> None:
        """End what is left of another export at this address."""
        for name, processes in list(self._running.items()):
            stale = [one for one in processes if (one.blade.shelf, one.blade.slot) == (blade.shelf, blade.slot)]
            if name == blade.name or not stale:
                continue
            LOG.warning("e%d.%d is %s now, what serves %s there is ended", blade.shelf, blade.slot, blade.name, name)
            self._specs.pop(name, None)
            for process in stale:
                vblade.end(process, self.config.timeout)
            self._running[name] = [process for process in processes if process not in stale]

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        lock = self._locks[hash(name) % _LOCKS]
        if not lock.acquire(timeout=self.config.timeout):
            raise exception.Timeout(f"The export {name} was busy for {self.config.timeout:g} s", target=name)
        try:
            yield
        finally:
            lock.release()

    def connection(self, spec: ExportSpec, grant: Grant) -> dict[str, Json]:
        """Return the connection's data: ``target_shelf`` and ``target_lun``, which is the blade."""
        return {
            "target_shelf": spec.shelf,
            "target_lun": spec.blade,
            "target_discovered": False,
            "volume_id": spec.resource_id,
            "access_mode": "ro" if spec.read_only else grant.mode,
            # ATA over Ethernet has no command for it that vblade knows.
            "discard": False,
        }

    def location(self, spec: ExportSpec) -> str:
        """Return ``provider_location``: the address, and the interface where it is served."""
        return f"e{spec.shelf}.{spec.blade} {self.interface}"

    def observe(self) -> Sequence[ObservedExport]:
        """Return what runs, by one walk of the process table; serials are unknown, vblade has none."""
        by_name: dict[str, list[Process]] = {}
        for process in vblade.found(self.folder):
            by_name.setdefault(process.blade.name, []).append(process)
        return [
            ObservedExport(
                target_name=name,
                paths=tuple(sorted({process.blade.path for process in processes})),
                initiators=tuple(sorted({mac for process in processes for mac in process.blade.macs})),
            )
            for name, processes in sorted(by_name.items())
        ]


def _checked(mac: object) -> str:
    """Return a MAC address in one spelling, with colons.

    :raises InvalidConnector: it is none of a single interface: vblade would let everybody in.
    """
    text = mac.lower() if isinstance(mac, str) else ""
    digits = text.replace("-", "").replace(":", "")
    if not _MAC.match(text) or int(digits[:2], 16) & 1 or not int(digits, 16):
        raise exception.InvalidConnector(
            f"{mac!r} is not the MAC address of a single interface",
            hint="List the MAC addresses of the host's Ethernet interfaces: ip -brief link",
            missing="aoe_macs",
        )
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def _size(path: str) -> int:
    """Return the size of the storage in bytes, as it is now.

    :raises NotFound: it cannot be opened. :raises Invalid: it is neither a block device nor a file, or too small.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise exception.NotFound(
            f"The storage {path} cannot be opened: {error.strerror}", resource="storage", id=path
        ) from error
    try:
        mode = os.fstat(descriptor).st_mode
        size = os.lseek(descriptor, 0, os.SEEK_END) if stat.S_ISREG(mode) or stat.S_ISBLK(mode) else 0
    finally:
        os.close(descriptor)
    if size < vblade.SECTOR:
        raise exception.Invalid(f"The storage {path} is no block device or file of a sector or more", field="path")
    return size

# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel exports by LIO: over Ethernet (tcm_fc, FCoE) or by a host bus adapter in target mode (tcm_qla2xxx).

Each of the host's ports that is named is one target for all exports. Every initiator that is known has an entry there
that stays, made before it logs in; to attach is to map a number to a unit, to detach is to take that away. The numbers
are given out by whoever keeps the exports. What is mapped where was read once, at the start, and is kept up to date, so
that a sync looks only where something of its export can be. tcm_qla2xxx was never tried for want of an adapter.
It knows nothing of drivers, databases or RPC.

Options (``TargetConfig.options``): ``fc_fabric``, ``fc_target_wwpns``, ``fc_initiator_wwpns``, ``lio_configfs``.

Facts of LIO: an initiator that logged in before its entry was made sees nothing until its port has forgotten the target
(dev_loss_tmo, 60 s, then a new login); LUN 0 answers with zeros when nothing is mapped there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from volmgr import concurrency, exception
from volmgr.privileged import modules
from volmgr.targets import zones
from volmgr.targets.base import TargetConfig
from volmgr.targets.lio import LioTarget, backstore, fc_tree, iscsi
from volmgr.targets.lio.configfs import apply
from volmgr.targets.lio.fc_tree import Place
from volmgr.targets.lio.tree import Make, Mapped, Remove, Step
from volmgr.types import ExportSpec, Grant, Json, ObservedExport

LOG = logging.getLogger(__name__)

#: By option ``fc_fabric``: the kernel's module and the fabric's folder.
FABRICS = {"tcm_fc": ("tcm_fc", "fc"), "qla2xxx": ("tcm_qla2xxx", "qla2xxx")}
_MODULES = ("target_core_mod", "target_core_iblock", "target_core_file")
_WWPN = re.compile(r"\A[0-9a-f]{16}\Z")
_HOSTS = "/sys/class/fc_host"


class FcTarget(LioTarget):
    """The exports of one backend at this host's Fibre Channel ports. One instance serves all threads."""

    protocol: ClassVar[str] = "fibre_channel"

    def __init__(self, config: TargetConfig) -> None:
        super().__init__(config)
        fabric = str(config.options.get("fc_fabric") or "tcm_fc")
        if fabric not in FABRICS:
            raise exception.InvalidConfiguration(
                reason=f"there is no Fibre Channel fabric {fabric}",
                hint=f"Set fc_fabric to one of: {', '.join(FABRICS)}",
            )
        self.module, self.fabric = FABRICS[fabric]
        self.ports = tuple(sorted(_named(config, "fc_target_wwpns")))
        self.zones = zones.load(config.options.get("fc_zone_manager"))
        #: who was ever let in; the next life is told again.
        self._admitted = _named(config, "fc_initiator_wwpns")
        self._hosts = Path(str(config.options.get("fc_hosts", _HOSTS)))
        self._known: dict[str, tuple[set[tuple[str, int]], set[Place]]] = {}
        self._walked = concurrency.momentary_lock()

    # --- the kernel's part

    def start(self) -> None:
        """Load the modules, make every port a target, and an entry for every initiator that the options name.

        :raises InvalidConfiguration: no port is named. :raises BackendDown: a port is not there, or no target.
        """
        if not self.ports:
            raise exception.InvalidConfiguration(
                reason="fc_target_wwpns names no port", hint=f"List ports of this host: grep . {_HOSTS}/*/port_name"
            )
        with self._told("start"):
            modules.ensure((*_MODULES, self.module), timeout=self.config.timeout)
            self._check_root()
            self._check_ports()
        self._make_ports()
        self._walk()

    def _make_ports(self) -> None:
        """Make every port a target, with an entry for every initiator that is known."""
        with self._told("make the targets"):
            for port in self.ports:
                self._make_port(port)
        for initiator in sorted(self._admitted):
            self.admit(initiator)

    def check(self) -> None:
        """Return if LIO's configfs is there and this host has the ports.

        :raises BackendDown: it is not, or has not.
        """
        self._check_root()
        self._check_ports()

    def _check_ports(self) -> None:
        present = set()
        for file in self._hosts.glob("*/port_name"):
            present.add(file.read_text(encoding="ascii").strip().removeprefix("0x").lower())
        if missing := [port for port in self.ports if port not in present]:
            there = ", ".join(sorted(present)) or "none"
            raise exception.BackendDown(
                f"This host has no Fibre Channel port {', '.join(missing)}; it has {there}",
                hint="Correct fc_target_wwpns; for FCoE bring the interface up and write its name to "
                "/sys/module/libfcoe/parameters/create_vn2vn, for an adapter: modprobe qla2xxx qlini_mode=disabled",
                missing=missing,
            )

    def _make_port(self, port: str) -> None:
        group = fc_tree.group_path(self.fabric, port)
        for _ in range(2):
            exists = self.tree.exists(group)
            keys = {key: f"{group}/attrib/{key}" for key in fc_tree.ATTRIBUTES} | {"enable": f"{group}/enable"}
            have = {key: self.tree.read(path) for key, path in keys.items()} if exists else {}
            for step in fc_tree.port_steps(self.fabric, port, exists, have):
                try:
                    apply(self.tree, step)
                except OSError as error:
                    raise exception.BackendDown(
                        f"The port {port} cannot be a target: {error.strerror}",
                        hint="An adapter must be in target mode (modprobe qla2xxx qlini_mode=disabled); FCoE needs an "
                        "interface in /sys/module/libfcoe/parameters/create_vn2vn, and fc_fabric = tcm_fc",
                        port=port,
                    ) from error

    def admit(self, initiator: str) -> None:
        """Make an initiator's entry at every port, for ever: it must be there before the initiator logs in.

        :raises InvalidConnector: it is no WWPN.
        """
        name = wwpn(initiator)
        self._admitted.add(name)
        with self._told(f"make the entry of {name}"):
            for port in self.ports:
                apply(self.tree, Make(fc_tree.entry_path(self.fabric, port, name), shared=True))

    def stop(self, *, and_exports: bool = False) -> None:
        """Let go; with ``and_exports`` end our exports, entries that lead nowhere and targets that are empty."""
        if not and_exports:
            return
        for export in self.observe():
            self._sync(export.target_name, None)
        with self._told("remove the targets"):
            for port in self.ports:
                group = fc_tree.group_path(self.fabric, port)
                for entry in self.tree.folders(f"{group}/acls"):
                    if not any(name.startswith("lun_") for name in self.tree.folders(f"{group}/acls/{entry}")):
                        apply(self.tree, Remove(f"{group}/acls/{entry}", shared=True))
                if not self.tree.folders(f"{group}/acls") and not self._units(group):
                    apply(self.tree, Remove(group, shared=True))
                    apply(self.tree, Remove(group.rpartition("/")[0], shared=True))

    # --- what is there

    def _units(self, group: str) -> list[str]:
        return [name for name in self.tree.folders(f"{group}/lun") if self.tree.links(f"{group}/lun/{name}")]

    def _walk(self) -> None:
        """Read what is mapped where, of all exports: once at the start, and after any surprise."""
        found: dict[str, tuple[set[tuple[str, int]], set[Place]]] = {}
        for port in self.ports:
            group = fc_tree.group_path(self.fabric, port)
            units: dict[str, str] = {}
            for folder in self.tree.folders(f"{group}/lun"):
                path = f"{group}/lun/{folder}"
                for to in self.tree.links(path).values():
                    units[path] = to.rpartition("/")[2]
                    found.setdefault(units[path], (set(), set()))[0].add((port, _number(folder)))
            for entry in self.tree.folders(f"{group}/acls"):
                for folder in self.tree.folders(f"{group}/acls/{entry}"):
                    if not folder.startswith("lun_"):
                        continue
                    for to in self.tree.links(f"{group}/acls/{entry}/{folder}").values():
                        if to in units:
                            place = (port, entry.replace(":", ""), _number(folder))
                            found.setdefault(units[to], (set(), set()))[1].add(place)
        with self._walked:
            self._known = found

    def _read(self, name: str, wanted: fc_tree.Wanted | None) -> fc_tree.Observed:
        units, places = self._known.get(name, (set(), set()))
        if wanted is not None:
            units = units | {(port, wanted.lun) for port in wanted.ports}
            places = places | set(wanted.mapped)
        at = {key: f"{fc_tree.group_path(self.fabric, key[0])}/lun/lun_{key[1]}" for key in units}
        mapped = {place: f"{fc_tree.entry_path(self.fabric, *place[:2])}/lun_{place[2]}" for place in places}
        entries = {place[:2] for place in places}
        return fc_tree.Observed(
            name,
            backstores=backstore.read_all(self.tree, name),
            units={key: self.tree.links(path) for key, path in at.items() if self.tree.exists(path)},
            mapped={
                place: Mapped(self.tree.links(path), self.tree.read(f"{path}/write_protect") == "1")
                for place, path in mapped.items()
                if self.tree.exists(path)
            },
            entries=frozenset(key for key in entries if self.tree.exists(fc_tree.entry_path(self.fabric, *key))),
        )

    # --- exports

    def validate_connector(self, connector: dict[str, Any]) -> None:
        """Check that the connector has port and node names."""
        for setting in ("wwpns", "wwnns"):
            value = connector.get(setting)
            if not isinstance(value, list | tuple) or not value:
                raise exception.InvalidConnector(
                    missing=setting, hint=f"The host needs a Fibre Channel adapter: grep . {_HOSTS}/*/*_name"
                )
            for name in value:
                wwpn(name)

    def sync(self, spec: ExportSpec) -> bool:
        """Make the export exactly what ``spec`` says; see :meth:`volmgr.targets.base.Target.sync`.

        :raises Invalid: something in ``spec`` cannot be told to LIO; nothing was changed.
        :raises NotFound: the storage is not there; nothing was changed.
        """
        if not iscsi.is_ours(self.config.prefix, spec.target_name):
            raise exception.Invalid(f"{spec.target_name} is not a target of {self.config.prefix}", field="target_name")
        wanted = self._wanted(spec) if spec.wanted else None
        before = {place[1] for place in self._known.get(spec.target_name, (set(), set()))[1]}
        after = {place[1] for place in wanted.mapped} if wanted is not None else set()
        if added := sorted(after - before):
            self.zones.add({initiator: list(self.ports) for initiator in added})
        changed = self._sync(spec.target_name, wanted)
        if gone := sorted(before - after - self._others(spec.target_name)):
            self.zones.remove({initiator: list(self.ports) for initiator in gone})
        return changed

    def _others(self, name: str) -> set[str]:
        """Return the initiators that meet other exports."""
        return {place[1] for other, (_, places) in list(self._known.items()) if other != name for place in places}

    def _wanted(self, spec: ExportSpec) -> fc_tree.Wanted:
        if spec.lun < 1:
            raise exception.Invalid("LIO answers on LUN 0 by itself when nothing is there", field="lun", lun=spec.lun)
        mapped: dict[Place, bool] = {}
        for grant in spec.grants:
            if grant.lun < 1 or not grant.wwpns:
                raise exception.InvalidConnector(missing="wwpns")
            for port in self.ports:
                for initiator in grant.wwpns:
                    place = (port, wwpn(initiator), grant.lun)
                    mapped[place] = mapped.get(place, True) and (spec.read_only or grant.mode == "ro")
        store = backstore.wanted(
            spec.path, spec.serial or spec.resource_id.replace("-", ""), discard=spec.discard and not spec.read_only
        )
        return fc_tree.Wanted(spec.target_name, store, spec.lun, self.ports, mapped)

    def _plan(self, name: str, wanted: Any) -> list[Step]:
        with self._told(f"read {name}"):
            steps = fc_tree.plan(self.fabric, wanted, self._read(name, wanted))
        with self._walked:
            units, places = self._known.get(name, (set(), set()))
            if wanted is not None:
                units = units | {(port, wanted.lun) for port in wanted.ports}
                places = places | set(wanted.mapped)
            self._known[name] = (units, places)
        return steps

    def _run(self, steps: Sequence[Step]) -> OSError | None:
        stale = super()._run(steps)
        if stale is not None:
            # Somebody may have taken the targets themselves away.
            self._make_ports()
            self._walk()
        return stale

    def _sync(self, name: str, wanted: Any) -> bool:
        changed = super()._sync(name, wanted)
        with self._walked:
            if wanted is None:
                self._known.pop(name, None)
            else:
                self._known[name] = ({(port, wanted.lun) for port in wanted.ports}, set(wanted.mapped))
        return changed

    def connection(self, spec: ExportSpec, grant: Grant) -> dict[str, Json]:
        """Return the connection's data; ``target_wwn`` is one name, or the list where there are several."""
        ports: list[Json] = list(self.ports)
        return {
            "target_discovered": True,
            "target_lun": grant.lun,
            "target_wwn": ports if len(ports) > 1 else ports[0],
            "initiator_target_map": {initiator: list(ports) for initiator in grant.wwpns},
            "volume_id": spec.resource_id,
            "access_mode": "ro" if spec.read_only else grant.mode,
            "discard": spec.discard and not spec.read_only,
        }

    def location(self, spec: ExportSpec) -> str:
        """Return ``provider_location``: the ports and the unit's number at them."""
        return f"{','.join(self.ports)} {spec.lun}"

    def _observe(self) -> list[ObservedExport]:
        """Return our exports, and backstores of ours that lead nowhere, by one walk."""
        with self._told("list the targets"):
            self._check_root()
            self._walk()
            return [self._observed(name) for name in self._names()]

    def present(self) -> frozenset[str]:
        """Return the names of our exports with a unit at a port; a lost one's storage object alone does not count."""
        with self._told("list the targets"):
            self._check_root()
            self._walk()
            found = list(self._known.items())
        return frozenset(name for name, (units, _) in found if units and iscsi.is_ours(self.config.prefix, name))

    def _names(self) -> list[str]:
        found = iscsi.our_backstores(self.tree, self.config.prefix)
        return sorted(found | {name for name in self._known if iscsi.is_ours(self.config.prefix, name)})

    def _observed(self, name: str) -> ObservedExport:
        stores = [store for store in backstore.read_all(self.tree, name).values() if store is not None]
        return ObservedExport(
            target_name=name,
            paths=tuple(sorted({store.path for store in stores if store.path})),
            serials=tuple(sorted({store.serial for store in stores if store.serial})),
            initiators=tuple(sorted({place[1] for place in self._known.get(name, (set(), set()))[1]})),
        )


def wwpn(value: object) -> str:
    """Return a WWPN as 16 digits.

    :raises InvalidConnector: it is none.
    """
    text = str(value).lower().replace(":", "").removeprefix("0x").removeprefix("naa.")
    if not _WWPN.match(text) or not int(text, 16):
        raise exception.InvalidConnector(
            f"{value!r} is not the name of a Fibre Channel port",
            hint="It has 16 hexadecimal digits, as in /sys/class/fc_host/*/port_name",
            missing="wwpns",
        )
    return text


def _named(config: TargetConfig, option: str) -> set[str]:
    """Return the ports that an option names.

    :raises InvalidConfiguration: one of them is no WWPN.
    """
    try:
        return {wwpn(name) for name in config.options.get(option) or ()}
    except exception.InvalidConnector as error:
        raise exception.InvalidConfiguration(
            reason=f"{option}: {error.message}", hint=f"Set {option} to names as in: grep . {_HOSTS}/*/port_name"
        ) from error


def _number(folder: str) -> int:
    return int(folder.removeprefix("lun_"))

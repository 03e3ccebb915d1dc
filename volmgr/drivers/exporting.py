# SPDX-License-Identifier: Apache-2.0
"""The connection verbs of a driver whose storage any target can serve: they go to ``target_driver``.

Without a target only the host itself can connect, by the path: connection_info of the type ``local``.

The manager does not need them, it syncs the target with what SQL says. They are for whoever uses a driver alone; the
grants that they make live in this process only. This module knows no particular target and no storage.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from volmgr import exception, names
from volmgr.drivers.base import BaseVD
from volmgr.drivers.interfaces import LocalVD
from volmgr.types import Chap, ExportSpec, Grant, ModelUpdate, Secret, Snapshot, Volume

if TYPE_CHECKING:
    from volmgr.targets.base import Target

Connector = Mapping[str, Any] | None


class TargetVD(LocalVD, BaseVD, abstract=True):
    """A driver that exports through its target."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._grants: dict[str, tuple[Grant, ...]] = {}
        self._grants_lock = threading.Lock()

    def _target(self) -> Target:
        if self.target_driver is None:
            raise exception.InvalidConfiguration(reason=f"{type(self).__name__} was given no target")
        return self.target_driver

    def export_spec(self, resource: Volume | Snapshot, *, wanted: bool = True) -> ExportSpec:
        """Return what the export of ``resource`` should be, with the grants made through this driver.

        :param wanted: False for none at all.
        """
        kind = "snapshot" if isinstance(resource, Snapshot) else "volume"
        return ExportSpec(
            kind=kind,
            resource_id=resource.id,
            target_name=names.target_name(self._target().config.prefix, kind, resource.id),
            wanted=wanted,
            path=self.export_path(resource) if wanted else "",
            # A driver used alone has nobody who stores a random serial; the object's id is as unique.
            serial=resource.serial or resource.name_id.replace("-", ""),
            size_bytes=resource.size_bytes,
            auth=parse_auth(resource.provider_auth),
            grants=self._grants.get(resource.id, ()),
            read_only=kind == "snapshot",
        )

    def ensure_export(self, context: Any, volume: Volume) -> ModelUpdate:
        return self._export(volume)

    def create_export(self, context: Any, volume: Volume, connector: Connector) -> ModelUpdate:
        return self._export(volume)

    def create_export_snapshot(self, context: Any, snapshot: Snapshot, connector: Connector) -> ModelUpdate:
        return self._export(snapshot)

    def remove_export(self, context: Any, volume: Volume) -> None:
        self._unexport(volume)

    def remove_export_snapshot(self, context: Any, snapshot: Snapshot) -> None:
        self._unexport(snapshot)

    def initialize_connection(
        self,
        volume: Volume,
        connector: Mapping[str, Any],
        initiator_data: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        return self._connect(volume, connector)

    def initialize_connection_snapshot(
        self, snapshot: Snapshot, connector: Mapping[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        return self._connect(snapshot, connector)

    def terminate_connection(self, volume: Volume, connector: Connector, **kwargs: Any) -> None:
        self._disconnect(volume, connector)

    def terminate_connection_snapshot(self, snapshot: Snapshot, connector: Connector, **kwargs: Any) -> None:
        self._disconnect(snapshot, connector)

    def validate_connector(self, connector: Mapping[str, Any]) -> None:
        """Check that ``connector`` has what the target needs; without one, that it is this host's.

        :raises InvalidConnector: naming what is missing.
        """
        super().validate_connector(connector)
        here = names.parse_host(self.host).host if self.host else None
        if self.target_driver is None and connector.get("host") != here:
            raise exception.InvalidConnector(
                f"Without a target only {here} itself can connect", missing="host",
                hint="Set target_helper, or attach the volume on that host",
            )

    def _export(self, resource: Volume | Snapshot) -> ModelUpdate:
        target, spec = self._target(), self.export_spec(resource)
        target.sync(spec)
        return {"provider_location": target.location(spec)}

    def _unexport(self, resource: Volume | Snapshot) -> None:
        with self._grants_lock:
            self._grants.pop(resource.id, None)
        if self.target_driver is not None:
            self.target_driver.sync(self.export_spec(resource, wanted=False))

    def _connect(self, resource: Volume | Snapshot, connector: Mapping[str, Any]) -> dict[str, Any]:
        self.validate_connector(connector)
        if self.target_driver is None:
            return {"driver_volume_type": "local", "data": {"device_path": self.export_path(resource)}}
        grant = grant_for(connector)
        if isinstance(resource, Snapshot):
            grant = dataclasses.replace(grant, mode="ro")
        with self._grants_lock:
            others = tuple(item for item in self._grants.get(resource.id, ()) if item.id != grant.id)
            self._grants[resource.id] = (*others, grant)
        target, spec = self._target(), self.export_spec(resource)
        target.sync(spec)
        return {"driver_volume_type": target.protocol, "data": dict(target.connection(spec, grant))}

    def _disconnect(self, resource: Volume | Snapshot, connector: Connector) -> None:
        if self.target_driver is None:
            return
        gone = None if connector is None else grant_for(connector).id
        with self._grants_lock:
            left = tuple(item for item in self._grants.get(resource.id, ()) if gone is not None and item.id != gone)
            self._grants[resource.id] = left
        self._target().sync(self.export_spec(resource))


def grant_for(connector: Mapping[str, Any]) -> Grant:
    """Return the grant that lets the host described by ``connector`` in."""
    identity = connector.get("initiator") or connector.get("host") or connector.get("ip") or "unknown"
    return Grant(
        id=str(identity),
        mode="rw",
        initiator=connector.get("initiator"),
        wwpns=tuple(connector.get("wwpns") or ()),
        macs=tuple(connector.get("aoe_macs") or ()),
        host_name=connector.get("host"),
        ip=connector.get("ip"),
    )


def parse_auth(provider_auth: Secret | str | None) -> Chap | None:
    """Return the account in ``CHAP user secret``, None without one.

    :raises Inconsistent: it has another form; the text is not repeated.
    """
    if provider_auth is None:
        return None
    text = provider_auth.reveal() if isinstance(provider_auth, Secret) else provider_auth
    parts = text.split()
    if len(parts) != 3 or parts[0] != "CHAP":
        raise exception.Inconsistent("provider_auth has not the form CHAP user secret")
    return Chap(username=parts[1], password=Secret(parts[2]))

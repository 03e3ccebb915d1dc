# SPDX-License-Identifier: Apache-2.0
"""A backend used without the service: its driver and target straight from a configuration.

No broker, database or daemon takes part. Nothing is remembered but what is in the storage itself, so volumes are known
by the ids of their objects alone, and an export has one client: the next one takes its place. The incarnation lock of
the backend is held throughout, so a daemon and this never work on the same storage. This module knows no command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import stat
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volmgr import context, exception
from volmgr.drivers import loader
from volmgr.drivers.exporting import TargetVD, grant_for
from volmgr.drivers.interfaces import VERBS, supports
from volmgr.incarnation import Incarnation, command_of, holders
from volmgr.types import GiB, ObservedObject, Secret, Snapshot, Volume

if TYPE_CHECKING:
    from volmgr.conf.backend import BackendConfiguration
    from volmgr.conf.loading import Configuration
    from volmgr.targets.base import Target

#: Targets whose exports need no number that only a database could keep apart.
EXPORTABLE = ("iscsi", "iser")
LIO_FILES = "/sys/kernel/config/target/core"


@contextlib.contextmanager
def opened(conf: Configuration, name: str | None = None) -> Iterator[LocalBackend]:
    """Give a backend that is set up and checked; at the end its lock is let go, exports stay.

    :param conf: the configuration, see :func:`volmgr.conf.load`.
    :param name: the backend's section; not needed where there is only one.
    :raises Conflict: a daemon, or another use without one, has it, or it is a cluster's.
    :raises BackendDown: it cannot be used now.
    """
    options = chosen(conf, name)
    if conf.cluster:
        raise exception.Conflict(
            f"Other hosts of the cluster {conf.cluster} may serve {options.config_group} at this moment",
            hint="Stop volmgr-volume on all of them, and use a configuration without cluster",
            resource="service", id=f"{conf.cluster}@{options.config_group}",
        )
    incarnation = Incarnation(f"{conf.state_path}/locks", f"{conf.host}@{options.config_group}")
    _acquire(incarnation)
    try:
        backend = LocalBackend(conf, options, incarnation)
        backend.driver.do_setup(context.admin())
        backend.driver.check_for_setup_error()
        backend.driver.set_initialized()
        yield backend
    finally:
        incarnation.release()


def chosen(conf: Configuration, name: str | None) -> BackendConfiguration:
    """Return the options of one backend.

    :raises InvalidConfiguration: there is none of that name, or there are several and none was named.
    """
    from volmgr import conf as config

    found = {item.config_group: item for item in config.backends(conf)}
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name not in found:
        raise exception.InvalidConfiguration(
            reason=f"there is no backend {name!r}" if name else "there are several backends",
            hint=f"Name one of: {', '.join(found)}",
        )
    return found[name]


def _acquire(incarnation: Incarnation) -> None:
    try:
        incarnation.acquire()
    except exception.Conflict as error:
        pid = error.details.get("pid")
        raise exception.Conflict(
            f"The backend {incarnation.service} is in the hands of process {pid}: {command_of(int(pid or 0))}",
            hint="Ask the daemon (volmgr volume …), or stop it first: systemctl stop volmgr-volume",
            resource="service", id=incarnation.service, pid=pid,
        ) from error


class LocalBackend:
    """One backend in this process's hands; :func:`opened` makes it.

    :ivar driver: the driver, set up. :ivar target: what exports its storage, None for none; not started yet.
    """

    def __init__(self, conf: Configuration, options: BackendConfiguration, incarnation: Incarnation) -> None:
        self.conf = conf
        self.options = options
        self.host = incarnation.service
        self.target: Target | None = loader.make_target(conf, options)
        cls = loader.load(options.volume_driver)
        self.driver: Any = cls(
            configuration=options, host=self.host, target=self.target, lock_fd=incarnation.fd, active_backend_id=None
        )
        self._target_runs = False

    # --- looking ------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return what the backend is and which verbs its driver can do."""
        options = self.options
        return {
            "backend": self.host,
            "driver": str(options.volume_driver),
            "version": self.driver.get_version(),
            "target": options.target_helper if self.target is not None else None,
            "protocol": self.target.protocol if self.target is not None else self.driver.storage_protocol,
            "verbs": sorted(verb for verb in VERBS if supports(self.driver, verb) and verb not in self.driver.lacks),
        }

    def pools(self) -> list[dict[str, Any]]:
        """Return the pools with their sizes in GiB, as the driver measures them now."""
        stats = self.driver.get_volume_stats(refresh=True)
        return [dict(pool) for pool in stats.get("pools") or [{"pool_name": self.driver.backend_name, **stats}]]

    def objects(self) -> list[ObservedObject]:
        """Return everything in the storage under one of our names.

        :raises Unsupported: the driver cannot tell.
        """
        self._need("observe")
        return sorted(self.driver.observe(), key=lambda item: item.name)

    def find(self, object_id: str) -> Volume | Snapshot:
        """Return the record of a volume or snapshot that is there, with its size rounded up to GiB.

        :raises NotFound: there is neither.
        """
        for item in self.objects():
            if item.object_id == object_id and item.state == "current":
                size = -(-item.size_bytes // GiB)
                if item.kind == "snapshot":
                    return Snapshot(id=object_id, volume_id=object_id, volume_size=size, host=self.host)
                return self._volume(object_id, size)
        raise exception.NotFound(
            f"The backend {self.host} has no volume or snapshot {object_id}", hint="Run: volmgr local list",
            resource="object", id=object_id,
        )

    def volume(self, volume_id: str) -> Volume:
        """Return the record of a volume that is there.

        :raises NotFound: there is none.
        """
        found = self.find(volume_id)
        if isinstance(found, Volume):
            return found
        raise exception.VolumeNotFound(f"{volume_id} is a snapshot, not a volume", id=volume_id)

    def _volume(self, volume_id: str, size: int) -> Volume:
        """Return a volume's record; one whose file somebody has open counts as attached."""
        volume = Volume(id=volume_id, size=size, host=f"{self.host}#{self.driver.backend_name}", status="available")
        if self.users(volume):
            volume = dataclasses.replace(volume, status="in-use", attach_status="attached")
        return volume

    def users(self, resource: Volume | Snapshot) -> list[str]:
        """Return who has the file of a volume or snapshot open; devices guard themselves, for them there is nobody."""
        if not supports(self.driver, "local_path"):
            return []
        path = self.driver.local_path(resource)
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                return []
        except OSError:
            return []
        served = [f"LIO's {item.parent.name}" for item in Path(LIO_FILES).glob("fileio_*/*/udev_path")
                  if item.read_text(encoding="utf-8").strip() == path]
        return served + [f"process {pid} ({command_of(pid)})" for pid in holders(Path(path))]

    # --- making and ending --------------------------------------------------------------------------------------

    def create(self, size: int, volume_id: str | None = None) -> Volume:
        """Make a volume of ``size`` GiB that reads as zeros; returns its record."""
        volume = Volume(id=volume_id or str(uuid.uuid4()), size=size, host=f"{self.host}#{self.driver.backend_name}")
        self.driver.create_volume(volume)
        return volume

    def clone(self, source_id: str, size: int | None = None, volume_id: str | None = None) -> Volume:
        """Make a volume with the bytes of a volume or snapshot.

        :param size: GiB, the source's by default.
        """
        source = self.find(source_id)
        volume = Volume(
            id=volume_id or str(uuid.uuid4()), size=size or source.size,
            host=f"{self.host}#{self.driver.backend_name}",
        )
        if isinstance(source, Snapshot):
            self._need("create_volume_from_snapshot")
            self.driver.create_volume_from_snapshot(volume, source)
        else:
            self._need("create_cloned_volume")
            self.driver.create_cloned_volume(volume, source)
        return volume

    def snapshot(self, volume_id: str, snapshot_id: str | None = None) -> Snapshot:
        """Take a snapshot of a volume; returns its record."""
        self._need("create_snapshot")
        volume = self.volume(volume_id)
        snapshot = Snapshot(
            id=snapshot_id or str(uuid.uuid4()), volume_id=volume_id, volume_size=volume.size, volume=volume,
            host=volume.host,
        )
        self.driver.create_snapshot(snapshot)
        return snapshot

    def extend(self, volume_id: str, size: int) -> Volume:
        """Make a volume larger; returns its record.

        :raises Conflict: somebody has it open. :raises Invalid: it is larger already.
        """
        self._need("extend_volume")
        volume = self.volume(volume_id)
        self._unused(volume)
        self.driver.extend_volume(volume, size)
        return dataclasses.replace(volume, size=size)

    def delete(self, object_id: str) -> None:
        """Remove a volume or snapshot, its bytes wiped as the backend does; past the trash, for good.

        :raises NotFound: it is not there. :raises Conflict: somebody has it open.
        """
        found = self.find(object_id)
        self._unused(found)
        if isinstance(found, Snapshot):
            self.driver.delete_snapshot(found)
        else:
            self.driver.delete_volume(found)

    def _unused(self, resource: Volume | Snapshot) -> None:
        if users := self.users(resource):
            raise exception.Conflict(
                f"{resource.name} is in use by {', '.join(users)}",
                hint=f"End that first: volmgr local unexport {resource.id}",
                resource="object", id=resource.id,
            )

    def _need(self, verb: str) -> None:
        if not supports(self.driver, verb):
            raise exception.Unsupported(f"The driver of {self.host} does not support {verb}", verb=verb)

    # --- connections --------------------------------------------------------------------------------------------

    def export(self, volume_id: str, connector: Mapping[str, Any]) -> dict[str, Any]:
        """Let one host use a volume, and nobody else; returns connection_info.

        It has the account's password, made anew each time, in the clear: it goes to the caller alone.

        :param connector: what the host is, as os-brick's ``get_connector_properties`` says it.
        :raises Unsupported: the protocol needs numbers that only a database keeps apart.
        """
        volume = self._with_account(self.volume(volume_id))
        if self.target is not None:
            self._start_target()
        elif not isinstance(self.driver, TargetVD):
            made = self.driver.create_export(context.admin(), volume, connector) or {}
            fields = {item.name for item in dataclasses.fields(volume)}
            volume = dataclasses.replace(volume, **{key: value for key, value in made.items() if key in fields})
        info: dict[str, Any] = self.driver.initialize_connection(volume, connector)
        return info

    def connection(self, volume_id: str, connector: Mapping[str, Any]) -> dict[str, Any]:
        """Return where an exported volume is, without any account and without a change; enough to disconnect."""
        volume = self.volume(volume_id)
        if self.target is None or not isinstance(self.driver, TargetVD):
            found: dict[str, Any] = self.driver.initialize_connection(volume, connector)
            return found
        spec = self.driver.export_spec(volume)
        return {
            "driver_volume_type": self.target.protocol,
            "data": dict(self.target.connection(spec, grant_for(connector))),
        }

    def unexport(self, volume_id: str) -> None:
        """End the export of a volume for everybody; absent is success."""
        volume = self.volume(volume_id)
        if self.target is not None:
            self._start_target()
        if not isinstance(self.driver, TargetVD):
            self.driver.terminate_connection(volume, None)
        self.driver.remove_export(context.admin(), volume)

    def _start_target(self) -> None:
        assert self.target is not None
        if self.target.protocol not in EXPORTABLE:
            raise exception.Unsupported(
                f"Without the service nothing is exported by {self.target.protocol}: its numbers are kept in SQL",
                hint="Start volmgr-volume, or use target_protocol = iscsi", verb="export",
            )
        if not self._target_runs:
            self.target.start()
            self._target_runs = True

    def _with_account(self, volume: Volume) -> Volume:
        options = self.options
        if self.target is None or not options.use_chap_auth:
            return volume
        user = options.chap_username or f"vm{secrets.token_hex(8)}"
        password = options.chap_password or secrets.token_hex(8)
        return dataclasses.replace(volume, provider_auth=Secret(f"CHAP {user} {password}"))

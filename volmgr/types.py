# SPDX-License-Identifier: Apache-2.0
"""The values that travel between the rooms: records of what SQL holds, and what targets and drivers are told.

They are frozen dataclasses without behaviour of their own. Drivers of the Cinder tree read them as attributes and as
items (``volume.id``, ``volume['id']``). This module knows no database, no RPC and no driver.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from volmgr import names

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
ModelUpdate = dict[str, Any] | None
GiB = 1024**3
MiB = 1024**2


class Secret:
    """A text that is never shown: not in a log, an error, a repr or JSON."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text, for the one place that sends it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class Record:
    """Attribute and item access to a dataclass, as drivers of this tree expect."""

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self, key)
        except AttributeError:
            raise KeyError(key) from None

    def get(self, key: str, default: Any = None) -> Any:
        """Return the attribute ``key``, or ``default``."""
        return getattr(self, key, default)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and hasattr(self, key)

    def keys(self) -> Iterator[str]:
        """Return the names of the fields."""
        return (item.name for item in dataclasses.fields(self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class VolumeType(Record):
    """A volume type with its extra specs.

    ``qos_specs`` is None or has ``id``, ``name``, ``consumer`` (front-end, back-end or both) and ``specs``.
    """

    id: str
    name: str
    extra_specs: Mapping[str, str] = field(default_factory=dict)
    qos_specs: Mapping[str, Any] | None = None
    is_public: bool = True


@dataclass(frozen=True)
class Volume(Record):
    """A volume as SQL holds it, joined with its current object.

    ``name`` is the backend name (made from ``name_id``, the object's id); ``display_name`` is the user's.
    ``size`` is in GiB. ``attachments`` is filled only where a caller asked for it.
    """

    id: str
    size: int
    project_id: str | None = None
    user_id: str | None = None
    display_name: str | None = None
    display_description: str | None = None
    host: str | None = None
    availability_zone: str | None = None
    status: str = "creating"
    attach_status: str = "detached"
    migration_status: str | None = None
    bootable: bool = False
    readonly: bool = False
    multiattach: bool = False
    volume_type_id: str | None = None
    volume_type: VolumeType | None = None
    snapshot_id: str | None = None
    source_volid: str | None = None
    image_id: str | None = None
    group_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    object_id: str | None = None
    serial: str | None = None
    provider_location: str | None = None
    provider_auth: Secret | None = None
    provider_id: str | None = None
    replication_status: str | None = None
    replication_extended_status: str | None = None
    replication_driver_data: str | None = None
    driver_data: str | None = None
    operation_id: str | None = None
    use_count: int = 0
    created_at: datetime.datetime | None = None
    updated_at: datetime.datetime | None = None
    launched_at: datetime.datetime | None = None

    @property
    def name_id(self) -> str:
        """The id that backend names are made from."""
        return self.object_id or self.id

    @property
    def _name_id(self) -> str | None:
        return self.object_id if self.object_id != self.id else None

    @property
    def name(self) -> str:
        """The backend name."""
        return names.object_name("volume", self.name_id)

    @property
    def volume_id(self) -> str:
        return self.id

    @property
    def size_bytes(self) -> int:
        return self.size * GiB


@dataclass(frozen=True)
class Snapshot(Record):
    """A snapshot as SQL holds it, joined with its current object and, for drivers, its volume."""

    id: str
    volume_id: str
    volume_size: int
    project_id: str | None = None
    user_id: str | None = None
    display_name: str | None = None
    display_description: str | None = None
    host: str | None = None
    status: str = "creating"
    progress: str = "0%"
    cgsnapshot_id: str | None = None
    volume_type_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    object_id: str | None = None
    serial: str | None = None
    provider_location: str | None = None
    provider_auth: Secret | None = None
    provider_id: str | None = None
    volume: Volume | None = None
    operation_id: str | None = None
    use_count: int = 0
    created_at: datetime.datetime | None = None
    updated_at: datetime.datetime | None = None

    @property
    def name_id(self) -> str:
        """The id that backend names are made from."""
        return self.object_id or self.id

    @property
    def name(self) -> str:
        """The backend name."""
        return names.object_name("snapshot", self.name_id)

    @property
    def volume_name(self) -> str:
        """The backend name of the volume that it is a snapshot of."""
        return self.volume.name if self.volume else names.object_name("volume", self.volume_id)

    @property
    def size(self) -> int:
        return self.volume_size

    @property
    def size_bytes(self) -> int:
        return self.volume_size * GiB


@dataclass(frozen=True)
class Group(Record):
    """A consistency group as SQL holds it; ``volume_types`` are the ids that its members may have, empty means any."""

    id: str
    status: str = "creating"
    project_id: str | None = None
    user_id: str | None = None
    display_name: str | None = None
    display_description: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    host: str | None = None
    volume_types: tuple[str, ...] = ()
    availability_zone: str | None = None
    cgsnapshot_id: str | None = None
    source_group_id: str | None = None
    operation_id: str | None = None
    use_count: int = 0
    created_at: datetime.datetime | None = None
    updated_at: datetime.datetime | None = None


@dataclass(frozen=True)
class CgSnapshot(Record):
    """A snapshot of a consistency group as SQL holds it; its members are snapshots of their own."""

    id: str
    group_id: str
    status: str = "creating"
    project_id: str | None = None
    user_id: str | None = None
    display_name: str | None = None
    display_description: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    host: str | None = None
    operation_id: str | None = None
    use_count: int = 0
    created_at: datetime.datetime | None = None
    updated_at: datetime.datetime | None = None

    @property
    def consistencygroup_id(self) -> str:
        """The group's id, as drivers of this tree call it."""
        return self.group_id


@dataclass(frozen=True)
class Backup(Record):
    """A copy of a volume in a store, as SQL holds it; ``size`` is the volume's, in GiB.

    ``source`` is, for drivers, what a backup in the making is made of, and ``base`` the snapshot that its parent was
    made of, if that is still there and as it was then.
    """

    id: str
    volume_id: str
    size: int
    store: str
    status: str = "creating"
    snapshot_id: str | None = None
    parent_id: str | None = None
    container: str | None = None
    object_count: int = 0
    stored_bytes: int = 0
    service_data: Mapping[str, Any] | None = None
    data_at: datetime.datetime | None = None
    source: Volume | Snapshot | None = None
    base: Snapshot | None = None
    project_id: str | None = None
    user_id: str | None = None
    display_name: str | None = None
    display_description: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    host: str | None = None
    operation_id: str | None = None
    use_count: int = 0
    created_at: datetime.datetime | None = None
    updated_at: datetime.datetime | None = None


@dataclass(frozen=True)
class Attachment(Record):
    """Who uses a volume: an instance, or a host."""

    id: str
    volume_id: str
    status: str
    mode: str = "rw"
    instance_uuid: str | None = None
    host_name: str | None = None
    mountpoint: str | None = None
    connector: Mapping[str, Any] | None = None
    created_at: datetime.datetime | None = None
    attached_at: datetime.datetime | None = None


@dataclass(frozen=True)
class StoredObject(Record):
    """A piece of storage that embodies a resource: role is current, building or trash."""

    id: str
    kind: str
    resource_id: str
    role: str
    host: str | None
    serial: str
    size_bytes: int
    provider_location: str | None = None
    provider_id: str | None = None
    trashed_at: datetime.datetime | None = None
    former: Mapping[str, Any] | None = None


#: what an operation can hold.
Resource = Volume | Snapshot | Group | CgSnapshot | Backup

# --- targets ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chap:
    """A CHAP account."""

    username: str
    password: Secret


@dataclass(frozen=True)
class Grant:
    """Who may connect to an export, and how. ``initiator`` is the iSCSI name, ``wwpns`` and ``macs`` the others'."""

    id: str
    mode: str = "rw"
    initiator: str | None = None
    wwpns: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    host_name: str | None = None
    ip: str | None = None
    lun: int = 1


@dataclass(frozen=True)
class Portal:
    """An address and TCP port where a target listens."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclass(frozen=True)
class ExportSpec:
    """What an export should be: complete, so that a target can be rebuilt from it alone.

    ``wanted`` False means that there must be none. ``path`` is the block device or file that is served. ``shelf`` and
    ``blade`` are the address of an ATA over Ethernet export.
    """

    kind: str
    resource_id: str
    target_name: str
    wanted: bool = True
    path: str = ""
    serial: str = ""
    size_bytes: int = 0
    lun: int = 1
    auth: Chap | None = None
    grants: tuple[Grant, ...] = ()
    read_only: bool = False
    discard: bool = True
    shelf: int | None = None
    blade: int | None = None


@dataclass(frozen=True)
class ObservedExport:
    """What a target has, for comparison with an :class:`ExportSpec`; ``foreign`` ones are only counted."""

    target_name: str
    paths: tuple[str, ...] = ()
    serials: tuple[str, ...] = ()
    initiators: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()


@dataclass(frozen=True)
class ObservedObject:
    """What a backend has under one of our names: ``state`` is current, building or trash.

    :param marked: whether more than its name says that it is ours: a tag, or the folder that it lies in.
    :param held: whether it cannot be freed yet, as something that is not trash still needs it.
    :param suspended: whether it lets nobody read or write at this moment.
    :param unit_bytes: what sizes are rounded up to.
    """

    name: str
    object_id: str
    kind: str
    state: str
    size_bytes: int
    serial: str | None = None
    marked: bool = True
    held: bool = False
    suspended: bool = False
    unit_bytes: int = 1


@dataclass(frozen=True)
class OperationRecord(Record):
    """A row of the journal. ``state`` is queued, running, undoing, parked, done or failed."""

    id: str
    request_key: str
    verb: str
    version: int
    resource: str
    resource_id: str
    host: str | None
    state: str
    lane: str
    claimed: bool
    claims: list[dict[str, Any]]
    epoch: int
    incarnation: str | None
    deaths: int
    step: str | None
    pivoted: bool
    cancel: bool
    progress: float | None
    parked_for: str | None
    context: dict[str, Any]
    args: dict[str, Any]
    data: dict[str, Any] | None
    result: Any
    error: dict[str, Any] | None
    project_id: str | None
    not_before: datetime.datetime | None
    created_at: datetime.datetime | None
    started_at: datetime.datetime | None
    updated_at: datetime.datetime | None
    finished_at: datetime.datetime | None

    @property
    def finished(self) -> bool:
        return self.state in ("done", "failed")

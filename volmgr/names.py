# SPDX-License-Identifier: Apache-2.0
"""Every name that volmgr gives to something outside itself, each beside its parser.

Backends, targets and audits recognise what is ours by these names alone, so a name is made here or nowhere. Storage is
named after its *object*, a target after the *resource* that it serves (initiators keep their name over a pivot). A
volume's first object has the volume's id, so operators recognise it. This module knows no driver and no database.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_UUID_RE = re.compile(rf"\A{_UUID}\Z")
_OBJECT_RE = re.compile(rf"\A(volume|_snapshot)-({_UUID})\Z")
_TRASH_RE = re.compile(rf"\A_trash-({_UUID})\Z")
_BUILDING_RE = re.compile(rf"\A_building-({_UUID})\Z")
_ACCOUNT_RE = re.compile(r"vm[0-9a-f]{16}")
_UNMANAGED_RE = re.compile(rf"\Aunmanaged-(volume|snapshot)-({_UUID})\Z")
_REPLICA_RE = re.compile(rf"\A_replica-([a-z]+(?:-[a-z]+)?)-({_UUID})-({_UUID})\Z")
_POINT_RE = re.compile(rf"\A_point-({_UUID})-([0-9a-f]{{8}})\Z")
_REPLICA_STATE_RE = re.compile(r"\A[a-z]+(-[a-z]+)?\Z")
_HOST_RE = re.compile(r"\A[A-Za-z0-9_.:-]+(@[A-Za-z0-9_.-]+)?(#[A-Za-z0-9_.+-]+)?\Z")

KINDS = ("volume", "snapshot")
#: What is exported beside them: an object that becomes a volume, to the host from which its bytes come.
INCOMING = "incoming"
EXPORTED = (*KINDS, INCOMING)
#: LVM must never look at these devices: while one is suspended it would wait for it.
GATE_PREFIX = "volmgr-gate-"
_STORPOOL_KINDS = {"volume": "", "snapshot": "snap", "clone": "clone", "image": "image", "backup": "backup"}
LV_TAG_PREFIX = "volmgr."
READ_ONLY_SUFFIX = ".ro"


@dataclass(frozen=True)
class ObjectName:
    """What a backend name says: which kind of resource and which object."""

    kind: str
    object_id: str


def is_uuid(value: object) -> bool:
    """Return whether ``value`` is a UUID in the one form used everywhere: lower case, with hyphens."""
    return isinstance(value, str) and _UUID_RE.match(value) is not None


def object_name(kind: str, object_id: str) -> str:
    """Return the backend name of an object; LVM reserves names that begin with ``snapshot``, hence the underscore."""
    if kind not in KINDS or not is_uuid(object_id):
        raise ValueError(f"no backend name for {kind} {object_id!r}")
    return f"volume-{object_id}" if kind == "volume" else f"_snapshot-{object_id}"


def parse_object_name(name: str) -> ObjectName | None:
    """Return what a name made by :func:`object_name` says, or None for a name that is not ours."""
    match = _OBJECT_RE.match(name)
    if match is None:
        return None
    return ObjectName("volume" if match[1] == "volume" else "snapshot", match[2])


def trash_name(object_id: str) -> str:
    """Return the name that a deleted object bears until it is wiped."""
    if not is_uuid(object_id):
        raise ValueError(f"no trash name for {object_id!r}")
    return f"_trash-{object_id}"


def parse_trash_name(name: str) -> str | None:
    """Return the object id in a trash name, or None for a name that is not ours."""
    match = _TRASH_RE.match(name)
    return match[1] if match else None


def building_name(object_id: str) -> str:
    """Return the name that an object bears while its bytes are incomplete; it is never exported under it."""
    if not is_uuid(object_id):
        raise ValueError(f"no building name for {object_id!r}")
    return f"_building-{object_id}"


def parse_building_name(name: str) -> str | None:
    """Return the object id in a building name, or None for a name that is not ours."""
    match = _BUILDING_RE.match(name)
    return match[1] if match else None


def gate_name(group: str, object_id: str) -> str:
    """Return the device-mapper name of the layer over a logical volume at which its initiators can be made wait."""
    if not is_uuid(object_id):
        raise ValueError(f"no gate name for {object_id!r}")
    return f"{gate_prefix(group)}{object_id}"


def gate_prefix(group: str) -> str:
    """Return what the names of all gates over the volumes of an LVM group begin with."""
    return f"{GATE_PREFIX}{group}-"


def new_account() -> str:
    """Return a CHAP account's name that no other account has. Its password is made with it and never changes."""
    return f"vm{secrets.token_hex(8)}"


def is_account(name: str) -> bool:
    """Return whether :func:`new_account` may have made a name."""
    return _ACCOUNT_RE.fullmatch(name) is not None


def unmanaged_name(kind: str, object_id: str) -> str:
    """Return the name that an object bears once it was let go: not one of ours, and one that LVM accepts.

    A resource made again with the old id can therefore never take the old bytes for its own.
    """
    if kind not in KINDS or not is_uuid(object_id):
        raise ValueError(f"no unmanaged name for {kind} {object_id!r}")
    return f"unmanaged-{kind}-{object_id}"


def parse_unmanaged_name(name: str) -> ObjectName | None:
    """Return what an object was before it was let go, or None for another name."""
    match = _UNMANAGED_RE.match(name)
    return ObjectName(match[1], match[2]) if match else None


def replica_mark(state: str, volume_id: str, object_id: str) -> str:
    """Return the name of the empty object by which a backend notes how the replication of a volume stands.

    :param state: one or two words of lower case letters, with a hyphen between.
    """
    if not _REPLICA_STATE_RE.match(state) or not is_uuid(volume_id) or not is_uuid(object_id):
        raise ValueError(f"no replica mark name for {state!r} {volume_id!r} {object_id!r}")
    return f"_replica-{state}-{volume_id}-{object_id}"


def parse_replica_mark(name: str) -> tuple[str, str, str] | None:
    """Return (state, volume id, object id) of a replica's mark, or None for another name."""
    match = _REPLICA_RE.match(name)
    return (match[1], match[2], match[3]) if match else None


def point_name(object_id: str, number: int) -> str:
    """Return the name of what a volume's object was at one moment, as its replica has it.

    :param number: of the moment, the later the larger.
    """
    if not is_uuid(object_id) or not 0 < number < 1 << 32:
        raise ValueError(f"no point name for {object_id!r} {number!r}")
    return f"_point-{object_id}-{number:08x}"


def parse_point_name(name: str) -> tuple[str, int] | None:
    """Return (object id, number) of a name made by :func:`point_name`, or None for another name."""
    match = _POINT_RE.match(name)
    return (match[1], int(match[2], 16)) if match else None


def target_name(prefix: str, kind: str, resource_id: str, *, read_only: bool = False) -> str:
    """Return the iSCSI qualified name of a resource's target.

    :param prefix: option ``target_prefix``, which ends with a colon or a dot.
    :param read_only: the twin that serves read-only grants where the target cannot tell initiators apart.
    """
    if kind not in EXPORTED or not is_uuid(resource_id):
        raise ValueError(f"no target name for {kind} {resource_id!r}")
    return f"{prefix}{kind}-{resource_id}{READ_ONLY_SUFFIX if read_only else ''}"


def parse_target_name(prefix: str, name: str) -> tuple[str, str, bool] | None:
    """Return (kind, resource id, read only) of a target name with our prefix, or None for a foreign one."""
    kinds = "|".join(EXPORTED)
    match = re.match(rf"\A{re.escape(prefix)}({kinds})-({_UUID})({re.escape(READ_ONLY_SUFFIX)})?\Z", name)
    return (match[1], match[2], match[3] is not None) if match else None


def lv_tags(object_id: str, kind: str, resource_id: str) -> tuple[str, ...]:
    """Return the LVM tags that mark a logical volume as ours and say what it embodies."""
    return (f"{LV_TAG_PREFIX}object={object_id}", f"{LV_TAG_PREFIX}{kind}={resource_id}")


def lv_work_tag(mark: str) -> str:
    """Return the LVM tag that says by which work a logical volume was made, see :mod:`volmgr.drivers.making`."""
    return f"{LV_TAG_PREFIX}work={mark}"


def lv_work(tags: Collection[str]) -> str | None:
    """Return the mark of the work that made a logical volume with these tags, None if they do not say it."""
    prefix = lv_work_tag("")
    return next((tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix)), None)


def new_serial() -> str:
    """Return a random SCSI serial: 32 hex digits, of which LIO makes the NAA from the first 25."""
    return secrets.token_hex(16)


def scsi_id(serial: str) -> str:
    """Return the SCSI identifier that a target reports beside the serial; tgt keeps at most 24 characters of it."""
    return f"VMGR{serial[:20]}"


# --- StorPool: prefix--volume-id, prefix--snap--none--snapshot-id, as os-brick makes them on the other side ---------


def storpool_name(prefix: str, kind: str, object_id: str) -> str:
    """Return the name in StorPool of an object, or of a snapshot that exists only while something is copied.

    :param prefix: ``SP_OPENSTACK_VOLUME_PREFIX`` of storpool.conf.
    :param kind: ``volume`` or ``snapshot``; ``clone``, ``image`` or ``backup`` for what a copy goes through.
    """
    if kind not in _STORPOOL_KINDS or not is_uuid(object_id):
        raise ValueError(f"no StorPool name for {kind} {object_id!r}")
    if kind == "volume":
        return f"{prefix}--volume-{object_id}"
    return f"{prefix}--{_STORPOOL_KINDS[kind]}--none--snapshot-{object_id}"


def storpool_swap_name(prefix: str, object_id: str) -> str:
    """Return the name that a volume bears for the moment in which two volumes exchange their names."""
    return f"{storpool_name(prefix, 'volume', object_id)}--temp--mig"


def parse_storpool_name(prefix: str, name: str) -> ObjectName | None:
    """Return what a name made by :func:`storpool_name` says, or None for a name that is not ours."""
    match = re.match(rf"\A{re.escape(prefix)}--(?:volume|([a-z]+)--none--snapshot)-({_UUID})\Z", name)
    if match is None:
        return None
    kinds = {mark: kind for kind, mark in _STORPOOL_KINDS.items()}
    return ObjectName(kinds[match[1] or ""], match[2]) if (match[1] or "") in kinds else None


# --- hosts: host@backend#pool ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HostName:
    """The parts of ``host@backend#pool``."""

    host: str
    backend: str | None = None
    pool: str | None = None

    @property
    def service(self) -> str:
        """``host@backend``: the worker's name, its RPC server."""
        return f"{self.host}@{self.backend}" if self.backend else self.host

    def __str__(self) -> str:
        return f"{self.service}#{self.pool}" if self.pool else self.service


def parse_host(value: str) -> HostName:
    """Return the parts of ``host@backend#pool``.

    :raises ValueError: it has another form.
    """
    if not isinstance(value, str) or len(value) > 255 or not _HOST_RE.match(value):
        raise ValueError(f"{value!r} is not of the form host@backend#pool")
    service, _, pool = value.partition("#")
    host, _, backend = service.partition("@")
    return HostName(host, backend or None, pool or None)


def service_of(host: str) -> str:
    """Return the worker's name ``host@backend`` of a resource's host."""
    return host.partition("#")[0]


def lock_file_name(service: str) -> str:
    """Return the file name of a worker's incarnation lock."""
    return re.sub(r"[^A-Za-z0-9_.@-]", "_", service) + ".incarnation"

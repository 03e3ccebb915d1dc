# SPDX-License-Identifier: Apache-2.0
"""What ``lvm fullreport`` says of one volume group, typed: sizes in bytes, attribute bits as enumerations.

Sources: lvmreport(7), and the attribute tables of lvs(8), vgs(8) and pvs(8). A letter of a newer LVM becomes UNKNOWN,
so that a report never fails for it. This module starts nothing and knows nothing of volumes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from volmgr.tools.lvm_errors import LvmReportUnreadable


class LvKind(Enum):
    """First letter of lv_attr."""

    PLAIN = "-"
    CACHE = "C"
    MIRRORED = "m"
    MIRRORED_UNSYNCED = "M"
    ORIGIN = "o"
    ORIGIN_MERGING = "O"
    RAID = "r"
    RAID_UNSYNCED = "R"
    SNAPSHOT = "s"
    SNAPSHOT_MERGING = "S"
    PVMOVE = "p"
    VIRTUAL = "v"
    IMAGE = "i"
    IMAGE_UNSYNCED = "I"
    MIRROR_LOG = "l"
    CONVERTING = "c"
    THIN = "V"
    THIN_POOL = "t"
    THIN_POOL_DATA = "T"
    VDO_POOL = "d"
    VDO_POOL_DATA = "D"
    METADATA = "e"
    UNKNOWN = "X"


class Permission(Enum):
    """Second letter of lv_attr."""

    WRITEABLE = "w"
    READ_ONLY = "r"
    READ_ONLY_ACTIVATION = "R"
    NONE = "-"
    UNKNOWN = "X"


class Allocation(Enum):
    """How extents are chosen: third letter of lv_attr in lower case, fifth of vg_attr."""

    ANYWHERE = "a"
    CONTIGUOUS = "c"
    INHERITED = "i"
    CLING = "l"
    NORMAL = "n"
    NONE = "-"
    UNKNOWN = "X"


class LvState(Enum):
    """Fifth letter of lv_attr."""

    INACTIVE = "-"
    ACTIVE = "a"
    HISTORICAL = "h"
    SUSPENDED = "s"
    INVALID_SNAPSHOT = "I"
    INVALID_SUSPENDED_SNAPSHOT = "S"
    MERGE_FAILED = "m"
    MERGE_FAILED_SUSPENDED = "M"
    NO_TABLE = "d"
    INACTIVE_TABLE = "i"
    CHECK_NEEDED = "c"
    CHECK_NEEDED_SUSPENDED = "C"
    UNKNOWN = "X"


class Target(Enum):
    """Seventh letter of lv_attr: which kernel target it is related to."""

    NONE = "-"
    CACHE = "C"
    MIRROR = "m"
    RAID = "r"
    SNAPSHOT = "s"
    THIN = "t"
    UNKNOWN_TARGET = "u"
    VIRTUAL = "v"
    UNKNOWN = "X"


class Health(Enum):
    """Ninth letter of lv_attr."""

    OK = "-"
    PARTIAL = "p"
    REFRESH_NEEDED = "r"
    MISMATCHES = "m"
    WRITE_MOSTLY = "w"
    RESHAPING = "s"
    RESHAPE_REMOVED = "R"
    FAILED = "F"
    OUT_OF_DATA = "D"
    METADATA_READ_ONLY = "M"
    CACHE_ERROR = "E"
    UNKNOWN = "X"


E = TypeVar("E", bound=Enum)


def _letter(kind: type[E], letter: str) -> E:
    try:
        return kind(letter)
    except ValueError:
        return kind("X")


@dataclass(frozen=True)
class LvAttributes:
    """The ten letters of lv_attr."""

    kind: LvKind
    permission: Permission
    allocation: Allocation
    locked: bool
    fixed_minor: bool
    state: LvState
    is_open: bool
    target: Target
    zeroes: bool
    health: Health
    skips_activation: bool

    @classmethod
    def parse(cls, text: str) -> LvAttributes:
        """Return what the letters mean.

        :raises LvmReportUnreadable: there are not ten of them.
        """
        if len(text) != 10:
            raise LvmReportUnreadable(reason=f"lv_attr is {text[:40]!r}")
        return cls(
            kind=_letter(LvKind, text[0]),
            permission=_letter(Permission, text[1]),
            allocation=_letter(Allocation, text[2].lower()),
            locked=text[2].isupper(),
            fixed_minor=text[3] == "m",
            state=_letter(LvState, text[4]),
            is_open=text[5] == "o",
            target=_letter(Target, text[6]),
            zeroes=text[7] == "z",
            health=_letter(Health, text[8]),
            skips_activation=text[9] == "k",
        )


@dataclass(frozen=True)
class VgAttributes:
    """The six letters of vg_attr."""

    writeable: bool
    resizeable: bool
    exported: bool
    partial: bool
    allocation: Allocation
    clustered: bool
    shared: bool

    @classmethod
    def parse(cls, text: str) -> VgAttributes:
        """Return what the letters mean.

        :raises LvmReportUnreadable: there are not six of them.
        """
        if len(text) != 6:
            raise LvmReportUnreadable(reason=f"vg_attr is {text[:40]!r}")
        return cls(
            writeable=text[0] == "w",
            resizeable=text[1] == "z",
            exported=text[2] == "x",
            partial=text[3] == "p",
            allocation=_letter(Allocation, text[4].lower()),
            clustered=text[5] == "c",
            shared=text[5] == "s",
        )


@dataclass(frozen=True)
class PvAttributes:
    """The three letters of pv_attr."""

    duplicate: bool
    allocatable: bool
    used: bool
    exported: bool
    missing: bool

    @classmethod
    def parse(cls, text: str) -> PvAttributes:
        """Return what the letters mean.

        :raises LvmReportUnreadable: there are not three of them.
        """
        if len(text) != 3:
            raise LvmReportUnreadable(reason=f"pv_attr is {text[:40]!r}")
        first = text[0]
        return cls(first == "d", first == "a", first == "u", text[1] == "x", text[2] == "m")


@dataclass(frozen=True)
class LogicalVolume:
    """A logical volume. ``size_bytes`` of a thick snapshot is what it can be read as, ``space_bytes`` what it takes.

    The percentages are None where LVM gives none, for an inactive volume for one. ``metadata_bytes`` is a thin pool's.
    """

    name: str
    uuid: str
    attributes: LvAttributes
    size_bytes: int
    space_bytes: int
    origin: str
    pool: str
    data_percent: float | None
    metadata_percent: float | None
    tags: frozenset[str]
    active: bool
    metadata_bytes: int = 0

    @property
    def thin(self) -> bool:
        return self.attributes.kind is LvKind.THIN

    @property
    def thick_snapshot(self) -> bool:
        return self.attributes.kind in (LvKind.SNAPSHOT, LvKind.SNAPSHOT_MERGING)

    @property
    def overflowed(self) -> bool:
        """Whether it is a thick snapshot that had no room for what changed; its bytes are lost."""
        return self.attributes.state in (LvState.INVALID_SNAPSHOT, LvState.INVALID_SUSPENDED_SNAPSHOT)


@dataclass(frozen=True)
class PhysicalVolume:
    """A physical volume of the group."""

    name: str
    uuid: str
    attributes: PvAttributes
    size_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Report:
    """A volume group as it was at one moment."""

    name: str
    uuid: str
    attributes: VgAttributes
    size_bytes: int
    free_bytes: int
    extent_bytes: int
    tags: frozenset[str]
    missing_pvs: int
    volumes: Mapping[str, LogicalVolume] = field(default_factory=dict)
    physical: tuple[PhysicalVolume, ...] = ()

    def rounded(self, size_bytes: int) -> int:
        """Return the size that a logical volume of ``size_bytes`` gets: a multiple of the extents."""
        return -(-size_bytes // self.extent_bytes) * self.extent_bytes

    def thick_snapshots_of(self, name: str) -> list[LogicalVolume]:
        """Return the thick snapshots that need the volume ``name``."""
        return [item for item in self.volumes.values() if item.thick_snapshot and item.origin == name]


#: What comes of a text that has not the form that is read here.
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)

#: Columns by kind of subreport; each kind has to have one.
COLUMNS = {
    "vg": "vg_name,vg_uuid,vg_attr,vg_size,vg_free,vg_extent_size,vg_tags,vg_missing_pv_count",
    "pv": "pv_name,pv_uuid,pv_attr,pv_size,pv_free",
    "lv": "lv_name,lv_uuid,lv_attr,lv_size,origin,origin_size,pool_lv,data_percent,metadata_percent,lv_tags,lv_active,"
    "lv_metadata_size",
    "pvseg": "pvseg_start",
    "seg": "lv_name",
}


def arguments(group: str) -> list[str]:
    """Return the command line of the report on ``group``."""
    columns = [word for kind, names in COLUMNS.items() for word in ("--configreport", kind, "-o", names)]
    return ["lvm", "fullreport", "--reportformat", "json", "--units", "b", "--nosuffix", *columns, group]


def parse(text: str) -> Report | None:
    """Return what a report says, None if it names no group.

    :raises LvmReportUnreadable: it has another form.
    """
    try:
        groups = json.loads(text)["report"]
        if not groups:
            return None
        return _group(groups[0])
    except _UNREADABLE as error:
        raise LvmReportUnreadable(reason=f"{type(error).__name__}: {error}"[:200]) from error


def parse_extents(text: str) -> dict[str, list[str]]:
    """Return the extents of each logical volume, the hidden ones too, as ``lvs -a -o lv_name,seg_pe_ranges`` says.

    :raises LvmReportUnreadable: it has another form.
    """
    found: dict[str, list[str]] = {}
    try:
        for row in json.loads(text)["report"][0]["lv"]:
            found.setdefault(_bare(row["lv_name"]), []).extend(row["seg_pe_ranges"].split())
    except _UNREADABLE as error:
        raise LvmReportUnreadable(reason=f"{type(error).__name__}: {error}"[:200]) from error
    return found


def physical_extents(ranges: Mapping[str, list[str]], volume: str) -> tuple[str, ...]:
    """Return where the bytes of ``volume`` lie on disks; a mirrored one's are those of its hidden copies."""
    found: list[str] = []
    seen, left = {volume}, list(reversed(ranges.get(volume, ())))
    while left:
        item = left.pop()
        below = item.rpartition(":")[0]
        if below not in ranges:
            found.append(item)
        elif below not in seen:
            seen.add(below)
            left += reversed(ranges[below])
    return tuple(found)


def _group(subreports: Mapping[str, Any]) -> Report:
    vg = subreports["vg"][0]
    volumes = [_volume(row) for row in subreports.get("lv", ())]
    return Report(
        name=vg["vg_name"],
        uuid=vg["vg_uuid"],
        attributes=VgAttributes.parse(vg["vg_attr"]),
        size_bytes=_bytes(vg["vg_size"]),
        free_bytes=_bytes(vg["vg_free"]),
        extent_bytes=_bytes(vg["vg_extent_size"], 1),
        tags=_tags(vg["vg_tags"]),
        missing_pvs=int(vg["vg_missing_pv_count"] or 0),
        volumes={item.name: item for item in volumes},
        physical=tuple(_physical(row) for row in subreports.get("pv", ())),
    )


def _volume(row: Mapping[str, str]) -> LogicalVolume:
    attributes = LvAttributes.parse(row["lv_attr"])
    space = _bytes(row["lv_size"])
    snapshot = attributes.kind in (LvKind.SNAPSHOT, LvKind.SNAPSHOT_MERGING)
    return LogicalVolume(
        name=_bare(row["lv_name"]),
        uuid=row["lv_uuid"],
        attributes=attributes,
        size_bytes=_bytes(row["origin_size"] or space) if snapshot else space,
        space_bytes=space,
        origin=_bare(row["origin"]),
        pool=_bare(row["pool_lv"]),
        data_percent=_percent(row["data_percent"]),
        metadata_percent=_percent(row["metadata_percent"]),
        tags=_tags(row["lv_tags"]),
        active=row["lv_active"].startswith("active"),
        metadata_bytes=_bytes(row.get("lv_metadata_size") or 0),
    )


def _physical(row: Mapping[str, str]) -> PhysicalVolume:
    return PhysicalVolume(
        row["pv_name"],
        row["pv_uuid"],
        PvAttributes.parse(row["pv_attr"]),
        _bytes(row["pv_size"]),
        _bytes(row["pv_free"]),
    )


def _bytes(value: Any, least: int = 0) -> int:
    """Return a number of bytes; what is none, or too small, is a ValueError."""
    size = int(value) if isinstance(value, str | int) else -1
    if not least <= size < 2**64:
        raise ValueError(f"{str(value)[:40]!r} is no number of bytes")
    return size


def _bare(name: str) -> str:
    # LVM shows what it hides in brackets.
    return name.strip().strip("[]")


def _tags(text: str) -> frozenset[str]:
    return frozenset(text.split(",")) if text else frozenset()


def _percent(text: str) -> float | None:
    return float(text) if text else None

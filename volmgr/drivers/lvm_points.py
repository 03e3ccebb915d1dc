# SPDX-License-Identifier: Apache-2.0
"""Replicas on LVM: what there is of a volume on each of two sides, a volume group with a thin pool each.

A *point* is a thin snapshot of a volume as it was at one moment. On the side that is used it is taken; on the other
it is made of an earlier point that both sides have and the blocks in which the two differ, and gets the tag that says
"whole" as the last act. All that is known of a replica stands in these names and tags, so a process may end at any
moment. It knows no driver, and changes nothing.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from volmgr import names
from volmgr.drivers.lvm_pool import ThinPool
from volmgr.tools.lvm import VolumeGroup
from volmgr.tools.lvm_gate import Gates
from volmgr.tools.lvm_report import LogicalVolume, Report

_REPLICA = f"{names.LV_TAG_PREFIX}replica="
_POINT = f"{names.LV_TAG_PREFIX}point="
_TAKEN = f"{names.LV_TAG_PREFIX}taken="
_FROM = f"{names.LV_TAG_PREFIX}from="
_VOLUME = f"{names.LV_TAG_PREFIX}volume="

#: what the tag of a volume says of its replica: it follows; it does not; the volume itself is older than it was.
FOLLOWS, STOPPED, STALE = "follows", "stopped", "stale"
#: what the tag of a point says: it has all bytes of its moment; it has too, and must not be taken for the volume.
WHOLE, BASE = "whole", "base"


@dataclass(frozen=True)
class Side:
    """One of the two places, and the commands on it."""

    backend_id: str
    vg: VolumeGroup
    pool: str
    thin_pool: ThinPool
    gates: Gates

    def __str__(self) -> str:
        return f"{self.vg.name}/{self.pool}"


@dataclass(frozen=True)
class Point:
    """What a volume was at one moment, on one side.

    :ivar number: of the moment. :ivar taken: when, as text. :ivar state: WHOLE, BASE, or nothing while it is made.
    """

    name: str
    number: int
    taken: str
    state: str
    size_bytes: int

    @property
    def complete(self) -> bool:
        return self.state in (WHOLE, BASE)

    @property
    def moment(self) -> datetime.datetime:
        """When it was taken; the beginning of time if its tag does not say it."""
        try:
            return datetime.datetime.fromisoformat(self.taken)
        except ValueError:
            return datetime.datetime.fromtimestamp(0, datetime.UTC)


def points_of(found: Report, object_id: str) -> list[Point]:
    """Return the points of an object that a side has, the newest first."""
    made = []
    for item in found.volumes.values():
        parsed = names.parse_point_name(item.name)
        if parsed is not None and parsed[0] == object_id:
            taken, state = _said(item, _TAKEN) or "", _said(item, _POINT) or ""
            made.append(Point(item.name, parsed[1], taken, state, item.size_bytes))
    return sorted(made, key=lambda item: item.number, reverse=True)


def newest_whole(found: Report, object_id: str) -> Point | None:
    """Return the last state of an object that may be taken for it, None if a side has none."""
    return next((item for item in points_of(found, object_id) if item.state == WHOLE), None)


def common(here: list[Point], there: list[Point]) -> Point | None:
    """Return the newest point whose bytes both sides have."""
    complete = {(item.number, item.taken) for item in there if item.complete and item.taken}
    return next((item for item in here if item.complete and (item.number, item.taken) in complete), None)


def replicated(found: Report) -> dict[str, str]:
    """Return the volumes that have a replica or are to have one: the object's id, and the volume's."""
    made = {}
    for item in found.volumes.values():
        parsed = names.parse_object_name(item.name)
        if parsed is not None and parsed.kind == "volume" and stance(item) is not None:
            made[parsed.object_id] = _said(item, _VOLUME) or parsed.object_id
    return made


def stance(volume: LogicalVolume | None) -> str | None:
    """Return what a volume's tag says of its replica, None if it has none."""
    return None if volume is None else _said(volume, _REPLICA)


def origin_of(volume: LogicalVolume) -> int | None:
    """Return the number of the point that a volume was made from, None if from none."""
    said = _said(volume, _FROM)
    return int(said) if said is not None and said.isdigit() else None


def stance_tag(said: str) -> str:
    """Return the tag that says how a volume stands to its replica."""
    return _REPLICA + said


def stance_tags(said: str) -> tuple[list[str], list[str]]:
    """Return the tags to add and to remove, so that a volume's say this and nothing else."""
    return [_REPLICA + said], [_REPLICA + item for item in (FOLLOWS, STOPPED, STALE) if item != said]


def point_tag(state: str) -> str:
    """Return the tag that says whether a point may be used."""
    return _POINT + state


def taken_tag(moment: datetime.datetime) -> str:
    """Return the tag that says when a point was taken."""
    return _TAKEN + moment.isoformat(timespec="microseconds")


def from_tag(number: int) -> str:
    """Return the tag that says from which point a volume was made."""
    return f"{_FROM}{number}"


def _said(item: LogicalVolume, prefix: str) -> str | None:
    return next((tag.removeprefix(prefix) for tag in item.tags if tag.startswith(prefix)), None)

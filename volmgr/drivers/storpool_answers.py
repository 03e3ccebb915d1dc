# SPDX-License-Identifier: Apache-2.0
"""What StorPool's API must tell of a thing for the drivers to work with it; anything else is no answer.

The fields and their types are those of StorPool's own description of its API (the types VolumeSummary, SnapshotSummary,
AttachmentDesc, VolumeTemplateDesc and UpDiskSummary of the package storpool). Further fields are let through unread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: ``generationLeft`` of a disk that works.
PRESENT = -1


def stored(value: Any) -> list[dict[str, Any]]:
    """Return a list of volumes or snapshots.

    :raises ValueError: it is none.
    """
    found = []
    for item in _list(value):
        _text(item, "name")
        _text(item, "templateName")
        _text(item, "globalId")
        _count(item, "size", 1)
        if not isinstance(item.get("tags") or {}, Mapping):
            raise ValueError("tags is no object")
        found.append(item)
    return found


def attachments(value: Any) -> list[dict[str, Any]]:
    """Return a list of who has what attached; a resource of an older cluster may have no global id.

    :raises ValueError: it is none.
    """
    found = _list(value)
    for item in found:
        if "globalId" in item:
            _text(item, "globalId")
    return found


def templates(value: Any) -> list[dict[str, Any]]:
    """Return a list of volume templates.

    :raises ValueError: it is none.
    """
    found = []
    for item in _list(value):
        _text(item, "name")
        if item.get("replication") != "-":
            _count(item, "replication", 1)
        found.append(item)
    return found


def disks(value: Any) -> dict[str, dict[str, Any]]:
    """Return disks by their ids.

    :raises ValueError: they are none.
    """
    if not isinstance(value, dict):
        raise ValueError("the disks are no object")
    for item in _list(list(value.values())):
        _count(item, "generationLeft", PRESENT)
        if item["generationLeft"] == PRESENT:
            _count(item, "agCount", 0)
            _count(item, "agFree", 0)
    return value


def _list(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("it is no list of objects")
    return value


def _text(item: Mapping[str, Any], name: str) -> None:
    if not isinstance(item.get(name), str):
        raise ValueError(f"{name} is no text")


def _count(item: Mapping[str, Any], name: str, least: int) -> None:
    value = item.get(name)
    # The largest is far beyond what any cluster has, and what a float can still be made of.
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
        raise ValueError(f"{name} is no number from {least} on")

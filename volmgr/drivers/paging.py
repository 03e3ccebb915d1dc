# SPDX-License-Identifier: Apache-2.0
"""The order and the pages of a list of what could be managed. It knows no storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from volmgr import exception

DIRECTIONS = ("asc", "desc")


def page(
    entries: Sequence[dict[str, Any]],
    marker: str | Mapping[str, Any] | None,
    limit: int | None,
    offset: int | None,
    sort_keys: Sequence[str] | None,
    sort_dirs: Sequence[str] | None,
) -> list[dict[str, Any]]:
    """Return one page of ``entries``, sorted.

    :param marker: the reference (or its ``source-name``) of the last entry of the page before; None for the first page.
    :param limit: how many entries at most, None for all.
    :param offset: how many entries to leave out after the marker.
    :param sort_keys: keys of the entries, ``reference`` by default; equal ones go by reference.
    :param sort_dirs: ``asc`` or ``desc`` for each key; the last one counts for the keys behind it.
    :raises Invalid: an argument makes no sense; ``field`` names it.
    """
    for field, value in (("limit", limit), ("offset", offset)):
        if value is not None and value < 0:
            raise exception.Invalid(f"{field} cannot be less than 0", field=field)
    ordered = sorted(entries, key=_reference)
    keys, directions = list(sort_keys or ["reference"]), list(sort_dirs or ["asc"])
    if len(directions) > len(keys):
        raise exception.Invalid("There are more directions than keys to sort by", field="sort_dirs")
    directions += directions[-1:] * (len(keys) - len(directions))
    # The sort is stable, so the least important key goes first.
    for key, direction in reversed(list(zip(keys, directions, strict=True))):
        if direction not in DIRECTIONS:
            raise exception.Invalid(f"A direction is asc or desc, not {direction!r}", field="sort_dirs")
        if any(key not in entry for entry in entries):
            raise exception.Invalid(f"The entries have no {key!r} to sort by", field="sort_keys")
        ordered.sort(key=lambda entry, key=key: _sortable(entry, key), reverse=direction == "desc")  # type: ignore[misc]
    start = _after(ordered, marker) + (offset or 0)
    return ordered[start : None if limit is None else start + limit]


def _reference(entry: Mapping[str, Any]) -> str:
    return str(entry["reference"].get("source-name", ""))


def _sortable(entry: Mapping[str, Any], key: str) -> tuple[bool, Any]:
    value = entry[key]
    if isinstance(value, Mapping):
        value = str(value.get("source-name", ""))
    return (value is not None, value if value is not None else 0)


def _after(ordered: Sequence[Mapping[str, Any]], marker: str | Mapping[str, Any] | None) -> int:
    if marker is None:
        return 0
    name = marker.get("source-name") if isinstance(marker, Mapping) else marker
    for index, entry in enumerate(ordered):
        if _reference(entry) == name:
            return index + 1
    raise exception.Invalid(f"There is no entry {name!r} to go on from", field="marker")

# SPDX-License-Identifier: Apache-2.0
"""How a volume's type asks for a replica, for every driver that has them. It knows no driver and no storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from volmgr.types import Volume

#: what drivers call the storage that a backend began on.
PRIMARY = "default"
#: the extra specs that ask for a replica.
SPECS = ("replication", "capabilities:replication")


def wants_replica(volume: Volume) -> bool:
    """Return whether the type of ``volume`` asks for a replica."""
    specs = volume.volume_type.extra_specs if volume.volume_type is not None else {}
    return any(is_true(specs.get(key)) for key in SPECS)


def changed(diff: Mapping[str, Any]) -> bool | None:
    """Return whether a retype asks for a replica, None if it says nothing of one.

    :param diff: with ``extra_specs``, a mapping of names to pairs of the old and the new value.
    """
    specs = (diff or {}).get("extra_specs") or {}
    found = next((specs[key] for key in SPECS if key in specs), None)
    return None if found is None else is_true(found[1])


def is_true(value: str | None) -> bool:
    """Return whether an extra spec says ``<is> True``."""
    return value is not None and value.replace("<is>", " ").strip().lower() == "true"

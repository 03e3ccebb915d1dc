# SPDX-License-Identifier: Apache-2.0
"""What a volume's QoS means for it: limits that grow with its size are worked out here.

Keys are those that compute services know: ``read_iops_sec``, ``write_iops_sec``, ``total_iops_sec``,
``read_bytes_sec``, ``write_bytes_sec``, ``total_bytes_sec``. Each can be given as ``KEY_per_gb`` instead, with
``KEY_per_gb_min`` as the least and ``KEY_max`` as the most that comes out. All other keys are passed on as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from volmgr import types, validate

FRONT_END, BACK_END, BOTH = "front-end", "back-end", "both"
CONSUMERS = (FRONT_END, BACK_END, BOTH)
TUNABLE = tuple(f"{what}_{unit}_sec" for what in ("read", "write", "total") for unit in ("iops", "bytes"))
_NUMERIC = frozenset(f"{key}{suffix}" for key in TUNABLE for suffix in ("", "_per_gb", "_per_gb_min", "_max"))
_LIMIT = 2**63 - 1


def front_end(resource: types.Volume | types.Snapshot) -> dict[str, Any] | None:
    """Return the limits that the compute service is to keep, None for none."""
    return _for(resource, FRONT_END)


def back_end(resource: types.Volume | types.Snapshot) -> dict[str, Any] | None:
    """Return the limits that the driver is to keep, None for none."""
    return _for(resource, BACK_END)


def _for(resource: types.Volume | types.Snapshot, consumer: str) -> dict[str, Any] | None:
    volume = resource.volume if isinstance(resource, types.Snapshot) else resource
    kind = volume.volume_type if volume is not None else None
    if kind is None or kind.qos_specs is None or kind.qos_specs["consumer"] not in (consumer, BOTH):
        return None
    return sized(kind.qos_specs["specs"], resource.size)


def sized(specs: Mapping[str, str], size: int) -> dict[str, Any]:
    """Return specs with the limits for each GiB worked out.

    :param size: GiB.
    """
    made: dict[str, Any] = dict(specs)
    for key in TUNABLE:
        if f"{key}_per_gb" not in made:
            continue
        value = max(int(made.pop(f"{key}_per_gb")) * size, int(made.pop(f"{key}_per_gb_min", 0)))
        made[key] = str(min(value, int(made.pop(f"{key}_max", value))))
    return made


def check_specs(field: str, value: Any) -> dict[str, str | None]:
    """Return specs of a request: texts by name, limits as whole numbers; None removes one.

    :raises Invalid: naming the spec that is wrong.
    """
    checked = validate.specs(field, value)
    for key, text in checked.items():
        if key in _NUMERIC and text is not None and not (text.isascii() and text.isdigit() and int(text) <= _LIMIT):
            raise validate.invalid(f"{field}[{key}]", "must be a whole number from 0", text)
    return checked

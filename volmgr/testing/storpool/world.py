# SPDX-License-Identifier: Apache-2.0
"""What a cluster holds, as plain data that can be written down and read again. Knows no call."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_COUNT = 2000
_FREE = 1500
CLUSTER_ID = "b.c"


def _disk(number: int, **values: Any) -> dict[str, Any]:
    base = {
        "id": number,
        "serverId": number // 100 or 1,
        "ssd": True,
        "generationLeft": -1,
        "model": "MODEL",
        "serial": f"S{number}",
        "description": "",
        "softEject": "off",
    }
    counts = dict.fromkeys(("objectsCount", "objectsAllocated", "objectsFree", "objectsOnDiskSize"), 0)
    counts |= dict.fromkeys(("entriesCount", "entriesAllocated", "entriesFree"), 0)
    counts |= dict.fromkeys(("scrubbingStartedBefore", "scrubbedBytes", "scrubbingBW", "scrubbingFinishAfter"), 0)
    counts |= dict.fromkeys(("scrubbingPausedFor", "lastScrubCompleted"), 0)
    flags = dict.fromkeys(("empty", "noFua", "noFlush", "noTrim", "isWbc", "journaled", "scrubbingPaused"), False)
    groups = {"agCount": _COUNT, "agAllocated": _COUNT - _FREE, "agFree": _FREE}
    return {**base, "sectorsCount": _COUNT * 1024 * 1024, "device": "/dev/sdX", **counts, **flags, **groups, **values}


def _down(number: int) -> dict[str, Any]:
    whole = _disk(number, generationLeft=17)
    kept = ("id", "serverId", "ssd", "generationLeft", "model", "serial", "description", "softEject")
    return {name: whole[name] for name in kept}


def _template(number: int, name: str, replication: int | str) -> dict[str, Any]:
    return {
        "id": number,
        "name": name,
        "parentName": "",
        "placeAll": "hdd",
        "placeTail": "ssd",
        "placeHead": "hdd",
        "size": "-",
        "replication": replication,
        "bw": "-",
        "iops": "-",
    }


#: Three disks that work and one that has left.
DISKS = (_disk(101), _disk(201), _disk(301), _down(401))
TEMPLATES = (_template(1, "hybrid", 3), _template(2, "fast", 2), _template(3, "plain", "-"))


@dataclass
class Item:
    """A volume or a snapshot. ``on`` is the volume that a snapshot was taken of, both it and ``parent`` by number."""

    number: int
    kind: str
    name: str
    size: int
    template: str
    copies: int
    tags: dict[str, str] = field(default_factory=dict)
    parent: int | None = None
    on: int | None = None
    created: int = 0
    auto_name: bool = False
    bound: bool = False
    deleted: bool = False
    transient: bool = False

    @property
    def global_id(self) -> str:
        """The name that never changes."""
        return f"{CLUSTER_ID}.{_base36(self.number)}"


@dataclass
class World:
    """Everything that a cluster holds. ``attached`` is number of item → id of client → rights."""

    generation: int = 0
    last: int = 0
    items: dict[int, Item] = field(default_factory=dict)
    attached: dict[int, dict[int, str]] = field(default_factory=dict)
    opened: set[tuple[int, int]] = field(default_factory=set)

    @classmethod
    def load(cls, file: Path) -> World:
        """Return what :meth:`dump` wrote down."""
        data = json.loads(file.read_text())
        return cls(
            data["generation"],
            data["last"],
            {item["number"]: Item(**item) for item in data["items"]},
            {number: {int(client): rights for client, rights in who.items()} for number, who in data["attached"]},
            {(number, client) for number, client in data["opened"]},
        )

    def dump(self) -> dict[str, Any]:
        """Return everything as JSON."""
        return {
            "generation": self.generation,
            "last": self.last,
            "items": [dataclasses.asdict(item) for item in self.items.values()],
            "attached": [[number, who] for number, who in self.attached.items()],
            "opened": sorted(self.opened),
        }

    def add(self, kind: str, name: str | None, size: int, **values: Any) -> Item:
        """Enter a new volume or snapshot; one without a name gets one that nobody can ask for."""
        self.last += 1
        item = Item(self.last, kind, name or f"*{self.last}", size, created=int(time.time()), **values)
        self.items[item.number] = item
        return item

    def clear(self) -> None:
        """Forget everything but the numbers that were given."""
        self.items.clear()
        self.attached.clear()
        self.opened.clear()


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = digits[digit] + text
    return text or "0"

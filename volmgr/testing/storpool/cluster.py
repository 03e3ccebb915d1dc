# SPDX-License-Identifier: Apache-2.0
"""A StorPool cluster in small: what it holds, and what each call does to that. Knows no HTTP.

Every call is one act under one lock and is on disk before it is answered, so a server that is killed and started again
on the same folder goes on where it was. Without a folder all of it is in memory.
"""

from __future__ import annotations

import copy
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from volmgr.testing.storpool.attachments import Attachments
from volmgr.testing.storpool.blocks import Blocks, MemoryBlocks
from volmgr.testing.storpool.contract import ApiError
from volmgr.testing.storpool.devices import Devices
from volmgr.testing.storpool.world import DISKS, TEMPLATES, Item, World

OBJECT_BYTES = 32 * 1024 * 1024


class Cluster:
    """The verbs of the API, by the names of their calls.

    :param folder: where state and bytes are, None for memory.
    :param clients: the ids of the clients that are registered.
    :param devices: where links to attached volumes appear, None for nowhere.
    """

    def __init__(self, folder: Path | None, clients: set[int], devices: Devices | None = None) -> None:
        self.lock = threading.RLock()
        self._devices = devices
        self._file: Path | None = None
        self.blocks: Blocks | MemoryBlocks = MemoryBlocks()
        self.world = World()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.blocks = Blocks(folder / "data")
            self._file = folder / "state.json"
            if self._file.exists():
                self.world = World.load(self._file)
        self.attachments = Attachments(self.world, clients)
        self._forget_half_made()

    def twin(self) -> Cluster:
        """Return another cluster with the same in it, both in memory."""
        assert isinstance(self.blocks, MemoryBlocks)
        made = Cluster(None, self.attachments.clients)
        made.world = copy.deepcopy(self.world)
        made.attachments = Attachments(made.world, self.attachments.clients)
        made.blocks = self.blocks.twin()
        return made

    # --- looking ------------------------------------------------------------------------------------------------

    def call(self, name: str, argument: str, data: Any) -> Any:
        """Do a call; its request has been checked against its schema.

        :returns: the reply's data. :raises ApiError: it is refused, and has changed nothing.
        """
        verb: Callable[[str, Any], Any] = getattr(self, f"do_{name}")
        with self.lock:
            return verb(argument, data)

    def do_DisksList(self, _argument: str, _data: None) -> dict[str, Any]:
        return {str(disk["id"]): disk for disk in DISKS}

    def do_VolumeTemplatesList(self, _argument: str, _data: None) -> list[dict[str, Any]]:
        return [dict(template) for template in TEMPLATES]

    def do_VolumesList(self, _argument: str, _data: None) -> list[dict[str, Any]]:
        return [self._summary(item) for item in self.world.items.values() if item.kind == "volume"]

    def do_SnapshotsList(self, _argument: str, _data: None) -> list[dict[str, Any]]:
        return [self._summary(item) for item in self.world.items.values() if item.kind == "snapshot"]

    def do_Volume(self, argument: str, _data: None) -> list[dict[str, Any]]:
        return [self._summary(self.find("volume", argument))]

    def do_Snapshot(self, argument: str, _data: None) -> list[dict[str, Any]]:
        return [self._summary(self.find("snapshot", argument))]

    def do_VolumeGetInfo(self, argument: str, _data: None) -> dict[str, Any]:
        detail = {"disksCount": len(DISKS), "objectsPerDisk": {}, "objectsPerChain": [], "objectsPerDiskSet": []}
        return {**self._summary(self.find("volume", argument)), **detail}

    def do_AttachmentsList(self, _argument: str, _data: None) -> list[dict[str, Any]]:
        return [
            {
                "volume": item.name,
                "snapshot": item.kind == "snapshot",
                "client": client,
                "rights": rights,
                "pos": item.number,
                "globalId": item.global_id,
            }
            for item in self.world.items.values()
            for client, rights in self.attachments.of(item).items()
        ]

    # --- volumes ------------------------------------------------------------------------------------------------

    def do_VolumeCreate(self, _argument: str, data: dict[str, Any]) -> dict[str, Any]:
        self._free_name("volume", data["name"])
        source = self._source(data)
        size = int(data.get("size") or (source.size if source is not None else 0))
        if source is not None and size < source.size:
            raise ApiError("invalidParam", f"The size {size} is less than that of {source.name}, {source.size}")
        policy = self._policy(data) if source is None else {"template": source.template, "copies": source.copies}
        auto = None
        if source is not None and source.kind == "volume":
            auto = source = self._snapshot_of(source, name=None, transient=True)
        item = self.world.add("volume", data["name"], size, tags=data.get("tags", {}), **policy)
        if source is None:
            self.blocks.create(item.number, size)
        else:
            item.parent = source.number
            self.blocks.copy(source.number, item.number, size)
        return self._done(name=item.name, globalId=item.global_id, **({"autoName": auto.name} if auto else {}))

    def _source(self, data: dict[str, Any]) -> Item | None:
        if "parent" in data:
            return self.find("snapshot", data["parent"])
        return self.find("volume", data["baseOn"]) if "baseOn" in data else None

    def do_VolumeUpdate(self, argument: str, data: dict[str, Any]) -> dict[str, Any]:
        item = self.find("volume", argument)
        size = data.get("size", item.size)
        if size < item.size and not data.get("shrinkOk"):
            raise ApiError("invalidParam", f"{item.name} would shrink from {item.size} to {size}; say shrinkOk")
        self._change(item, data)
        if size != item.size:
            item.size = size
            self.blocks.resize(item.number, size)
            self._show_size(item)
        return self._done()

    def do_VolumeDelete(self, argument: str, _data: None) -> dict[str, Any]:
        item = self.find("volume", argument)
        self.attachments.refuse_attached(item)
        self._remove(item)
        return self._done()

    def do_VolumeRevert(self, argument: str, data: dict[str, Any]) -> dict[str, Any]:
        item, snapshot = self.find("volume", argument), self.find("snapshot", data["toSnapshot"])
        self.attachments.refuse_attached(item)
        if snapshot.on != item.number:
            raise ApiError("invalidParam", f"{snapshot.name} is not a snapshot of {item.name}")
        item.parent = snapshot.number
        # Without revertSize, which this version of the API does not have, the volume keeps its size.
        self.blocks.copy(snapshot.number, item.number, item.size)
        return self._done()

    # --- snapshots ----------------------------------------------------------------------------------------------

    def do_VolumeSnapshot(self, argument: str, data: dict[str, Any]) -> dict[str, Any]:
        item = self.find("volume", argument)
        self._free_name("snapshot", data["name"])
        made = self._snapshot_of(item, name=data["name"], bound=data.get("bind", False), tags=data.get("tags", {}))
        return self._done(snapshotGlobalId=made.global_id)

    def do_VolumesGroupSnapshot(self, _argument: str, data: dict[str, Any]) -> dict[str, Any]:
        wanted = [(self.find("volume", entry["volume"]), entry) for entry in data["volumes"]]
        for found, what in (
            ([item.number for item, _entry in wanted], "volume"),
            ([entry["name"] for _item, entry in wanted], "name"),
        ):
            if len(set(found)) < len(found):
                raise ApiError("invalidParam", f"VolumesGroupSnapshot: a {what} comes twice")
        for _item, entry in wanted:
            self._free_name("snapshot", entry["name"])
        # One lock holds off every other call, and whoever writes through the server: all are of one instant.
        made = []
        for item, entry in wanted:
            tags = {**data.get("tags", {}), **entry.get("tags", {})}
            made.append((item, self._snapshot_of(item, name=entry["name"], tags=tags)))
        self._done()
        return {
            "snapshots": [
                {
                    "volume": item.name,
                    "volumeGlobalId": item.global_id,
                    "snapshot": snapshot.name,
                    "snapshotGlobalId": snapshot.global_id,
                    "remoteId": snapshot.global_id,
                }
                for item, snapshot in made
            ]
        }

    def _snapshot_of(self, volume: Item, *, name: str | None, **marks: Any) -> Item:
        """Make a snapshot, which becomes the parent of its volume."""
        made = self.world.add("snapshot", name, volume.size, template=volume.template, copies=volume.copies, **marks)
        made.parent, made.on, made.auto_name = volume.parent, volume.number, name is None
        volume.parent = made.number
        self.blocks.copy(volume.number, made.number, volume.size)
        return made

    def do_SnapshotUpdate(self, argument: str, data: dict[str, Any]) -> dict[str, Any]:
        item = self.find("snapshot", argument)
        self._change(item, data)
        item.bound = data.get("bind", item.bound)
        return self._done()

    def do_SnapshotDelete(self, argument: str, _data: None) -> dict[str, Any]:
        item = self.find("snapshot", argument)
        self.attachments.refuse_attached(item)
        if any(other.parent == item.number for other in self.world.items.values()):
            # It stays as long as something is based on it, under a name that nobody can ask for again.
            item.deleted, item.auto_name, item.name = True, True, f"*{item.number}"
        else:
            self._remove(item)
        return self._done()

    # --- attaching ----------------------------------------------------------------------------------------------

    def do_VolumesReassign(self, _argument: str, data: list[dict[str, Any]]) -> dict[str, Any]:
        wishes = [(self._named(entry), entry) for entry in data]
        self.attachments.reassign(wishes)
        if self._devices is not None:
            for item, _entry in wishes:
                self._devices.follow(item, self.blocks.path(item.number), self.attachments.of(item))
        return self._done()

    def do_VolumesReassignWait(self, argument: str, data: dict[str, Any]) -> dict[str, Any]:
        return self.do_VolumesReassign(argument, data["reassign"])

    def _named(self, entry: dict[str, Any]) -> Item:
        kind = "volume" if "volume" in entry else "snapshot"
        return self.find(kind, entry[kind])

    def _show_size(self, item: Item) -> None:
        if self._devices is not None:
            self._devices.grown(item)

    # --- what the verbs share -----------------------------------------------------------------------------------

    def find(self, kind: str, name: str) -> Item:
        """Return the volume or snapshot of that name, or of that global id after ``~``.

        :raises ApiError: there is none.
        """
        for item in self.world.items.values():
            if item.kind == kind and name in (item.name, f"~{item.global_id}"):
                return item
        raise ApiError("objectDoesNotExist", f"There is no {kind} {name}")

    def _free_name(self, kind: str, name: str) -> None:
        if any(item.kind == kind and item.name == name for item in self.world.items.values()):
            raise ApiError("objectExists", f"There is a {kind} {name} already")

    def _policy(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the settings that a request asks for: of a template, or a number of copies."""
        name = data.get("template")
        if name is None:
            return {"template": "", "copies": data["replication"]}
        found = next((item for item in TEMPLATES if item["name"] == name), None)
        if found is None:
            raise ApiError("objectDoesNotExist", f"There is no template {name}")
        return {"template": name, "copies": found["replication"] if found["replication"] != "-" else 3}

    def _change(self, item: Item, data: dict[str, Any]) -> None:
        """Apply what updates of volumes and snapshots have in common; all is checked before anything changes."""
        if "rename" in data:
            self._free_name(item.kind, data["rename"])
        policy = self._policy(data) if "template" in data else {}
        item.name = data.get("rename", item.name)
        item.template = policy.get("template", item.template)
        item.copies = data.get("replication", policy.get("copies", item.copies))
        item.tags = {**item.tags, **data.get("tags", {})}
        if "rename" in data and self._devices is not None:
            self._devices.follow(item, self.blocks.path(item.number), self.attachments.of(item))

    def _remove(self, item: Item) -> None:
        del self.world.items[item.number]
        self.blocks.remove(item.number)
        self._collect()

    def _collect(self) -> None:
        """Remove what was kept only as a parent."""
        parents = {item.parent for item in self.world.items.values()}
        for item in list(self.world.items.values()):
            kept_for_children = item.deleted or item.transient or item.bound
            if item.kind == "snapshot" and kept_for_children and item.number not in parents:
                self._remove(item)
                return

    def _done(self, **answer: Any) -> dict[str, Any]:
        """Write the state down and return the reply."""
        self.world.generation += 1
        self._collect()
        if self._file is not None:
            draft = self._file.with_suffix(".new")
            draft.write_text(json.dumps(self.world.dump()))
            os.replace(draft, self._file)
        return {"ok": True, "generation": self.world.generation, **answer}

    def write(self, kind: str, name: str, offset: int, data: bytes) -> None:
        """Write as a client does, so that no snapshot of several volumes is taken in the midst of it.

        :raises ApiError: there is no such volume.
        """
        with self.lock:
            self.blocks.write(self.find(kind, name).number, offset, data)

    def _forget_half_made(self) -> None:
        for number in self.blocks.numbers() - set(self.world.items):
            self.blocks.remove(number)

    def reset(self) -> None:
        """Forget everything."""
        with self.lock:
            for item in self.world.items.values():
                if self._devices is not None:
                    self._devices.follow(item, self.blocks.path(item.number), {})
                self.blocks.remove(item.number)
            self.world.clear()
            self._done()

    def close(self) -> None:
        """Let go of the devices; state and bytes stay."""
        with self.lock:
            if self._devices is not None:
                self._devices.close()

    def _summary(self, item: Item) -> dict[str, Any]:
        parent = self.world.items.get(item.parent or 0)
        summary: dict[str, Any] = {
            "id": item.number,
            "name": item.name,
            "parentName": parent.name if parent is not None else "",
            "templateName": item.template,
            "size": item.size,
            "replication": item.copies,
            "globalId": item.global_id,
            "placeAll": "hdd",
            "placeTail": "ssd",
            "placeHead": "hdd",
            "parentVolumeId": item.parent or 0,
            "visibleVolumeId": item.number,
            "objectsCount": -(-item.size // OBJECT_BYTES),
            "creationTimestamp": item.created,
            "tags": dict(item.tags),
            "bw": "-",
            "iops": "-",
        }
        if item.kind == "snapshot":
            on = self.world.items.get(item.on or 0)
            summary |= {
                "onVolume": on.name if on is not None and on.kind == "volume" else "-",
                "autoName": item.auto_name,
                "bound": item.bound,
                "deleted": item.deleted,
                "transient": item.transient,
                "recoveringFromRemote": False,
            }
        return summary

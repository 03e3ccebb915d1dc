# SPDX-License-Identifier: Apache-2.0
"""The StorPool driver in the simulation: its calls go to the core of the contract server, in this process.

Each call is checked against its schema, as by the server, and is a yield point before and behind its work. What can go
wrong there is what can on a wire: an answer that is lost with or without the work done, "not now", nonsense, and a
request that is late: its sender has given it up, has tried again, has perhaps died, and then it is done all the same.
"""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from os_brick.initiator import storpool_utils

from volmgr import names
from volmgr.drivers import storpool_config
from volmgr.drivers.options import Configuration
from volmgr.drivers.storpool import StorPoolDriver
from volmgr.drivers.storpool_api import StorPoolAPI
from volmgr.testing.simulation.plan import Plan, Request, Strike
from volmgr.testing.simulation.rooms import Room
from volmgr.testing.storpool.blocks import MemoryBlocks
from volmgr.testing.storpool.cluster import Cluster
from volmgr.testing.storpool.contract import ApiError, contract
from volmgr.testing.storpool.world import Item

if TYPE_CHECKING:
    from volmgr.targets.fake import FakeTarget
    from volmgr.testing.simulation.scheduler import Scheduler

PREFIX, CLIENTS = "os", {1, 2}
#: seconds of the schedule's clock for one try of a call.
TIMEOUT = 30.0
CONF = """SP_API_HTTP_HOST=127.0.0.1
SP_AUTH_TOKEN=simulated
SP_CLUSTER_ID=simulated
[a]
SP_OURID=1
[b]
SP_OURID=2
"""
#: what goes wrong with a call; ``full`` (a refusal of whatever kind) and ``late`` before its work only.
LOST = ("reset", "timeout", "garbage", "empty", "transient")
KINDS = (*LOST, "late", "full")
#: by verb of the manager: calls that change something for it.
CALLS: dict[str, tuple[str, ...]] = {
    "create_volume": ("VolumeCreate",),
    "delete_volume": ("VolumeDelete", "VolumesReassign"),
    "extend_volume": ("VolumeUpdate",),
    "retype": ("VolumeUpdate",),
    "create_snapshot": ("VolumeSnapshot",),
    "delete_snapshot": ("SnapshotDelete", "VolumesReassign"),
    "revert_to_snapshot": ("VolumeCreate", "VolumeDelete"),
    "create_cgsnapshot": ("VolumesGroupSnapshot",),
    "delete_cgsnapshot": ("SnapshotDelete",),
    "delete_consistencygroup": ("VolumeDelete",),
    "create_consistencygroup_from_src": ("VolumesGroupSnapshot", "VolumeCreate", "SnapshotDelete"),
}
LOOKS = ("Volume", "Snapshot", "VolumesList", "SnapshotsList", "DisksList")
#: stages whose requests need block devices: what they do with StorPool is tried with real ones, elsewhere.
DEVICES = ("archived", "pictured")
#: stands where a plan fails the simulator's driver or target, or what a stage with devices needs.
_REPLACED = ("driver:", "target:", "backup:", "image:")
_NOT_HERE = ("initialize_connection_snapshot",)


class _Late(Exception):
    """The request is under way still when its sender gives it up.

    :param seconds: from then on.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds} s late")
        self.seconds = seconds


class ClusterStore:
    """A cluster in memory, seen under the names that all drivers give to objects.

    :ivar wrong: what was asked of it that its API does not take.
    """

    def __init__(self, cluster: Cluster | None = None) -> None:
        self.cluster = cluster or Cluster(None, CLIENTS)
        self.wrong: list[str] = []

    @property
    def _blocks(self) -> MemoryBlocks:
        assert isinstance(self.cluster.blocks, MemoryBlocks)
        return self.cluster.blocks

    def _find(self, name: str) -> Item | None:
        for item in self.cluster.world.items.values():
            if name in (item.name, _common(item)):
                return item
        return None

    def _need(self, name: str) -> Item:
        found = self._find(name)
        if found is None:
            raise LookupError(f"the cluster has no {name}")
        return found

    def entries(self) -> list[tuple[str, int]]:
        """Return (name, size in bytes) of everything that somebody has given a name."""
        items = self.cluster.world.items.values()
        return [(_common(item), item.size) for item in items if not item.auto_name]

    def size(self, name: str) -> int | None:
        """Return the size in bytes, None for what is not there."""
        found = self._find(name)
        return None if found is None else found.size

    def create(self, name: str, size_bytes: int) -> None:
        """Make an object as somebody else would."""
        parsed = names.parse_object_name(name)
        kind = parsed.kind if parsed is not None else "volume"
        own = names.storpool_name(PREFIX, kind, parsed.object_id) if parsed is not None else name
        item = self.cluster.world.add(kind, own, size_bytes, template="", copies=3)
        self._blocks.create(item.number, size_bytes)

    def mark(self, name: str, text: str) -> None:
        """Write a mark on an object."""
        self._need(name).tags["somebody"] = text

    def mark_of(self, name: str) -> str | None:
        """Return the mark that is on an object."""
        found = self._find(name)
        return None if found is None else found.tags.get("somebody")

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write bytes into an object."""
        self._blocks.write(self._need(name).number, offset, data)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return bytes of an object."""
        return self._blocks.read(self._need(name).number, offset, length)


def _common(item: Item) -> str:
    parsed = names.parse_storpool_name(PREFIX, item.name)
    if parsed is None or parsed.kind not in names.KINDS:
        return item.name
    return names.object_name(parsed.kind, parsed.object_id)


class Wire(storpool_utils.StorPoolAPI):  # type: ignore[misc]
    """os-brick's client whose requests go to a cluster in this process."""

    def __init__(self, store: ClusterStore, scheduler: Scheduler) -> None:
        super().__init__("127.0.0.1", 81, "simulated", timeout=TIMEOUT, transient_retries=0)
        self._store = store
        self._scheduler = scheduler

    def _api_call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            call, argument = contract().find(method, path)
            data = contract().check_request(call, json.dumps(body).encode() if body else b"")
        except ApiError as error:
            self._store.wrong.append(f"{method} {path} {body}: {error}")
            raise _refusal(error) from error
        try:
            self._scheduler.reach(f"storpool:{call.name}/before")
        except _Late as late:
            self._later(call.name, argument, data, late.seconds)
            raise TimeoutError("timed out") from late
        try:
            answer = self._store.cluster.call(call.name, argument, data)
        except ApiError as error:
            raise _refusal(error) from error
        self._scheduler.reach(f"storpool:{call.name}/after")
        return answer

    def _later(self, name: str, argument: str, data: Any, seconds: float) -> None:
        scheduler, cluster = self._scheduler, self._store.cluster

        def arrive() -> None:
            scheduler.wait(lambda: False, seconds, "on its way")
            try:
                cluster.call(name, argument, data)
            except ApiError as error:
                scheduler.say(f"late {name} {argument}: {error}")
            else:
                scheduler.say(f"late {name} {argument}: done")

        scheduler.spawn(scheduler.outside, f"late-{name}", arrive)


def _refusal(error: ApiError) -> Exception:
    made: Exception = storpool_utils.StorPoolAPIError(error.status, error.reply())
    return made


class StorPoolRoom(Room):
    """StorPool's driver over a cluster in memory."""

    name = "storpool"
    exports = False

    def furnish(self, folder: Path) -> str:
        super().furnish(folder)
        conf = folder / "storpool.conf"
        conf.write_text(CONF)
        return f"volume_driver = storpool\nstorpool_config_file = {conf}\n"

    def store(self) -> ClusterStore:
        return ClusterStore()

    def copy(self, store: ClusterStore) -> ClusterStore:
        return ClusterStore(store.cluster.twin())

    def driver(
        self,
        cls: type[Any] | None,
        host: str,
        target: FakeTarget,
        store: ClusterStore,
        scheduler: Scheduler,
        **_replication: Any,
    ) -> Any:
        file = self.folder / "storpool.conf"
        api = StorPoolAPI(
            storpool_config.read(file),
            TIMEOUT,
            client=Wire(store, scheduler),
            sleep=lambda seconds: scheduler.wait(lambda: False, seconds, "api"),
            monotonic=scheduler.monotonic,
        )
        options = {"volume_backend_name": "pool", "storpool_config_file": str(file)}
        return (cls or StorPoolDriver)(configuration=Configuration(options), host=host, api=api)

    def fault(self, strike: Strike) -> BaseException:
        if strike.error == "late":
            return _Late(strike.seconds)
        if strike.error == "full":
            return _refusal(ApiError("insufficientResources", "As told"))
        if strike.error == "transient":
            return _refusal(ApiError("tryAgain", "Not now"))
        made = {
            "reset": ConnectionResetError(104, "Connection reset by peer"),
            "timeout": TimeoutError("timed out"),
            "garbage": ValueError("no JSON"),
            "empty": KeyError("data"),
        }
        return made.get(strike.error) or super().fault(strike)

    def ask(self, request: Request) -> Request | None:
        if request.verb in _NOT_HERE:
            return None
        if request.verb == "type_create":
            # A retype that StorPool has to do something for.
            return dataclasses.replace(request, args={**request.args, "extra_specs": {"storpool_template": "fast"}})
        return request

    def fit(self, plan: Plan) -> Plan | None:
        if plan.stage in DEVICES:
            return None
        rng = random.Random(f"storpool {plan.order}")
        strikes = [
            _on_the_wire(rng, plan, strike) if strike.at.startswith(_REPLACED) else strike for strike in plan.strikes
        ]
        # A plan without any strike stays so: what nobody disturbs must be right to the last word.
        if strikes and rng.random() < 0.5:
            strikes.append(_on_the_wire(rng, plan, Strike("", "fail", rng.choice((1, 1, 2)))))
        # It has no target: every transport is the same to it.
        return plan.but(strikes=tuple(strikes), transport="iscsi")

    def mended(self, plan: Plan) -> bool:
        # What is done so late that its rows are gone leaves what nobody but an audit can find.
        return any(strike.error == "late" for strike in plan.strikes)

    def wrong(self, store: ClusterStore) -> list[str]:
        return [f"the API does not take {text}" for text in store.wrong]


def _on_the_wire(rng: random.Random, plan: Plan, strike: Strike) -> Strike:
    """Return a strike at a call that a plan's requests lead to."""
    changing = [call for request in plan.requests for call in CALLS.get(request.verb, ())]
    call = rng.choice(changing) if changing and rng.random() < 0.8 else rng.choice(LOOKS)
    when = rng.choice(("before", "after"))
    if strike.action != "fail":
        return dataclasses.replace(strike, at=f"storpool:{call}/{when}")
    kinds = KINDS if when == "before" and call not in LOOKS else LOST
    seconds = rng.choice((0.1, 1.0, 20.0, 70.0))
    return Strike(f"storpool:{call}/{when}", "fail", strike.nth, error=rng.choice(kinds), seconds=seconds)

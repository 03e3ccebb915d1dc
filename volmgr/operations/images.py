# SPDX-License-Identifier: Apache-2.0
"""Volumes that become images. What images become volumes of is :mod:`volmgr.operations.image_source`."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from volmgr import exception, types, validate
from volmgr.db import exports
from volmgr.db.admission import Admitting
from volmgr.db.closing import Closing
from volmgr.images.base import WRITABLE, ImageInfo, is_image_id
from volmgr.operations.base import Args, Claim, Lane, Operation, Rerun, Step, arg
from volmgr.operations.registry import register
from volmgr.operations.trash import with_object
from volmgr.tasks import Backend, Task

if TYPE_CHECKING:
    from volmgr.context import RequestContext

_NAMES = {"id", "name", "disk_format", "container_format", "properties"}
_PREFIX = "image_"
#: what a volume remembers of the image that it was made from and that is not so of another one.
_ITS_OWN = frozenset({"id", "store", "name", "disk_format", "container_format", "checksum"})


def image_meta(field: str, value: Any) -> dict[str, Any]:
    """What an image is to be: ``id`` (ID or STORE/ID), ``disk_format``, ``container_format``, ``name``,
    ``properties``.
    """
    if not isinstance(value, Mapping):
        raise validate.invalid(field, "must be a mapping", value)
    for key in value:
        if key not in _NAMES:
            raise validate.invalid(field, f"knows only {', '.join(sorted(_NAMES))}", key)
    image_id = validate.text(255, 1)(f"{field}.id", value.get("id"))
    if image_id.count("/") > 1 or not all(is_image_id(part) for part in image_id.split("/")):
        raise validate.invalid(f"{field}.id", "must have letters, digits, dots, hyphens and underscores", image_id)
    made = {
        "id": image_id,
        "disk_format": validate.one_of(*sorted(WRITABLE))(f"{field}.disk_format", value.get("disk_format") or "raw"),
        "container_format": validate.one_of("bare")(
            f"{field}.container_format", value.get("container_format") or "bare"
        ),
    }
    if value.get("name") is not None:
        made["name"] = validate.name(f"{field}.name", value["name"])
    if value.get("properties"):
        made["properties"] = validate.metadata(f"{field}.properties", value["properties"])
    return made


def view(info: ImageInfo) -> dict[str, Any]:
    """Return what a client reads of an image; where it lies in a backend is nobody's business."""
    return {key: value for key, value in info.to_json().items() if key != "location"}


@dataclass(frozen=True)
class UploadArgs(Args):
    """Arguments of copy_volume_to_image."""

    volume_id: str = arg(validate.uuid)
    image_meta: dict[str, Any] = arg(image_meta)


@register
class CopyVolumeToImage(Operation[UploadArgs]):
    """Make an image of a volume as it is at one instant.

    Where the backend clones at once the image is that of a clone, so the volume may be in use; so it is for a volume
    that somebody uses on any other backend. A volume that nobody uses is read itself, and the image is given up if
    somebody is let in meanwhile.
    """

    verb = "copy_volume_to_image"
    args = UploadArgs
    needs = ("copy_volume_to_image",)
    lane = Lane.BULK

    @property
    def resource_id(self) -> str:
        return self.a.volume_id

    def prepare(
        self, backend: Backend, context: RequestContext, volume: Callable[[str], types.Volume]
    ) -> exception.VolmgrError | None:
        """Find out whether the image can be put into its store; why not is told where a repeat is recognised."""
        try:
            store, image_id = backend.images.stores.split(self.a.image_meta["id"])
            if not store.writable:
                raise exception.Unsupported(
                    f"The image store {store.name} is read only", hint="Name another: STORE/ID", verb=self.verb
                )
            found = store.find(image_id)
        except exception.ImageNotFound as absent:
            return None if "store" in absent.details and self._has_store(backend) else absent
        except exception.VolmgrError as error:
            return error
        return exception.AlreadyExists(resource="image", id=found.full_id)

    def _has_store(self, backend: Backend) -> bool:
        name, slash, _ = self.a.image_meta["id"].partition("/")
        return not slash or name in backend.images.stores.by_name

    def claims(self) -> Sequence[Claim]:
        return (Claim("volume", self.a.volume_id, "upload"),)

    def admit(self, tx: Admitting) -> None:
        if tx.prepared is not None:
            raise tx.prepared

    def claimed(self, tx: Admitting) -> None:
        volume = tx.volume(self.a.volume_id)
        _exported, attached = exports.exported_and_attached(tx.conn, [volume.id])
        tx.data["used"] = attached or exports.granted(tx.conn, volume.id)
        tx.data["between"] = str(uuid.uuid4())
        tx.insert_object("volume", volume.id, tx.data["between"], volume.size, role="building")

    def _info(self, task: Task, volume: types.Volume) -> ImageInfo:
        meta = self.a.image_meta
        store, image_id = task.backend.images.stores.split(meta["id"])
        kept = {
            key.removeprefix(_PREFIX): value for key, value in volume.metadata.items() if key.startswith(_PREFIX)
        }
        inherited = {key: value for key, value in kept.items() if key not in _ITS_OWN}
        return ImageInfo(
            id=image_id,
            store=store.name,
            disk_format=meta["disk_format"],
            container_format=meta["container_format"],
            version=task.id,
            virtual_size=volume.size_bytes,
            min_disk=volume.size,
            name=meta.get("name") or volume.display_name,
            properties={**inherited, **(meta.get("properties") or {})},
        )

    def steps(self, task: Task) -> Sequence[Step]:
        volume, driver, images = task.volume(self.a.volume_id), task.driver, task.backend.images
        between = with_object(volume, task.data["between"])
        info = self._info(task, volume)
        # A driver that cannot copy what is written meanwhile is to see that it is.
        live = dataclasses.replace(volume, attach_status="attached") if task.data["used"] else volume
        through = task.data.setdefault(
            "through", bool((driver.instant_clone or task.data["used"]) and driver.supports("create_cloned_volume"))
        )
        store = images.store_of(info)

        def upload() -> dict[str, Any]:
            transfer = images.upload(info, task.id)
            told = {"id": info.id, "disk_format": "raw", "container_format": "bare"}
            driver.copy_volume_to_image(task.context, between if through else volume, transfer, told)
            if not through:
                self._nobody_came(task)
            if transfer.made is None:
                raise exception.Inconsistent("The driver has uploaded nothing")
            return view(transfer.made)

        def undo() -> None:
            images.forget(task.id)
            store.discard(info.id, info.version)

        def recognise() -> dict[str, Any]:
            made = store.committed(info.id, info.version)
            if not through:
                self._nobody_came(task)
            return view(made)

        # Not discarded and made again: there are stores that never give an id out twice.
        steps = [Step("upload", upload, undo, Rerun.RECOGNISE, recognise)]
        if through:
            steps.insert(0, Step(
                "freeze", lambda: _update(driver.create_cloned_volume(between, live)),
                lambda: driver.delete_volume(between), Rerun.REBUILD,
            ))
            steps.append(Step("thaw", lambda: driver.delete_volume(between)))
        return steps

    def _nobody_came(self, task: Task) -> None:
        with task.database.reader() as conn:
            if exports.granted(conn, self.a.volume_id):
                raise exception.VolumeIsBusy(
                    f"The volume {self.a.volume_id} was connected to while it was read, so the image is not of one "
                    "moment",
                    hint="Disconnect it, or take a snapshot, make a volume of that and upload that one",
                    id=self.a.volume_id,
                )

    def commit(self, task: Task, tx: Closing) -> Any:
        tx.forget_object(task.data["between"])
        tx.release("volume", self.a.volume_id)
        return {"volume_id": self.a.volume_id, "image": task.results["upload"]}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if "between" in task.data and not task.abandoned:
            tx.forget_object(task.data["between"])


def _update(update: types.ModelUpdate) -> types.ModelUpdate:
    return dict(update) if update else None

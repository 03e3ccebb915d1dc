# SPDX-License-Identifier: Apache-2.0
"""How a volume is made from an image: cloned inside the backend, cloned from the image cache, or downloaded.

With the image cache a backend's first volume of an image puts the image into a volume of the cache and is cloned from
that, in the same operation: the cache's volume is held by it and is undone with it. Later ones hold the cache's volume
as a clone holds its source. A cached image that the store has in another version is not used and goes.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from volmgr import exception, states, types
from volmgr.db import claims, exports, image_cache, models, quotas
from volmgr.db.closing import Closing
from volmgr.drivers.making import making
from volmgr.images.base import ImageInfo
from volmgr.operations.base import Lane, Rerun, Step
from volmgr.types import GiB

if TYPE_CHECKING:
    from volmgr.db.admission import Admitting
    from volmgr.db.engine import Database
    from volmgr.images.access import Images
    from volmgr.tasks import Backend, Task

LOG = logging.getLogger(__name__)

#: what of an image a volume's metadata keep, each under ``image_`` and its name.
KEPT = ("id", "store", "name", "disk_format", "container_format", "checksum")
LONGEST = 255


@dataclass(frozen=True)
class Found:
    """What was found out of an image before the admission; a failure is told in it, where a repeat is recognised.

    :ivar size: GiB that it needs, None if that is not known yet.
    """

    info: ImageInfo | None = None
    error: exception.VolmgrError | None = None

    @property
    def size(self) -> int | None:
        if self.info is None or self.info.disk_bytes is None:
            return None
        return max(1, -(-self.info.disk_bytes // GiB), self.info.min_disk)

    def checked(self, size: int | None) -> ImageInfo:
        """Return the image, for a volume of ``size`` GiB.

        :raises ImageTooLarge: it does not fit.
        """
        if self.error is not None:
            raise self.error
        assert self.info is not None
        if size is not None and self.size is not None and size < self.size:
            raise exception.ImageTooLarge(id=self.info.id, needed_bytes=self.size * GiB, volume_bytes=size * GiB)
        return self.info


def look_up(backend: Backend, image_id: str) -> Found:
    """Ask the store for an image."""
    try:
        return Found(info=backend.images.find(image_id))
    except exception.VolmgrError as error:
        return Found(error=error)


def lane_of(backend: Backend, found: Found, host: str | None) -> Lane:
    """Return where a creation runs: one from a kept image takes no longer than any clone."""
    if backend.settings.image_cache is None or found.info is None or host is None or backend.placement is None:
        return Lane.BULK
    with backend.placement.database.reader() as conn:
        row = image_cache.get(conn, host, found.info.full_id)
    return Lane.CONTROL if row is not None and row.version == found.info.version else Lane.BULK


def sweep(database: Database, images: Images) -> None:
    """Remove what is staged for no operation that could go on with it: one that was abandoned, for example."""
    if not (staged := images.staged()):
        return
    table = models.operations
    going_on = sa.select(table.c.id).where(table.c.id.in_(staged), table.c.state.in_(states.UNFINISHED))
    with database.reader() as conn:
        wanted = set(conn.execute(going_on).scalars())
    for key in staged - wanted:
        LOG.warning("What was staged of an image for %s, which has ended, is removed", key)
        images.forget(key)


# --- the cache, in SQL ------------------------------------------------------------------------------------------------


def take(tx: Admitting, volume_id: str) -> None:
    """Hold the cache's volume of a creation's image, or make one to be filled; nothing where another is at it.

    In the transaction that starts the operation on its worker.
    """
    limits = tx.settings.image_cache
    row = claims.row(tx.conn, "volume", volume_id)
    if limits is None or any(item["id"] != volume_id for item in tx.held):
        return
    entry = image_cache.get(tx.conn, row.host, row.image_id)
    if entry is not None and claims.row(tx.conn, "volume", entry.volume_id) is None:
        image_cache.drop(tx.conn, entry.volume_id)  # somebody has deleted it as a volume
        entry = None
    if entry is not None:
        if entry.version is not None and tx.share_image(entry.volume_id):
            image_cache.touch(tx.conn, entry.volume_id, tx.now)
            tx.data["kept"] = entry.version
        return
    if limits.max_gb and row.size > limits.max_gb:
        return
    kept = str(uuid.uuid4())
    tx.insert_volume(
        kept, row.size, host=row.host, availability_zone=row.availability_zone, project_id=limits.project,
        user_id=None, display_name=f"image {row.image_id}"[:LONGEST], image_id=row.image_id, readonly=True,
    )
    image_cache.insert(tx.conn, row.host, row.image_id, kept, row.size, tx.now)
    quotas.charge(tx.conn, limits.project, volumes=1, gigabytes=row.size, defaults={})


def held(task: Task, volume_id: str) -> tuple[str | None, str | None]:
    """Return (the cache's volume that the operation fills, the one that it clones); at most one is there."""
    others = [item for item in task.operation.claims if item["resource"] == "volume" and item["id"] != volume_id]
    filling = next((item["id"] for item in others if item["exclusive"]), None)
    return filling, next((item["id"] for item in others if not item["exclusive"]), None)


def evict(tx: Closing, host: str, volume_id: str) -> None:
    """Let a kept image go; its volume is deleted when nobody clones it any more."""
    if image_cache.drop(tx.conn, volume_id):
        tx.enqueue(_deletion(host, volume_id, tx.now))


def _deletion(host: str, volume_id: str, now: Any) -> dict[str, Any]:
    return {
        "id": (operation_id := str(uuid.uuid4())),
        "request_key": f"evict-{operation_id}",
        "verb": "delete_volume",
        "version": 1,
        "resource": "volume",
        "resource_id": volume_id,
        "host": host,
        "state": "queued",
        "lane": str(Lane.CONTROL),
        "claimed": False,
        "claims": [],
        "epoch": 0,
        "context": {"is_admin": True},
        "args": {"volume_id": volume_id, "unmanage_only": False, "cascade": False, "force": False},
        "created_at": now,
    }


def relieve(task: Task, host: str) -> None:
    """Let the least recently used kept image of a backend go, as the backend has no room."""
    if task.backend.settings.image_cache is None:
        return

    def write() -> None:
        with task.database.writer() as conn:
            volume_id = image_cache.oldest(conn, host)
            if volume_id is not None:
                tx = Closing(conn, task.operation, task.epoch, task.clock.now(), task.backend.cipher)
                evict(tx, task.backend.settings.host, volume_id)
                LOG.warning("%s has no room: the cached image %s goes", host, volume_id)

    task.database.retrying(write)


# --- the steps --------------------------------------------------------------------------------------------------------


class ImageSource:
    """The steps of one creation from an image.

    :param volume: what is made. :param image_id: as it was asked for.
    """

    def __init__(self, task: Task, volume: types.Volume, image_id: str) -> None:
        self.task = task
        self.volume = volume
        self.image_id = image_id
        self.filling, self.cached = held(task, volume.id)
        self._fresh = False

    @property
    def images(self) -> Any:
        return self.task.backend.images

    def steps(self) -> Sequence[Step]:
        """Return them. What a crash left half written is made anew, from what was fetched of the image already."""
        if self.cached is not None:
            return [Step("clone", self.clone, self.unclone, Rerun.REBUILD)]
        steps = [
            Step("create", self.create, self.delete, Rerun.REBUILD), Step("download", self.download, self.forget)
        ]
        if self.filling is not None:
            steps.insert(0, Step("keep", self.keep, self.unkeep))
        return steps

    def look(self) -> ImageInfo:
        """Return the image, in the version that the operation saw first."""
        if "image" not in self.task.data:
            self.task.data["image"] = self.images.find(self.image_id).to_json()
        return ImageInfo.from_json(self.task.data["image"])

    # --- the cache's volume -------------------------------------------------------------------------------------

    def keep(self) -> dict[str, Any]:
        """Make the cache's volume and download the image into it; without room for it the cache is left alone."""
        info, driver = self.look(), self.task.driver
        if not driver.instant_clone or (info.location and driver.supports("clone_image")):
            return {"kept": False}
        assert self.filling is not None
        if self.task.epoch > 1:
            self._clear(self.task.volume(self.filling))
        try:
            with self.images.download(info, self.task.id, self.volume.size_bytes).prepared() as image:
                kept = self._sized(max(1, -(-image.virtual_size // GiB)))
                self._mark("downloading")
                update = driver.create_volume(kept)
                driver.copy_image_to_volume(self.task.context, kept, image, info.id)
        except exception.NoSpace as error:
            LOG.warning("The image %s is not kept in the cache: %s", info.full_id, error)
            self._clear(self.task.volume(self.filling))
            return {"kept": False}
        self.images.forget(self.task.id)
        return {"kept": True, "size": kept.size, "update": dict(update) if update else None}

    def unkeep(self) -> None:
        """Take the cache's volume away, whatever is there of it."""
        self.images.forget(self.task.id)
        assert self.filling is not None
        self._clear(self.task.volume(self.filling))

    def _sized(self, size: int) -> types.Volume:
        """Give the cache's volume the size that the image needs; volumes of more than that can be cloned from it."""
        assert self.filling is not None
        kept, limits = self.task.volume(self.filling), self.task.backend.settings.image_cache
        sized = dataclasses.replace(kept, size=size)

        def write() -> None:
            with self.task.database.writer() as conn:
                row = claims.row(conn, "volume", kept.id)
                if row is None or row.operation_id != self.task.id:
                    raise exception.LeaseLost(id=self.task.id)
                if row.size == size:
                    return
                table, stored = models.volumes, models.objects
                conn.execute(sa.update(table).where(table.c.id == kept.id).values(size=size))
                of = stored.c.id == kept.name_id
                conn.execute(sa.update(stored).where(of).values(size_bytes=size * GiB))
                if row.size > size:
                    quotas.release(conn, row.project_id, gigabytes=row.size - size)
                else:
                    quotas.charge(conn, row.project_id, gigabytes=size - row.size, defaults={})

        if limits is not None:
            self.task.database.retrying(write)
        return sized

    # --- the volume ---------------------------------------------------------------------------------------------

    def create(self) -> types.ModelUpdate:
        """Clone the volume from what the backend has of the image, or make it empty."""
        try:
            return self._create()
        except exception.ObjectExists:
            # Undoing what came before may fail, and then the operation ends by another error than this.
            self.task.data["strange"] = True
            raise

    def _create(self) -> types.ModelUpdate:
        driver, self.task.data["made"] = self.task.driver, "clone"
        info = self.look()
        if (source := self._source(info)) is not None:
            try:
                update = driver.create_cloned_volume(self.volume, source)
                return dict(update) if update else None
            except exception.NotFound as error:
                LOG.warning("The cached image %s has no storage, it is downloaded: %s", source.id, error)
        if info.location and driver.supports("clone_image"):
            update, cloned = driver.clone_image(
                self.task.context, self.volume, (info.location, []), info.to_json(), None
            )
            if cloned:
                return dict(update) if update else None
        self.task.data["made"] = "empty"
        update = driver.create_volume(self.volume)
        self._fresh = True
        return dict(update) if update else None

    def _source(self, info: ImageInfo) -> types.Volume | None:
        """Return the cache's volume, if it has this version of the image and fits."""
        if self.filling is not None:
            done = self.task.results.get("keep") or {}
            kept = self.task.volume(self.filling)
            return dataclasses.replace(kept, size=done["size"]) if done.get("kept") else None
        if self.cached is None:
            return None
        version = self.task.data.get("kept")
        if version is None:
            with self.task.database.reader() as conn:
                row = image_cache.of_volume(conn, self.cached)
            version = row.version if row is not None else None
        if version != info.version:
            self.task.data["stale"] = True
            return None
        source = self.task.volume(self.cached)
        return source if source.size <= self.volume.size else None

    def clone(self) -> types.ModelUpdate:
        """Clone the volume from the cache's; if that cannot be, as it is of another version, do all the rest."""
        update = self.create()
        self.download()
        return update

    def unclone(self) -> None:
        """Take back what :meth:`clone` has done."""
        self.forget()
        self.delete()

    def download(self) -> None:
        """Write the image into the empty volume; after a crash into a new one, as what is in it is not known."""
        if self.task.data["made"] != "empty":
            return
        info, driver = self.look(), self.task.driver
        with self.images.download(info, self.task.id, self.volume.size_bytes).prepared() as image:
            self._mark("downloading")
            if not self._fresh:
                self._clear(self.volume)
                driver.create_volume(self.volume)
            driver.copy_image_to_volume(self.task.context, self.volume, image, info.id)
        self.images.forget(self.task.id)

    def delete(self) -> None:
        """Take the volume away, whatever is there of it."""
        self._clear(self.volume)

    def forget(self) -> None:
        """Remove what was fetched of the image."""
        self.images.forget(self.task.id)

    def _clear(self, volume: types.Volume) -> None:
        driver = self.task.driver
        with making(self.task.id, again=True, undoing=True):  # nothing that others have made under its name
            if driver.supports("clear_download"):
                driver.clear_download(self.task.context, volume)
            driver.delete_volume(volume)

    def _mark(self, status: str) -> None:
        """Show what the operation is at, in the volume's status."""
        table = models.volumes
        mine = (table.c.id == self.volume.id) & (table.c.operation_id == self.task.id)

        def write() -> None:
            with self.task.database.writer() as conn:
                if not conn.execute(sa.update(table).where(mine).values(status=status)).rowcount:
                    raise exception.LeaseLost(id=self.task.id)

        self.task.database.retrying(write)


# --- the end ----------------------------------------------------------------------------------------------------------


def columns(task: Task, volume: types.Volume) -> dict[str, Any]:
    """Return what a volume's row says once it has its image."""
    info = ImageInfo.from_json(task.data["image"])
    told = {f"image_{name}": getattr(info, name) for name in KEPT} | {
        f"image_{name}": value for name, value in info.properties.items()
    }
    kept = {key[:LONGEST]: str(value)[:LONGEST] for key, value in told.items() if value is not None}
    return {"bootable": True, "metadata": {**kept, **volume.metadata}}


def settle(task: Task, tx: Closing, volume: types.Volume) -> None:
    """Write what became of the cache: the closing transaction of a creation that succeeded."""
    filling, cached = held(task, volume.id)
    host, limits = task.backend.settings.host, task.backend.settings.image_cache
    if cached is not None and task.data.get("stale"):
        evict(tx, host, cached)
    if filling is None:
        return
    done = task.results.get("keep") or {}
    if not done.get("kept"):
        forsake(task, tx, volume.id)
        return
    info = ImageInfo.from_json(task.data["image"])
    image_cache.fill(tx.conn, filling, info.version, done["size"], tx.now)
    update = tx.model_update("volume", filling, done["update"])
    tx.release("volume", filling, "available", launched_at=tx.now, **update)
    if limits is not None:
        for volume_id in image_cache.superfluous(tx.conn, str(volume.host), limits, spare=filling):
            evict(tx, host, volume_id)


def forsake(task: Task, tx: Closing, volume_id: str) -> None:
    """Give the cache's volume that was to be filled up; without its storage, or to an operator to delete."""
    filling, _cached = held(task, volume_id)
    if filling is None:
        return
    row = claims.row(tx.conn, "volume", filling)
    image_cache.drop(tx.conn, filling)
    if task.abandoned:
        tx.release("volume", filling, "error")
        return
    exports.delete(tx.conn, filling)
    tx.delete("volume", filling)
    tx.forget_object(row.object_id)
    tx.uncharge(row.project_id, None, volumes=1, gigabytes=row.size)


def let_go(task: Task, tx: Closing, volume_id: str) -> None:
    """Hold nothing of this backend's cache any more, as the creation goes on at another place."""
    filling, cached = held(task, volume_id)
    if filling is None and cached is None:
        return
    forsake(task, tx, volume_id)
    if cached is not None:
        tx.give_shared("volume", cached)
    table = models.operations
    kept = [item for item in task.operation.claims if item["id"] == volume_id]
    tx.conn.execute(sa.update(table).where(table.c.id == task.id).values(claims=kept))
    tx.settle_quota()

# SPDX-License-Identifier: Apache-2.0
"""Volumes from images and images of volumes, over the real journal: killed at every step, undone, cached, evicted."""

from __future__ import annotations

import datetime
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception, types
from volmgr.db import models
from volmgr.db.image_cache import CacheSettings
from volmgr.images.base import ImageInfo
from volmgr.operations import image_source, images, volumes
from volmgr.reconcile.auditor import Auditor
from volmgr.testing.invariants import violations
from volmgr.testing.rig import Rig
from volmgr.types import GiB, MiB

DATA = os.urandom(MiB)
CACHE = CacheSettings("volmgr-images")


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


@pytest.fixture
def cached(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, image_cache=CACHE)
    yield made
    made.close()


def new_id() -> str:
    return str(uuid.uuid4())


def put(rig: Rig, image_id: str = "image", data: bytes = DATA, disk_format: str = "raw", version: str = "1") -> None:
    info = ImageInfo(image_id, "local", disk_format, version, name="Plan 9", properties={"os": "plan9"})
    upload = rig.images.stores.by_name["local"].upload(info)
    upload.write(data)
    upload.commit()


def create(rig: Rig, image_id: str = "image", **arguments: Any) -> tuple[str, types.OperationRecord]:
    volume_id = new_id()
    operation = rig.do(volumes.CreateVolume, volume_id=volume_id, image_id=image_id, **{"size": 1, **arguments})
    assert operation is not None
    return volume_id, operation


def volume(rig: Rig, volume_id: str) -> dict[str, Any]:
    (row,) = rig.rows(models.volumes, id=volume_id)
    return row


def bytes_of(rig: Rig, volume_id: str, length: int = MiB) -> bytes:
    data: bytes = rig.driver.read_bytes(types.Volume(id=volume_id, size=1), 0, length)
    return data


def staged(rig: Rig) -> list[str]:
    return [name for name, _status in rig.images.tools.staging.folder.entries()]


def whole(rig: Rig) -> None:
    assert violations(rig.database, rig.driver) == []
    assert Auditor(rig.dispatcher).run().findings == []
    assert staged(rig) == []


class TestCreate:
    def test_a_volume_has_the_image_and_says_so(self, rig: Rig) -> None:
        put(rig)
        volume_id, operation = create(rig, metadata={"mine": "1"})
        assert operation.state == "done" and operation.lane == "bulk"
        row = volume(rig, volume_id)
        assert (row["status"], row["bootable"], row["image_id"]) == ("available", True, "local/image")
        assert row["metadata"]["image_os"] == "plan9" and row["metadata"]["mine"] == "1"
        assert row["metadata"]["image_id"] == "image" and row["metadata"]["image_name"] == "Plan 9"
        assert bytes_of(rig, volume_id) == DATA
        whole(rig)

    def test_the_size_follows_from_the_image(self, rig: Rig) -> None:
        put(rig)
        volume_id, operation = create(rig, size=None)
        assert operation.state == "done" and volume(rig, volume_id)["size"] == 1

    def test_what_is_refused_changes_nothing(self, rig: Rig) -> None:
        put(rig)
        for wrong, error in (
            ({"image_id": "absent"}, exception.ImageNotFound),
            ({"image_id": "nowhere/image"}, exception.ImageNotFound),
            ({"image_id": "../../etc/passwd"}, exception.ImageNotFound),
            ({"image_id": ""}, exception.Invalid),
            ({"image_id": 5}, exception.Invalid),
            ({"image_id": "x" * 256}, exception.Invalid),
            ({"image_id": "image", "source_volid": new_id()}, exception.NotFound),
        ):
            with pytest.raises(error):
                rig.submit(volumes.CreateVolume, volume_id=new_id(), size=1, **wrong)
        assert rig.rows(models.volumes) == [] and rig.rows(models.objects) == []

    def test_sources_exclude_each_other(self, rig: Rig) -> None:
        put(rig)
        source, _operation = create(rig)
        with pytest.raises(exception.Invalid):
            rig.submit(volumes.CreateVolume, volume_id=new_id(), image_id="image", source_volid=source)

    def test_a_volume_that_is_too_small_is_refused_at_once(
        self, rig: Rig, require: Callable[..., str], tmp_path: Path
    ) -> None:
        info = ImageInfo("large", "local", "qcow2", "1", virtual_size=3 * GiB)
        rig.images.stores.by_name["local"].upload(info).commit()
        with pytest.raises(exception.ImageTooLarge):
            rig.submit(volumes.CreateVolume, volume_id=new_id(), image_id="large", size=2)
        assert rig.rows(models.volumes) == []

    def test_a_repeat_joins_although_the_image_is_gone(self, rig: Rig) -> None:
        put(rig)
        key, volume_id = new_id(), new_id()
        arguments: dict[str, Any] = {"volume_id": volume_id, "image_id": "image", "size": 1}
        first = rig.do(volumes.CreateVolume, key=key, **arguments)
        rig.images.stores.by_name["local"].delete("image")
        again = rig.submit(volumes.CreateVolume, key=key, **arguments)
        assert first is not None and (again["operation_id"], again["state"]) == (first.id, "done")

    def test_an_evil_image_leaves_a_broken_volume_and_nothing_else(
        self, rig: Rig, require: Callable[..., str], tmp_path: Path
    ) -> None:
        evil = tmp_path / "evil"
        program = require("qemu-img", "qemu-utils")
        subprocess.run(
            [program, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", evil, "1G"], check=True
        )
        put(rig, "evil", evil.read_bytes(), "qcow2")
        volume_id, operation = create(rig, "evil")
        assert operation.state == "failed" and operation.error is not None
        assert operation.error["code"] == exception.ImageHasBackingFile.code
        assert volume(rig, volume_id)["status"] == "error" and rig.driver.observe() == []
        whole(rig)

    def test_an_image_in_the_backend_is_cloned(self, rig: Rig) -> None:
        rig.driver.put_foreign("golden", GiB, DATA)
        info = ImageInfo("image", "local", "raw", "1", size=GiB, location="sim://golden")
        rig.images.stores.by_name["local"].upload(info).commit()
        volume_id, operation = create(rig)
        assert operation.state == "done" and bytes_of(rig, volume_id) == DATA
        assert operation.data is not None and operation.data["made"] == "clone"

    def test_it_is_downloading_while_it_downloads(self, tmp_path: Path) -> None:
        seen: list[str] = []
        lives: list[Rig] = []

        def look(point: str) -> None:
            if point == "create_volume/download/after":
                seen.extend(row["status"] for row in lives[0].rows(models.volumes))

        lives.append(Rig(tmp_path, killpoint=look))
        put(lives[0])
        create(lives[0])
        assert seen == ["downloading"]
        lives[0].close()

    def test_another_place_is_tried_and_gets_the_image(self, tmp_path: Path) -> None:
        first = Rig(tmp_path, image_cache=CACHE)
        second = Rig(tmp_path, host="host@other", image_cache=CACHE)
        put(first)
        _register(first, second)
        first.driver.faults.fail("create_volume", error="volmgr.backend_down", when="after", times=9)
        volume_id, _operation = create(first, host=None)
        second.run()
        first.driver.faults.clear()
        row = volume(second, volume_id)
        assert (row["status"], row["host"]) == ("available", "host@other#pool")
        assert bytes_of(second, volume_id) == DATA
        assert {item["host"] for item in first.rows(models.volumes)} == {"host@other#pool"}
        assert [item["project_id"] for item in first.rows(models.quotas)].count("volmgr-images") == 1
        assert violations(first.database) == []
        for rig in (second, first):
            rig.close()


def _register(*rigs: Rig) -> None:
    from volmgr.db import services

    for rig in rigs:
        with rig.database.writer() as conn:
            services.register(
                conn, rig.settings.host, topic="volume", availability_zone="nova", driver="sim",
                incarnation=new_id(), rpc_version="1.0", state="up", reason=None,
                capabilities=rig.driver.get_volume_stats(),
            )
    for rig in rigs:
        rig.placement.refresh()


KILLS = [
    f"create_volume/{step}/{when}" for step in ("keep", "create", "download") for when in ("before", "after")
] + ["create_volume/-/started", "create_volume/-/close", "create_volume/-/closed"]


@pytest.mark.parametrize("point", KILLS)
@pytest.mark.parametrize("cache", [None, CACHE], ids=["plain", "cache"])
def test_killed_at_every_step(point: str, cache: CacheSettings | None, tmp_path: Path) -> None:
    if cache is None and "keep" in point:
        pytest.skip("does not apply: nothing is kept without a cache")

    def kill(name: str) -> None:
        if name == point:
            raise Killed

    first = Rig(tmp_path, killpoint=kill, image_cache=cache)
    put(first)
    volume_id = new_id()
    with pytest.raises(Killed):
        first.do(volumes.CreateVolume, volume_id=volume_id, image_id="image", size=1)
    first.close()
    second = Rig(tmp_path, image_cache=cache)
    second.dispatcher.recover()
    second.run()
    assert volume(second, volume_id)["status"] == "available" and bytes_of(second, volume_id) == DATA
    assert len(second.rows(models.image_cache)) == (cache is not None)
    whole(second)
    second.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_it_is_cloned_from_the_cache(when: str, tmp_path: Path) -> None:
    def kill(name: str) -> None:
        if name == f"create_volume/clone/{when}":
            raise Killed

    first = Rig(tmp_path, killpoint=kill, image_cache=CACHE)
    put(first)
    create(first)
    volume_id = new_id()
    with pytest.raises(Killed):
        first.do(volumes.CreateVolume, volume_id=volume_id, image_id="image", size=1)
    first.close()
    second = Rig(tmp_path, image_cache=CACHE)
    second.dispatcher.recover()
    second.run()
    assert volume(second, volume_id)["status"] == "available" and bytes_of(second, volume_id) == DATA
    whole(second)
    second.close()


class TestCache:
    def test_the_second_volume_is_a_clone(self, cached: Rig) -> None:
        put(cached)
        first, _operation = create(cached, size=3)
        (entry,) = cached.rows(models.image_cache)
        assert (entry["image_id"], entry["version"], entry["size"]) == ("local/image", "1", 1)
        kept = volume(cached, entry["volume_id"])
        assert (kept["status"], kept["project_id"], kept["size"]) == ("available", "volmgr-images", 1)
        os.unlink(cached.folder / "images" / "image.1.data")  # nothing is read from the store any more
        second, operation = create(cached, size=2)
        assert (operation.state, operation.lane) == ("done", "control")
        assert bytes_of(cached, first) == bytes_of(cached, second) == DATA
        assert volume(cached, second)["bootable"] and volume(cached, second)["size"] == 2
        assert volume(cached, kept["id"])["use_count"] == 0
        whole(cached)

    def test_budget_of_statements(self, cached: Rig) -> None:
        put(cached)
        create(cached)
        with cached.database.counting() as count:
            cached.submit(volumes.CreateVolume, volume_id=new_id(), image_id="image", size=1)
            cached.stepwise.run()
        assert count.transactions <= 3 and count.statements <= 13, count

    def test_a_new_version_is_downloaded_and_the_old_one_goes(self, cached: Rig) -> None:
        put(cached)
        create(cached)
        (old,) = cached.rows(models.image_cache)
        cached.images.stores.by_name["local"].delete("image")
        put(cached, data=b"new", version="2")
        second, operation = create(cached)
        assert operation.state == "done" and bytes_of(cached, second, 3) == b"new"
        cached.run()
        assert cached.rows(models.image_cache) == [] and cached.rows(models.volumes, id=old["volume_id"]) == []
        third, _operation = create(cached)
        assert bytes_of(cached, third, 3) == b"new"
        assert [item["version"] for item in cached.rows(models.image_cache)] == ["2"]
        whole(cached)

    @pytest.mark.parametrize("limits", [CacheSettings("c", max_count=2), CacheSettings("c", max_gb=2)])
    def test_the_least_recently_used_goes(self, limits: CacheSettings, tmp_path: Path) -> None:
        rig = Rig(tmp_path, image_cache=limits)
        for name in ("a", "b", "a", "c"):
            if name not in {item.id for item in rig.images.stores.images()}:
                put(rig, name)
            create(rig, name)
        rig.run()
        assert sorted(item["image_id"] for item in rig.rows(models.image_cache)) == ["local/a", "local/c"]
        assert len(rig.rows(models.volumes, project_id="c")) == 2
        whole(rig)
        rig.close()

    def test_an_image_larger_than_the_cache_is_not_kept(self, tmp_path: Path) -> None:
        rig = Rig(tmp_path, image_cache=CacheSettings("c", max_gb=1))
        put(rig)
        volume_id, _operation = create(rig, size=2)
        assert bytes_of(rig, volume_id) == DATA and rig.rows(models.image_cache) == []
        rig.close()

    def test_under_pressure_the_oldest_goes(self, cached: Rig) -> None:
        for name in ("a", "b"):
            put(cached, name)
            create(cached, name)
        cached.driver.faults.fail("create_volume", error="volmgr.no_space", times=1)
        operation = cached.do(volumes.CreateVolume, volume_id=new_id(), size=1)
        assert operation is not None and operation.state == "failed"
        cached.run()
        assert [item["image_id"] for item in cached.rows(models.image_cache)] == ["local/b"]
        assert len(cached.rows(models.volumes, project_id="volmgr-images")) == 1
        assert violations(cached.database, cached.driver) == []

    def test_without_room_for_the_cache_the_volume_is_made_all_the_same(self, cached: Rig) -> None:
        put(cached)
        cached.driver.faults.fail("create_volume", error="volmgr.no_space", times=1)
        volume_id, operation = create(cached)
        assert operation.state == "done" and bytes_of(cached, volume_id) == DATA
        assert cached.rows(models.image_cache) == [] and len(cached.rows(models.volumes)) == 1
        whole(cached)

    def test_a_kept_image_that_somebody_deleted_is_made_again(self, cached: Rig) -> None:
        put(cached)
        create(cached)
        (entry,) = cached.rows(models.image_cache)
        cached.do(volumes.DeleteVolume, volume_id=entry["volume_id"])
        volume_id, operation = create(cached)
        assert operation.state == "done" and bytes_of(cached, volume_id) == DATA
        (again,) = cached.rows(models.image_cache)
        assert again["volume_id"] != entry["volume_id"] and again["version"] == "1"
        whole(cached)

    def test_a_kept_image_that_lost_its_storage_is_downloaded(self, cached: Rig) -> None:
        put(cached)
        create(cached)
        (entry,) = cached.rows(models.image_cache)
        cached.driver.store.remove(f"volume-{entry['volume_id']}")
        volume_id, operation = create(cached)
        assert operation.state == "done" and bytes_of(cached, volume_id) == DATA

    def test_a_failure_takes_the_kept_one_along(self, cached: Rig) -> None:
        put(cached)
        cached.driver.faults.fail("create_cloned_volume", error="volmgr.inconsistent", times=9)
        volume_id, operation = create(cached)
        assert operation.state == "failed" and volume(cached, volume_id)["status"] == "error"
        assert cached.rows(models.image_cache) == [] and len(cached.rows(models.volumes)) == 1
        assert violations(cached.database, cached.driver) == []


QCOW2 = {"id": "made", "disk_format": "qcow2"}


class TestUpload:
    def test_there_and_back(self, rig: Rig) -> None:
        put(rig)
        source, _operation = create(rig)
        operation = rig.do(
            images.CopyVolumeToImage, volume_id=source, image_meta={**QCOW2, "name": "copy"}
        )
        assert operation is not None and operation.state == "done", operation
        found = rig.images.find("made")
        assert (found.name, found.disk_format, found.virtual_size) == ("copy", "qcow2", GiB)
        assert found.properties == {"os": "plan9"} and found.version == operation.id
        assert operation.result["image"]["checksum"] == found.checksum
        other, _operation = create(rig, "made")
        assert bytes_of(rig, other) == DATA and volume(rig, source)["status"] == "available"
        whole(rig)

    @pytest.mark.parametrize("clones", [True, False])
    def test_a_volume_in_use(self, clones: bool, rig: Rig) -> None:
        put(rig)
        source, _operation = create(rig)
        rig.attachments.attach(source, None, "compute", "/dev/vdb", "rw", new_id())
        rig.driver.instant_clone = clones
        operation = rig.do(images.CopyVolumeToImage, volume_id=source, image_meta=QCOW2)
        assert operation is not None and operation.state == "done", operation
        assert volume(rig, source)["status"] == "in-use"
        other, _operation = create(rig, "made")
        assert bytes_of(rig, other) == DATA
        whole(rig)

    def test_a_volume_that_somebody_came_to_meanwhile(self, rig: Rig) -> None:
        put(rig)
        source, _operation = create(rig)
        rig.driver.instant_clone = False
        copy = rig.driver.copy_volume_to_image

        def copy_and_connect(*args: Any) -> None:
            copy(*args)
            rig.attachments.initialize("volume", source, {"initiator": "iqn.1993-08.org.debian:01:a", "host": "h"})

        rig.driver.copy_volume_to_image = copy_and_connect
        operation = rig.do(images.CopyVolumeToImage, volume_id=source, image_meta=QCOW2)
        assert operation is not None and operation.state == "failed" and operation.error is not None
        assert operation.error["code"] == exception.VolumeIsBusy.code
        with pytest.raises(exception.ImageNotFound):
            rig.images.find("made")

    def test_an_image_that_is_there_is_not_touched(self, rig: Rig) -> None:
        put(rig)
        source, _operation = create(rig)
        with pytest.raises(exception.AlreadyExists):
            rig.submit(images.CopyVolumeToImage, volume_id=source, image_meta={**QCOW2, "id": "image"})
        assert volume(rig, source)["status"] == "available" and rig.images.find("image").version == "1"

    def test_a_repeat_joins(self, rig: Rig) -> None:
        put(rig)
        source, _operation = create(rig)
        key = new_id()
        first = rig.do(images.CopyVolumeToImage, key=key, volume_id=source, image_meta=QCOW2)
        again = rig.submit(images.CopyVolumeToImage, key=key, volume_id=source, image_meta=QCOW2)
        assert first is not None and (again["operation_id"], again["state"]) == (first.id, "done")

    @pytest.mark.parametrize(
        "bad",
        [None, [], {}, {"id": ""}, {"id": "../x"}, {"id": "a/../b"}, {"id": "x", "disk_format": "vmdk"},
         {"id": "x", "location": "file:///etc"}, {"id": "x", "container_format": "ova"}, {"id": 5}],
    )
    def test_bad_input(self, bad: Any, rig: Rig) -> None:
        with pytest.raises(exception.Invalid):
            images.UploadArgs.parse({"volume_id": new_id(), "image_meta": bad})

    def test_a_failure_takes_back_its_own_and_nothing_else(self, rig: Rig) -> None:
        put(rig)
        source, _operation = create(rig)
        copy = rig.driver.copy_volume_to_image

        def be_late(*args: Any) -> None:
            put(rig, "made", b"another's", version="other")
            copy(*args)

        rig.driver.copy_volume_to_image = be_late
        operation = rig.do(images.CopyVolumeToImage, volume_id=source, image_meta=QCOW2)
        assert operation is not None and operation.state == "failed"
        assert rig.images.find("made").version == "other"
        names = sorted(os.listdir(rig.folder / "images"))
        assert names == ["image.1.data", "image.json", "made.json", "made.other.data"]
        assert volume(rig, source)["status"] == "available"
        whole(rig)

    @pytest.mark.parametrize(
        "point", [f"copy_volume_to_image/{step}/{when}" for step in ("freeze", "upload", "thaw")
                  for when in ("before", "after")] + ["copy_volume_to_image/-/close"],
    )
    def test_killed_at_every_step(self, point: str, tmp_path: Path) -> None:
        def kill(name: str) -> None:
            if name == point:
                raise Killed

        first = Rig(tmp_path, killpoint=kill)
        put(first)
        source, _operation = create(first)
        with pytest.raises(Killed):
            first.do(images.CopyVolumeToImage, volume_id=source, image_meta=QCOW2)
        first.close()
        second = Rig(tmp_path)
        second.dispatcher.recover()
        second.run()
        assert volume(second, source)["status"] == "available"
        found = second.images.find("made")
        names = sorted(os.listdir(second.folder / "images"))
        assert names == ["image.1.data", "image.json", f"made.{found.version}.data", "made.json"]
        other, _operation = create(second, "made")
        assert bytes_of(second, other) == DATA
        whole(second)
        second.close()


def test_a_deletion_waits_for_the_clone_that_holds_the_kept_image(cached: Rig) -> None:
    put(cached)
    create(cached)
    (entry,) = cached.rows(models.image_cache)
    answer = cached.submit(volumes.CreateVolume, volume_id=new_id(), image_id="image", size=1)
    waiting = cached.submit(volumes.DeleteVolume, volume_id=entry["volume_id"])
    assert (answer["state"], waiting["state"]) == ("running", "queued")
    cached.run()
    ended = [cached.dispatcher.get(item["operation_id"]) for item in (answer, waiting)]
    assert [item.state for item in ended] == ["done", "done"]
    times = [item.finished_at for item in ended]
    assert all(isinstance(item, datetime.datetime) for item in times)
    assert violations(cached.database, cached.driver) == []


def test_what_is_staged_for_nobody_goes_at_a_start(rig: Rig) -> None:
    put(rig)
    answer = rig.submit(volumes.CreateVolume, volume_id=new_id(), image_id="image", size=1)
    folder, ended = rig.images.tools.staging.folder, new_id()
    for key in (answer["operation_id"], ended):
        folder.create(f"{key}.image", 5)
    image_source.sweep(rig.database, rig.images)
    assert staged(rig) == [f"{answer['operation_id']}.image"], "an operation that waits may go on with it"
    rig.run()
    assert staged(rig) == []

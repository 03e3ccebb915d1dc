# SPDX-License-Identifier: Apache-2.0
"""Where a volume may move to, and by how much a thin pool grows: what the LVM driver decides without a device."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volmgr.drivers import lvm_move, lvm_pool
from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.drivers.lvm_move import Place
from volmgr.drivers.options import Configuration
from volmgr.tools import lvm_report
from volmgr.types import GiB, MiB, Volume

TEXT = Path(__file__).with_name("fullreport.json").read_text(encoding="ascii")
IDENTITY = "11111111-1111-4111-8111-111111111111"


class TestPlaces:
    @given(
        st.from_regex(r"\A[a-z0-9.-]{1,12}\Z"),
        st.from_regex(r"\A[a-z0-9+_.-]{1,12}\Z"),
        st.booleans(),
        st.integers(0, 8),
    )
    def test_what_is_told_is_understood(self, host: str, group: str, thin: bool, mirrors: int) -> None:
        place = Place(host, group, thin, mirrors)
        assert Place.parse(str(place)) == place

    @pytest.mark.parametrize(
        "text", [None, 7, "", "sim:x", "LVMVolumeDriver:h:vg:thin", "LVMVolumeDriver:h:vg:thick:0", "X:h:vg:thin:0",
                 "LVMVolumeDriver:h:vg:thin:one"],
    )  # fmt: skip
    def test_what_is_another_s_is_none(self, text: Any) -> None:
        assert Place.parse(text) is None

    def test_the_pool_that_the_host_names_counts(self) -> None:
        pools = [{"pool_name": name, "location_info": f"LVMVolumeDriver:h:{name}:thin:0"} for name in ("a", "b")]
        found = lvm_move._destination({"host": "h@x#b", "capabilities": {"pools": pools}})
        assert found is not None and found.group == "b"
        assert lvm_move._destination({"host": "h@x#c", "capabilities": {"pools": pools}}) is None
        assert lvm_move._destination({"host": "h@x"}) is None

    @pytest.mark.parametrize(
        "host",
        [
            {"host": "h@x#p", "capabilities": {"location_info": "LVMVolumeDriver:elsewhere:vg2:default:0"}},
            {"host": "h@x#p", "capabilities": {"location_info": "LVMVolumeDriver:h:vg:thin:0"}},
            {"host": "h@x#p"},
        ],
    )
    def test_what_cannot_be_moved_here_is_left_to_the_caller(self, host: dict[str, Any]) -> None:
        """Nothing is looked at: another host, the same group with volumes of another kind, no place at all."""
        made = LVMVolumeDriver(configuration=Configuration({"volume_group": "vg", "lvm_type": "default"}), host="h@lvm")
        assert str(made.place) == "LVMVolumeDriver:h:vg:default:0"
        volume = Volume(id=IDENTITY, size=1)
        assert made.migrate_volume(None, volume, host) == (False, None)
        in_use = dataclasses.replace(volume, attach_status="attached")
        there = {"host": "h@x#p", "capabilities": {"location_info": "LVMVolumeDriver:h:vg2:default:0"}}
        assert made.migrate_volume(None, in_use, there) == (False, None)

    def test_storage_in_use_keeps_its_name(self) -> None:
        made = LVMVolumeDriver(configuration=Configuration({"volume_group": "vg"}), host="h@lvm")
        volume, new = (Volume(id=identity, size=1) for identity in (IDENTITY, IDENTITY[:-1] + "2"))
        assert made.update_migrated_volume(None, volume, new, "in-use") == {
            "_name_id": new.id,
            "provider_location": None,
        }


class TestGrowth:
    def _report(self, free_bytes: int) -> lvm_report.Report:
        text = json.loads(TEXT)
        text["report"][0]["vg"][0]["vg_free"] = str(free_bytes)
        found = lvm_report.parse(json.dumps(text))
        assert found is not None
        return found

    def _pool(self, metadata_bytes: int = 64 * MiB) -> lvm_report.LogicalVolume:
        pool = self._report(0).volumes["vg-one-pool"]
        return dataclasses.replace(pool, space_bytes=10 * GiB, metadata_bytes=metadata_bytes)

    def test_a_part_of_its_size(self) -> None:
        found = self._report(100 * GiB)
        assert lvm_pool._growth(found, self._pool(), {"data"}, 20) == (2 * GiB, 0)
        assert lvm_pool._growth(found, self._pool(), {"metadata"}, 50) == (0, 32 * MiB)
        assert lvm_pool._growth(found, self._pool(), {"data", "metadata"}, 50) == (5 * GiB, 32 * MiB)
        assert lvm_pool._growth(found, self._pool(), set(), 50) == (0, 0)

    def test_metadata_has_an_end(self) -> None:
        found = self._report(100 * GiB)
        nearly = self._pool(lvm_pool.METADATA_MOST - 8 * MiB)
        assert lvm_pool._growth(found, nearly, {"metadata"}, 100) == (0, 8 * MiB)
        assert lvm_pool._growth(found, self._pool(lvm_pool.METADATA_MOST), {"metadata"}, 100) == (0, 0)

    @given(st.integers(0, 40 * GiB), st.integers(1, 100), st.sets(st.sampled_from(["data", "metadata"])))
    def test_never_more_than_there_is(self, free_bytes: int, percent: int, near: set[str]) -> None:
        found = self._report(free_bytes)
        data, metadata = lvm_pool._growth(found, self._pool(), near, percent)
        assert data % found.extent_bytes == 0 and metadata % found.extent_bytes == 0
        # LVM keeps a spare as large as the metadata.
        assert data + 2 * metadata <= free_bytes

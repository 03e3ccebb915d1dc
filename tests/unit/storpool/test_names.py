# SPDX-License-Identifier: Apache-2.0
"""Names in StorPool: they can be parsed back, the API takes them, and os-brick makes the same ones on hosts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_brick.initiator import storpool_utils

from volmgr import names
from volmgr.testing.storpool.contract import contract

KINDS = st.sampled_from(["volume", "snapshot", "clone", "image", "backup"])
PREFIXES = st.from_regex(r"\A[a-z0-9-]{1,20}\Z")
UUIDS = st.uuids().map(str)


@given(PREFIXES, KINDS, UUIDS)
def test_names_round_trip_and_fit_the_api(prefix: str, kind: str, object_id: str) -> None:
    name = names.storpool_name(prefix, kind, object_id)
    assert names.parse_storpool_name(prefix, name) == names.ObjectName(kind, object_id)
    assert names.parse_storpool_name(prefix + "x", name) is None
    assert not list(contract().problems({"$ref": "#/$defs/volumeName"}, name))


@given(PREFIXES, UUIDS)
def test_os_brick_makes_the_same_names(prefix: str, object_id: str) -> None:
    assert names.storpool_name(prefix, "volume", object_id) == storpool_utils.os_to_sp_volume_name(prefix, object_id)
    snapshot = storpool_utils.os_to_sp_snapshot_name(prefix, "snap", object_id)
    assert names.storpool_name(prefix, "snapshot", object_id) == snapshot


@given(PREFIXES, UUIDS)
def test_the_name_of_a_volume_that_waits_for_another_is_nobody_s(prefix: str, object_id: str) -> None:
    name = names.storpool_swap_name(prefix, object_id)
    assert names.parse_storpool_name(prefix, name) is None
    assert not list(contract().problems({"$ref": "#/$defs/volumeName"}, name))


@pytest.mark.parametrize("name", ["os--volume-", "os--volume-x", "os--other--none--snapshot-{}", "xos--volume-{}", ""])
def test_other_names_are_not_ours(name: str) -> None:
    found = names.parse_storpool_name("os", name.format("11111111-2222-3333-4444-555555555555"))
    assert found is None


def test_nothing_is_named_after_what_is_no_id() -> None:
    for kind, object_id in (("volume", "x"), ("group", "11111111-2222-3333-4444-555555555555")):
        with pytest.raises(ValueError, match="no StorPool name"):
            names.storpool_name("os", kind, object_id)

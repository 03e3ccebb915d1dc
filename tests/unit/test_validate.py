# SPDX-License-Identifier: Apache-2.0
"""Bad values are refused with their field named; good ones come out in their one form."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volmgr import exception, validate
from volmgr.operations.snapshots import CreateArgs as SnapshotArgs
from volmgr.operations.volumes import CreateArgs

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CHECKS = {
    name: getattr(validate, name)
    for name in ("uuid", "name", "description", "boolean", "size", "seconds", "metadata", "host", "connector")
}


@pytest.mark.parametrize("name", sorted(CHECKS))
@given(value=ANYTHING)
def test_a_check_returns_or_names_the_field(name: str, value: Any) -> None:
    try:
        found = CHECKS[name]("the_field", value)
    except exception.Invalid as error:
        assert str(error.details["field"]).startswith("the_field")
        assert "the_field" in error.message
        assert len(error.message) < 400
    else:
        assert CHECKS[name]("the_field", found) == found or found != found


@pytest.mark.parametrize("value", [True, 0, -1, 2**40, 1.5, "1", None, float("nan")])
def test_sizes(value: Any) -> None:
    with pytest.raises(exception.Invalid, match="size"):
        validate.size("size", value)


@pytest.mark.parametrize("value", ["a\x00b", "a\x1bb", "x" * 256, "a\u2028b", "\ud800"])
def test_names(value: str) -> None:
    with pytest.raises(exception.Invalid, match="name"):
        validate.name("name", value)


def test_unknown_and_missing_arguments_are_named() -> None:
    volume_id = str(uuid.uuid4())
    with pytest.raises(exception.Invalid) as unknown:
        CreateArgs.parse({"volume_id": volume_id, "colour": "red"})
    assert unknown.value.details["field"] == "colour"
    with pytest.raises(exception.Invalid) as missing:
        SnapshotArgs.parse({"volume_id": volume_id})
    assert missing.value.details["field"] == "snapshot_id"


def test_arguments_come_back_from_their_journal_form() -> None:
    arguments = CreateArgs.parse({"volume_id": str(uuid.uuid4()), "size": 3, "metadata": {"a": "b"}})
    assert CreateArgs(**arguments.to_json()) == arguments


def test_a_connector_keeps_what_is_known_and_loses_the_rest() -> None:
    wwpns = ["50:01:43:80:11:22:33:44"]
    sent = {"initiator": "iqn.1993-08.org.debian:01:abc", "ip": "127.0.0.1", "secret": "x", "wwpns": wwpns}
    found = validate.connector("connector", sent)
    assert found == {
        "initiator": "iqn.1993-08.org.debian:01:abc",
        "ip": "127.0.0.1",
        "wwpns": ["5001438011223344"],
    }

# SPDX-License-Identifier: Apache-2.0
"""The contract server's calls as data: every field has a source, and what the package storpool says of it agrees.

The package is StorPool's own client library. It does not describe everything that the server is strict about; where the
server takes less than the package would send, the data say so (``stricter``).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
from storpool import spapi, sptypes
from storpool.sptype import spType

from volmgr.testing.storpool.contract import contract, source_keys

DATA = json.loads(resources.files("volmgr.testing.storpool").joinpath("calls.json").read_text())
REQUESTS: dict[str, Any] = {
    "VolumeCreate": sptypes.VolumeCreateDesc,
    "VolumeUpdate": sptypes.VolumeUpdateDesc,
    "VolumeRevert": sptypes.VolumeRevertDesc,
    "VolumeSnapshot": sptypes.VolumeSnapshotDesc,
    "VolumesGroupSnapshot": sptypes.GroupSnapshotsSpec,
    "SnapshotUpdate": sptypes.SnapshotUpdateDesc,
    "VolumesReassignWait": sptypes.VolumesReassignWaitDesc,
}
REASSIGN = {"volume": sptypes.VolumeReassignDesc, "snapshot": sptypes.SnapshotReassignDesc}
#: fields that are lists of objects, whose own fields are compared by themselves.
LISTS = ("reassign", "volumes")
PATHS = {
    "volumeNameOrGlobalId": sptypes.VolumeNameOrGlobalId,
    "snapshotNameOrGlobalId": sptypes.SnapshotNameOrGlobalId,
}
PROBES: list[Any] = [
    *("", "a", "os--volume-1", "#1", "~b.c.1", "~b.c", "*12", "a@b", "list", "status", "a b", "a/b", "é"),
    *("a" * 199, "a" * 200, "all", "none", "rw", -1, 0, 1, 2, 3, 4, 511, 512, 513, 1024, 4095, 4096, 1.5, True, False),
    *([], [1], [1, 2], [0], [4096], ["x"], {}, {"a": "b"}, {"a b": "c"}, {"a": "b c"}, {"a": ""}),
]


def _fields(node: Any, inherited: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Return every property of every schema with its source: its own, or that of the object that it is in."""
    if isinstance(node, list):
        for item in node:
            yield from _fields(item, inherited)
    if not isinstance(node, dict):
        return
    inherited = node.get("source", inherited)
    for name, schema in (node.get("properties") or {}).items():
        yield name, schema.get("source", inherited)
    for key, value in node.items():
        if key not in ("sources", "if"):
            yield from _fields(value, inherited)


def test_every_field_call_and_error_has_a_source_that_is_explained() -> None:
    told = [*_fields(DATA), *((name, call["source"]) for name, call in DATA["calls"].items())]
    told += [(name, error["source"]) for name, error in DATA["errors"].items()]
    told += [(name, definition["source"]) for name, definition in DATA["$defs"].items()]
    assert len(told) > 120
    for name, source in told:
        assert source, f"{name} has no source"
        keys = source_keys(source)
        assert keys and set(keys) <= set(DATA["sources"]), f"{name}: {source}"


def test_sources_that_name_a_type_name_one_that_is_there() -> None:
    texts = {source for _name, source in _fields(DATA)} | {item["source"] for item in DATA["$defs"].values()}
    named = [part.strip() for text in texts for part in text.replace(";", ",").split(",") if "types:" in part]
    assert len(named) > 30
    for part in named:
        cls, _, attribute = part.removeprefix("types:").partition(".")
        assert hasattr(sptypes, cls), part
        if attribute:
            assert attribute in getattr(sptypes, cls).__jsonAttrDefs__, part


def test_the_package_has_every_call_with_the_same_method_and_path() -> None:
    theirs = {}
    for section in spapi.Api.spDoc.sections:
        for call in section.calls:
            theirs[call.query.partition("/")[0], call.method] = call.path
    assert len(theirs) > 60
    for name, call in contract().calls.items():
        assert theirs[name, call.method] == call.path, name


def _own_values(attribute: Any, value: Any) -> bool:
    """Return whether the package takes ``value`` as it is; what it would turn into something else says nothing."""
    try:
        taken = attribute.handleVal(value)
    except Exception:
        return False
    return taken == value and type(taken) is type(value)


def _refused(attribute: Any, value: Any) -> bool:
    try:
        attribute.handleVal(value)
    except Exception:
        return True
    return False


def _compare(what: str, attribute: Any, schema: dict[str, Any]) -> int:
    """Check that schema and package agree on all probes; returns on how many they said something."""
    said = 0
    definition = DATA["$defs"].get(schema.get("$ref", "").rpartition("/")[2], {})
    stricter = "stricter" in schema or "stricter" in definition
    for value in PROBES:
        ours = not list(contract().problems(schema, value))
        if _refused(attribute, value):
            said += 1
            assert not ours, f"{what}: the package refuses {value!r}, the schema takes it"
        elif _own_values(attribute, value):
            said += 1
            assert ours or stricter, f"{what}: the package takes {value!r}, the schema refuses it without a reason"
    return said


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["properties"]
    return found


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_requests_agree_with_the_package_field_by_field(name: str) -> None:
    schema, theirs = DATA["calls"][name]["request"], REQUESTS[name].__jsonAttrDefs__
    assert set(_properties(schema)) <= set(theirs)
    needed = {key for key, attribute in theirs.items() if _refused_default(attribute)}
    assert needed <= set(schema.get("required", ())) | {key for key in needed if key not in _properties(schema)}
    for field, attribute in theirs.items():
        if field in _properties(schema) and field not in LISTS:
            assert _compare(f"{name}.{field}", attribute, _properties(schema)[field])


def _refused_default(attribute: Any) -> bool:
    try:
        attribute.defaultVal()
    except Exception:
        return True
    return False


@pytest.mark.parametrize("kind", sorted(REASSIGN))
def test_reassignments_agree_with_the_package_field_by_field(kind: str) -> None:
    entries = DATA["$defs"]["reassign"]["items"]["anyOf"]
    schema = next(entry for entry in entries if entry["required"] == [kind])
    theirs = REASSIGN[kind].__jsonAttrDefs__
    for field, part in _properties(schema).items():
        assert _compare(f"{kind}.{field}", theirs[field], part)


def test_group_snapshots_agree_with_the_package_field_by_field() -> None:
    entry = DATA["calls"]["VolumesGroupSnapshot"]["request"]["properties"]["volumes"]["items"]
    theirs = sptypes.GroupSnapshotSpec.__jsonAttrDefs__
    assert set(_properties(entry)) == set(theirs)
    for field, part in _properties(entry).items():
        assert _compare(f"VolumesGroupSnapshot.volumes.{field}", theirs[field], part)


@pytest.mark.parametrize("name", sorted(PATHS))
def test_names_in_paths_agree_with_the_package(name: str) -> None:
    texts = [value for value in PROBES if isinstance(value, str)]
    for value in texts:
        ours = not list(contract().problems({"$ref": f"#/$defs/{name}"}, value))
        assert ours == _own_values(spType(PATHS[name]), value), value


def test_answers_name_only_what_the_package_knows() -> None:
    classes = {
        "volumeSummary": (sptypes.VolumeInfo,),
        "snapshotSummary": (sptypes.SnapshotSummary,),
        "template": (sptypes.VolumeTemplateDesc,),
        "groupSnapshot": (sptypes.GroupSnapshotResult,),
        "attachment": (sptypes.AttachmentDesc,),
        "disk": (sptypes.UpDiskSummary, sptypes.DownDiskSummary),
    }
    for definition, theirs in classes.items():
        known = set(itertools.chain.from_iterable(cls.__jsonAttrDefs__ for cls in theirs))
        assert set(_properties(DATA["$defs"][definition])) <= known, definition

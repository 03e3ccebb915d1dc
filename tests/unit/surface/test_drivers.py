# SPDX-License-Identifier: Apache-2.0
"""Every promised name of the drivers and their options is there, with its arguments, its default and its place."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from tests.unit.surface import rows
from volmgr import exception, states, types
from volmgr.conf import opts
from volmgr.db import models
from volmgr.drivers import interfaces, storpool
from volmgr.drivers.base import BaseVD
from volmgr.drivers.driver import VolumeDriver
from volmgr.drivers.fake import FakeISCSIDriver, FakeISERDriver
from volmgr.drivers.fibre_channel import FibreChannelDriver
from volmgr.drivers.file import FileDriver
from volmgr.drivers.interfaces import VERBS
from volmgr.drivers.iscsi import ISCSIDriver
from volmgr.drivers.iser import ISERDriver
from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.drivers.sim import SimDriver
from volmgr.manager import VolumeManager

ROOT = Path(__file__).resolve().parents[3]
CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        BaseVD, VolumeDriver, ISCSIDriver, ISERDriver, FibreChannelDriver, FakeISCSIDriver, FakeISERDriver,
        LVMVolumeDriver, storpool.StorPoolDriver,
        *(getattr(interfaces, name) for name in interfaces.__all__ if name.endswith("VD")),
    )
}
MIXINS = {name for name, cls in CLASSES.items() if getattr(cls, "_is_interface", False)}
METHODS = rows.of("driver method")
#: helpers of one driver, which the manager does not ask for.
HELPERS = {"manage_existing_object_get_size"}
#: the drivers that one can run; and the verbs that none of them needs: only drivers of others implement them.
OURS = (SimDriver, FileDriver, LVMVolumeDriver, storpool.StorPoolDriver, FakeISCSIDriver)
NOBODY = {"attach_volume", "clear_download", "detach_volume", "set_throttle", "update_provider_info"}
#: what the option says, where it is the machine's or another option's.
DEFAULTS = {"target_helper": "lioadm", "target_ip_address": "$my_ip"}
OPTIONS = {option.dest: option for _group, options in opts.list_opts() for option in options}


def definition(cls: type, name: str) -> Any:
    """Return a method as its class has it, without binding it."""
    return inspect.getattr_static(cls, name)


@pytest.mark.parametrize("row", rows.of("driver class"), ids=lambda row: row["name"])
def test_the_class_has_these_bases(row: dict[str, Any]) -> None:
    cls = CLASSES[row["name"]]
    assert all(issubclass(cls, CLASSES[base]) for base in row["bases"])


@pytest.mark.parametrize("row", METHODS, ids=lambda row: f"{row['class']}.{row['name']}")
def test_the_method_has_these_arguments(row: dict[str, Any]) -> None:
    cls, name = CLASSES[row["class"]], row["name"]
    found = definition(cls, name)
    assert isinstance(found, property) == row.get("property", False)
    assert isinstance(found, staticmethod) == row.get("static", False)
    if row.get("abstract"):
        assert found.__isabstractmethod__
    if isinstance(found, property):
        return
    wanted, have = rows.promised(row), list(inspect.signature(getattr(cls, name)).parameters.values())
    if not isinstance(found, staticmethod):
        have = have[1:]
    named = [item for item in have if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)]
    assert tuple(item.name for item in named[: len(wanted.places)]) == wanted.places
    assert {item.name for item in named if item.default is not item.empty} >= set(wanted.defaults)
    assert all(item.default is not item.empty for item in named[len(wanted.places) :])
    if wanted.more:
        assert any(item.kind is item.VAR_KEYWORD for item in have)


@pytest.mark.parametrize("name", sorted({row["name"] for row in METHODS if not row["name"].startswith("_")}))
def test_the_method_is_a_verb_that_drivers_are_asked_for(name: str) -> None:
    told = next(row for row in METHODS if row["name"] == name)
    if told.get("static") or told.get("property") or name in HELPERS:
        return
    assert VERBS[name][0].__name__ in MIXINS
    for cls in CLASSES.values():
        if hasattr(cls, "supports") and cls is not interfaces.ProxyVD:
            assert cls.supports(name) in (True, False)
    assert any(cls.supports(name) for cls in OURS) != (name in NOBODY)


@pytest.mark.parametrize("row", rows.of("constructor"), ids=lambda row: row["name"])
def test_the_constructor_takes_these(row: dict[str, Any]) -> None:
    cls = {**CLASSES, "VolumeManager": VolumeManager}[row["name"]]
    wanted, have = rows.promised(row), inspect.signature(cls).parameters
    for name, default in wanted.defaults.items():
        assert have[name].default == default or default is rows.ANY, name
    assert {item.kind for item in have.values()} >= {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


@pytest.mark.parametrize("row", rows.of("class attribute"), ids=lambda row: f"{row['class']}.{row['name']}")
def test_the_class_says(row: dict[str, Any]) -> None:
    assert getattr(CLASSES[row["class"]], row["name"])


def test_a_fake_executes_nothing_and_says_so() -> None:
    for cls in (FakeISCSIDriver, FakeISERDriver):
        assert cls.fake_execute("rm", "-rf", "/", run_as_root=True) == (None, None)


# --- rows and records -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", rows.of("volume access")[0]["names"])
def test_a_volume_answers_as_attribute_and_as_item(name: str) -> None:
    volume = types.Volume(id="5a8c0000-0000-4000-8000-000000000001", size=1)
    assert volume[name] == getattr(volume, name)
    assert name in volume


@pytest.mark.parametrize("name", rows.named("column"))
def test_the_database_keeps_what_drivers_say(name: str) -> None:
    # Which object a volume has takes the place of the name of the migrated one.
    assert name in models.volumes.c or name == "_name_id"
    assert "object_id" in models.volumes.c


def test_the_statuses_of_replication() -> None:
    (row,) = rows.of("statuses")
    assert set(row["values"]) <= set(states.REPLICATION.states)


@pytest.mark.parametrize("name", rows.named("error"))
def test_the_error_has_a_remedy(name: str) -> None:
    cls = getattr(exception, name)
    assert issubclass(cls, exception.VolmgrError)
    assert cls.code.startswith("volmgr.")


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows.of("option"), ids=lambda row: row["name"])
def test_the_option_has_this_default_and_is_in_the_sample(row: dict[str, Any]) -> None:
    option = OPTIONS[row["name"]]
    if row["default"] != "*":
        wanted = DEFAULTS.get(row["name"], row["default"])
        assert option.default == wanted or (wanted is None and option.default == "")
    sample = (ROOT / "etc" / "volmgr" / "volmgr.conf.sample").read_text(encoding="utf-8")
    assert f"\n#{row['name']} =" in sample, "run: make genconfig"


@pytest.mark.parametrize("row", rows.of("option family"), ids=lambda row: row["name"])
def test_the_family_of_options(row: dict[str, Any]) -> None:
    assert sum(name.startswith(row["name"]) for name in OPTIONS) >= row["least"]


@pytest.mark.parametrize("row", rows.of("choices"), ids=lambda row: row["name"])
def test_the_option_takes_these(row: dict[str, Any]) -> None:
    choices = getattr(OPTIONS[row["name"]].type, "choices", None)
    if choices:
        assert set(choices) >= set(row["choices"])
    else:
        told = OPTIONS[row["name"]].help or ""
        assert all(choice in told for choice in row["choices"])


# --- the first block store, targets, and what was given up ----------------------------------------------------------


@pytest.mark.parametrize("row", rows.of("helper"), ids=lambda row: row["name"])
def test_what_the_first_block_store_had_is_here(row: dict[str, str]) -> None:
    kind, _, verb = row["here"].partition(":")
    if kind == "rpc":
        assert getattr(VolumeManager, verb).exposed
        return
    found, names = None, row["here"].split(".")
    for count in range(len(names), 0, -1):
        try:
            found = importlib.import_module(".".join(names[:count]))
        except ModuleNotFoundError:
            continue
        for name in names[count:]:
            found = getattr(found, name)
        break
    assert found is not None


@pytest.mark.parametrize("name", rows.named("test"))
def test_the_tests_of_the_first_block_store_have_their_names(name: str) -> None:
    source = (ROOT / "tests" / "functional" / "aoe" / "test_block_store.py").read_text(encoding="utf-8")
    assert f"def {name}(" in source


@pytest.mark.parametrize("name", [*rows.named("target"), *rows.named("fabric")])
def test_the_target_is_here(name: str) -> None:
    room = "volmgr.targets.lio" if name in rows.named("fabric") else "volmgr.targets"
    assert importlib.import_module(f"{room}.{name}")


@pytest.mark.parametrize("row", rows.of("retired"), ids=lambda row: row["name"])
def test_what_was_given_up_is_told_with_the_reason(row: dict[str, str]) -> None:
    page = (ROOT / "doc" / "source" / f"{row['page']}.rst").read_text(encoding="utf-8")
    assert f"\n{row['name']}\n" in page
    assert row["reason"] in page

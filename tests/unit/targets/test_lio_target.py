# SPDX-License-Identifier: Apache-2.0
"""What the LIO target says where the kernel has no LIO, and that one export's cost does not depend on the others."""

from __future__ import annotations

import dataclasses
import os
import uuid
from pathlib import Path

import pytest

from tests.unit.targets.configfs_model import Model
from volmgr import exception, names
from volmgr.privileged import modules
from volmgr.targets.base import TargetConfig
from volmgr.targets.lio import LioTarget, iscsi
from volmgr.targets.lio.configfs import Configfs, apply
from volmgr.targets.lio.tree import plan
from volmgr.types import Chap, ExportSpec, Grant, Portal, Secret

PREFIX = "iqn.2010-10.org.openstack:"
INITIATOR = "iqn.1994-05.com.example:one"


def make_spec(folder: Path) -> ExportSpec:
    resource = str(uuid.uuid4())
    path = folder / resource
    path.write_bytes(bytes(4096))
    return ExportSpec(
        "volume", resource, names.target_name(PREFIX, "volume", resource), path=str(path), serial=names.new_serial(),
        auth=Chap("u", Secret("a-password")), grants=(Grant("1", initiator=INITIATOR),),
    )  # fmt: skip


class Counting(Model):
    """A model that notes which paths are asked for or changed."""

    def __init__(self) -> None:
        super().__init__({})
        self.asked: list[str] = []

    def exists(self, path: str) -> bool:
        self.asked.append(path)
        return super().exists(path)

    def folders(self, path: str) -> tuple[str, ...]:
        assert path not in ("core", "iscsi"), "all exports are listed"
        self.asked.append(path)
        return super().folders(path)

    def read(self, path: str) -> str:
        self.asked.append(path)
        return super().read(path)

    def links(self, path: str) -> dict[str, str]:
        self.asked.append(path)
        return super().links(path)


def make_one(tree: Counting, spec: ExportSpec) -> int:
    """Make an export and return how often the tree was asked."""
    wanted = iscsi.wanted(spec, [Portal("127.0.0.1", 3260)]) if spec.wanted else None
    tree.asked.clear()
    for step in plan(wanted, iscsi.read(tree, spec.target_name)):
        apply(tree, step)
    return len(tree.asked)


def test_cost_does_not_grow_with_the_other_exports(tmp_path: Path) -> None:
    tree = Counting()
    specs = [make_spec(tmp_path) for _ in range(60)]
    made = [make_one(tree, spec) for spec in specs]
    again = [make_one(tree, spec) for spec in specs]
    assert made[1] == made[-1]
    assert again[0] == again[-1]
    removed = [make_one(tree, dataclasses.replace(spec, wanted=False)) for spec in reversed(specs)]
    assert removed[0] == removed[-1]


def test_to_take_access_away_little_is_read(target: LioTarget, tmp_path: Path) -> None:
    """All is looked at where access is given, by another life of ours, and where anything else is to change."""
    tree = Counting()
    tree.root = str(tmp_path)  # type: ignore[attr-defined]
    (tmp_path / "core").mkdir()
    target.tree = tree  # type: ignore[assignment]
    other = LioTarget(target.config)
    other.tree = tree  # type: ignore[assignment]
    spec = make_spec(tmp_path)
    revoked = dataclasses.replace(spec, grants=())

    def asked(by: LioTarget, wanted: ExportSpec) -> int:
        tree.asked.clear()
        by.sync(wanted)
        return len(tree.asked)

    asked(target, spec)
    whole = asked(target, spec)
    assert asked(target, revoked) <= 8 < whole
    assert tree.folders(f"iscsi/{spec.target_name}/tpgt_1/acls") == ()
    assert target.sync(revoked) is False
    assert asked(target, spec) > 8, "who is let in meets what was looked at"
    assert asked(other, revoked) > 8, "another life has made nothing"
    asked(target, spec)
    # Somebody has opened it to all: that is seen even so.
    tree.write(f"iscsi/{spec.target_name}/tpgt_1/attrib/generate_node_acls", "1")
    assert target.sync(revoked) is True
    assert tree.read(f"iscsi/{spec.target_name}/tpgt_1/attrib/generate_node_acls") == "0"
    # And that all of it is gone.
    target.sync(spec)
    other.sync(dataclasses.replace(spec, wanted=False))
    assert target.sync(revoked) is True
    assert tree.exists(f"iscsi/{spec.target_name}/tpgt_1")


@pytest.fixture
def target(tmp_path: Path) -> LioTarget:
    options = {"lio_configfs": str(tmp_path / "target")}
    return LioTarget(TargetConfig(PREFIX, (Portal("127.0.0.1", 3260),), str(tmp_path), timeout=5, options=options))


def test_without_lio_every_verb_says_what_to_do(target: LioTarget, tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    for verb in (target.check, target.observe, lambda: target.sync(spec)):
        with pytest.raises(exception.BackendDown) as caught:
            verb()
        assert "modprobe target_core_mod" in caught.value.hint


def test_foreign_names_are_refused(target: LioTarget, tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    for name in ("iqn.2003-01.org.linux-iscsi:x", f"{PREFIX}x", f"{PREFIX}../x", f"{spec.target_name}.ro"):
        with pytest.raises(exception.Invalid):
            target.sync(dataclasses.replace(spec, target_name=name, wanted=False))


def test_connection_is_pure(target: LioTarget, tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    data = target.connection(spec, spec.grants[0])
    assert (data["target_iqn"], data["target_portal"], data["target_lun"]) == (spec.target_name, "127.0.0.1:3260", 1)
    assert (data["auth_username"], data["auth_password"]) == ("u", "a-password")
    target.validate_connector({"initiator": INITIATOR})
    with pytest.raises(exception.InvalidConnector):
        target.validate_connector({"initiator": "iqn.a/.."})


def test_refusal_names_the_step_and_no_secret(target: LioTarget, tmp_path: Path) -> None:
    # A folder that is no configfs: to make a target in it yields no attributes.
    (tmp_path / "target" / "core").mkdir(parents=True)
    spec = make_spec(tmp_path)
    with pytest.raises(exception.VolmgrError) as caught:
        target.sync(spec)
    assert "a-password" not in str(caught.value)
    assert spec.target_name in str(caught.value)


def test_module_that_is_there_needs_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "target_core_mod").mkdir()
    monkeypatch.setenv("PATH", "")
    modules.ensure(["target-core-mod"], timeout=5, sysfs=str(tmp_path))


def test_module_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(exception.BackendDown) as caught:
        modules.ensure(["volmgr_no_such_module"], timeout=20, sysfs=str(tmp_path))
    assert "volmgr_no_such_module" in str(caught.value) or "kmod" in caught.value.hint
    with pytest.raises(ValueError):
        modules.ensure(["--remove"], timeout=5)


def test_tree_is_read_without_following_links(tmp_path: Path) -> None:
    tree = Configfs(str(tmp_path))
    (tmp_path / "iscsi" / "a").mkdir(parents=True)
    os.symlink(tmp_path / "iscsi" / "a", tmp_path / "iscsi" / "link")
    (tmp_path / "iscsi" / "value").write_text("one\n")
    assert (tree.folders("iscsi"), tree.links("iscsi")) == (("a",), {"link": "iscsi/a"})
    assert (tree.read("iscsi/value"), tree.read("iscsi/none"), tree.folders("none")) == ("one", "", ())

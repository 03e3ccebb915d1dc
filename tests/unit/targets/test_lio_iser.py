# SPDX-License-Identifier: Apache-2.0
"""iSER is iSCSI with portals that take RDMA, and says what to do where there is no RDMA device."""

from __future__ import annotations

import errno
import uuid
from pathlib import Path

import pytest

from tests.unit.targets.configfs_model import Model
from volmgr import exception, names
from volmgr.drivers import loader
from volmgr.targets.base import TargetConfig
from volmgr.targets.lio import LioTarget, iscsi
from volmgr.targets.lio.configfs import apply
from volmgr.targets.lio.fc import FcTarget
from volmgr.targets.lio.iser import IserTarget
from volmgr.targets.lio.tree import Write, plan
from volmgr.types import Chap, ExportSpec, Grant, Portal, Secret

PREFIX = "iqn.2010-10.org.openstack:"
PORTAL = Portal("10.99.0.1", 3260)


@pytest.fixture
def spec(tmp_path: Path) -> ExportSpec:
    resource = str(uuid.uuid4())
    path = tmp_path / resource
    path.write_bytes(bytes(4096))
    return ExportSpec(
        "volume",
        resource,
        names.target_name(PREFIX, "volume", resource),
        path=str(path),
        serial=names.new_serial(),
        auth=Chap("u", Secret("a-password")),
        grants=(Grant("1", initiator="iqn.1994-05.com.example:one"),),
    )


@pytest.fixture
def target(tmp_path: Path) -> IserTarget:
    (tmp_path / "core").mkdir()
    options = {"lio_configfs": str(tmp_path), "rdma_devices": str(tmp_path / "infiniband")}
    return IserTarget(TargetConfig(PREFIX, (PORTAL,), str(tmp_path), timeout=5, options=options))


def sync(tree: Model, spec: ExportSpec, *, rdma: bool) -> int:
    steps = plan(iscsi.wanted(spec, [PORTAL], rdma=rdma), iscsi.read(tree, spec.target_name))
    for step in steps:
        apply(tree, step)
    return len(steps)


def test_portal_takes_rdma_and_not_any_more(spec: ExportSpec) -> None:
    tree = Model({})
    attribute = f"iscsi/{spec.target_name}/tpgt_1/np/{PORTAL}/iser"
    for rdma in (True, False, True):
        assert sync(tree, spec, rdma=rdma)
        assert tree.read(attribute) == str(int(rdma))
        assert sync(tree, spec, rdma=rdma) == 0


def test_connection_is_that_of_iscsi_without_discard(target: IserTarget, spec: ExportSpec) -> None:
    data = target.connection(spec, spec.grants[0])
    assert (target.protocol, data["target_portal"], data["target_iqn"]) == ("iser", str(PORTAL), spec.target_name)
    assert "discard" not in data
    assert data["auth_password"] == "a-password"


def test_no_rdma_device(target: IserTarget, tmp_path: Path) -> None:
    with pytest.raises(exception.BackendDown) as caught:
        target.check()
    assert "rdma link add" in caught.value.hint
    (tmp_path / "infiniband" / "rxe0").mkdir(parents=True)
    target.check()


def test_rdma_at_an_address_that_has_none(target: IserTarget) -> None:
    error = target._refused(Write(f"iscsi/x/tpgt_1/np/{PORTAL}/iser", "1"), OSError(errno.ENODEV, "No such device"))
    assert isinstance(error, exception.BackendDown)
    assert str(PORTAL) in error.message
    assert "iser_ip_address" in error.hint


@pytest.mark.parametrize(
    ("helper", "protocol", "cls"),
    [
        ("lioadm", "iscsi", LioTarget),
        ("lioadm", "iser", IserTarget),
        ("iseradm", "iser", IserTarget),
        ("lioadm", "fc", FcTarget),
        ("fcadm", "fc", FcTarget),
    ],
)
def test_helper_and_protocol_name_the_target(helper: str, protocol: str, cls: type) -> None:
    assert loader.load_target(helper, protocol) is cls


@pytest.mark.parametrize(("helper", "protocol"), [("vblade", "iscsi"), ("tgtadm", "fc"), ("fcadm", "aoe")])
def test_helper_that_does_not_speak_the_protocol(helper: str, protocol: str) -> None:
    with pytest.raises(exception.InvalidConfiguration) as caught:
        loader.load_target(helper, protocol)
    assert "target_protocol = " in caught.value.hint

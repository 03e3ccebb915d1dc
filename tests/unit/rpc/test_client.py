# SPDX-License-Identifier: Apache-2.0
"""Whom the client addresses by ``host``, and to whom it is an argument."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from volmgr import conf, context, exception
from volmgr.manager import VolumeManager
from volmgr.operations.registry import find
from volmgr.rpc import client
from volmgr.rpc.client import ABOUT_HOSTS, ANYWHERE, VolumeAPI, version_of


def test_each_verb_with_an_argument_host_is_known() -> None:
    found = set()
    for name in dir(VolumeManager):
        function = getattr(VolumeManager, name)
        if not getattr(function, "exposed", False):
            continue
        operation = find(name, 1)
        fields = set(operation.args.__dataclass_fields__) if operation is not None else set()
        if "host" in fields | set(inspect.signature(function).parameters):
            found.add(name)
    assert found == ABOUT_HOSTS
    assert ANYWHERE < ABOUT_HOSTS


def test_a_request_goes_out_in_the_lowest_version_that_serves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SINCE", {"get_volume.deep": "1.2", "teleport": "1.10"})
    assert version_of("get_volume", {"volume_id": "x"}) == "1.0"
    assert version_of("get_volume", {"volume_id": "x", "deep": True}) == "1.2"
    assert version_of("teleport", {"deep": True}) == "1.10"


def test_what_is_above_the_pinned_version_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SINCE", {"get_volume": "1.1"})
    monkeypatch.setattr(client, "RPC_VERSION", "1.1")
    file = tmp_path / "volmgr.conf"
    for pinned, error in (("1.0", exception.Unsupported), ("1.1", exception.ServiceUnavailable)):
        file.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\n[upgrade_levels]\nvolume = {pinned}\n")
        api = VolumeAPI(conf=conf.load(["--config-file", str(file)]), timeout=1)
        with pytest.raises(error) as refused:  # nobody serves here: what is sent is not delivered
            api.call(context.admin(), "get_volume", volume_id="x")
        assert (refused.type is exception.Unsupported) is ("upgrade_levels" in str(refused.value))
        api.close()


@pytest.mark.parametrize("wrong", ["2.0", "1", "latest", "1.0.0"])
def test_a_version_that_cannot_be_is_told_at_the_start(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "volmgr.conf").write_text(f"[upgrade_levels]\nvolume = {wrong}\n")
    with pytest.raises(exception.InvalidConfiguration, match="upgrade_levels"):
        conf.load(["--config-file", str(tmp_path / "volmgr.conf")])

# SPDX-License-Identifier: Apache-2.0
"""How values, progress and errors are shown; what is secret is not."""

from __future__ import annotations

import argparse
import io
import json
from typing import Any

import pytest

from volmgr import exception
from volmgr.cli import app, attachment, base, local, service, waiting

OPERATION: dict[str, Any] = {
    "id": "5f1c9a52-4f0c-4c43-8a4e-6b1a52a2a7de",
    "verb": "create_volume",
    "resource_id": "a",
    "state": "running",
    "step": "create",
    "progress": 0.25,
    "parked_for": None,
    "error": None,
}


def test_cells_are_empty_for_people_and_null_for_machines() -> None:
    empty = base.cell(None)
    assert empty.human_readable() == ""
    assert empty.machine_readable() is None
    assert base.cell(0) == 0
    assert base.cell("x") == "x"


def test_cells_of_mappings_and_lists() -> None:
    nested = base.cell({"a": 1, "b": [{"c": None, "d": True}]})
    assert nested.human_readable() == "a=1\nb=d=True"
    assert nested.machine_readable() == {"a": 1, "b": [{"c": None, "d": True}]}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "create_volume a: running create 25%"),
        ({"progress": None}, "create_volume a: running create"),
        ({"state": "queued"}, "create_volume a: queued"),
        ({"state": "parked", "parked_for": "backend"}, "create_volume a: parked for backend 25%"),
        ({"state": "done", "progress": 1.0}, "create_volume a: done 100%"),
    ],
)
def test_an_operation_in_one_line(changes: dict[str, Any], wanted: str) -> None:
    assert waiting.describe({**OPERATION, **changes}) == wanted


def test_lines_are_written_only_when_something_has_changed() -> None:
    out = io.StringIO()
    lines = waiting.display_for(out)
    for progress in (0.25, 0.26, 0.29, 0.3):
        lines.show({**OPERATION, "progress": progress})
    lines.close()
    assert out.getvalue().splitlines() == [
        "create_volume a: running create 25%",
        "create_volume a: running create 30%",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    out = Terminal()
    bar = waiting.display_for(out)
    bar.show({**OPERATION, "progress": None})
    bar.show(OPERATION)
    bar.close()
    shown = out.getvalue()
    assert "create_volume a: running create 25%" in shown
    assert "\x1b[2K" in shown, "the line of the bar is not erased"


def test_a_failed_operation_raises_its_own_error() -> None:
    primitive = exception.to_primitive(exception.NoSpace("full", hint="buy disks"))
    with pytest.raises(exception.NoSpace, match="full") as caught:
        waiting.ended({**OPERATION, "state": "failed", "error": primitive})
    assert caught.value.hint == "buy disks"


def test_a_parked_operation_is_not_waited_for() -> None:
    with pytest.raises(exception.Conflict, match="no route") as caught:
        waiting.ended({**OPERATION, "state": "parked", "error": {"message": "no route"}})
    assert f"volmgr operation retry {OPERATION['id']}" in caught.value.hint


def test_errors_are_a_message_and_a_hint_on_stderr() -> None:
    out, err = io.StringIO(), io.StringIO()
    program = app.VolmgrApp(stdout=out, stderr=err)
    program.options = argparse.Namespace(debug=False)
    program.complain(exception.NoSpace("full", hint="buy disks"))
    program.complain(exception.NoSpace("full"))
    assert err.getvalue() == "volmgr: full\nhint: buy disks\nvolmgr: full\n"
    assert out.getvalue() == ""


def test_passwords_are_covered_unless_they_are_asked_for() -> None:
    info = {"driver_volume_type": "iscsi", "data": {"auth_username": "u", "auth_password": "geheim", "target_lun": 1}}
    covered = attachment.hide(info, show=False)
    assert "geheim" not in json.dumps(covered)
    assert covered["data"] == {"auth_username": "u", "auth_password": "***", "target_lun": 1}
    assert attachment.hide(info, show=True) == info
    assert info["data"]["auth_password"] == "geheim"


def _volume(*attachments: dict[str, Any]) -> dict[str, Any]:
    return {"id": "v", "attachments": list(attachments)}


def _attachment(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "host_name": "here", "instance_uuid": None, "connector": {"host": "here"}, **changes}


def test_detach_chooses_only_this_hosts_own_attachment() -> None:
    chosen = local.own_attachment(_volume(_attachment(id="other", host_name="there"), _attachment()), "here")
    assert chosen["id"] == "a"


@pytest.mark.parametrize("changes", [{"host_name": "there"}, {"instance_uuid": "i"}, {"connector": None}])
def test_detach_never_takes_an_instances_or_another_hosts_attachment(changes: dict[str, Any]) -> None:
    with pytest.raises(exception.AttachmentNotFound, match="not attached to the host here") as caught:
        local.own_attachment(_volume(_attachment(**changes)), "here")
    assert "volmgr attachment list --volume v" in caught.value.hint


def test_backends_show_their_first_pools_space() -> None:
    pool = {"total_capacity_gb": 10.04, "free_capacity_gb": "unknown", "provisioned_capacity_gb": 2.0}
    stats = {"storage_protocol": "iSCSI", "pools": [pool]}
    shown = service.summary({"host": "h@b", "state": "up", "capabilities": stats})
    wanted = {"protocol": "iSCSI", "total_gb": 10.0, "free_gb": "unknown", "provisioned_gb": 2.0}
    assert {key: shown[key] for key in wanted} == wanted
    assert shown["host"] == "h@b"
    assert service.summary({"host": "h@b", "capabilities": None})["total_gb"] is None


def test_a_backend_is_found_by_its_name_if_it_is_the_only_one() -> None:
    rows = [{"host": "one@fast"}, {"host": "two@fast"}, {"host": "two@slow"}]
    assert service.chosen(rows, "two@fast") is rows[1]
    assert service.chosen(rows, "slow") is rows[2]
    with pytest.raises(exception.Invalid, match="Several backends") as caught:
        service.chosen(rows, "fast")
    assert "one@fast, two@fast" in caught.value.hint
    with pytest.raises(exception.NotFound):
        service.chosen(rows, "none")


@pytest.mark.parametrize(
    ("check", "good", "value", "bad"),
    [
        (base.pair, "a=b=c", ("a", "b=c"), "=b"),
        (base.sort_key, "size:desc", ("size", "desc"), "size:up"),
        (base.sort_key, "size", ("size", "asc"), ":asc"),
        (base.positive, "7", 7, "0"),
        (base.seconds, "0.5", 0.5, "86401"),
        (base.an_id, "5f1c9a52-4f0c-4c43-8a4e-6b1a52a2a7de", "5f1c9a52-4f0c-4c43-8a4e-6b1a52a2a7de", "5F1C"),
    ],
)
def test_values_of_options(check: Any, good: str, value: Any, bad: str) -> None:
    assert check(good) == value
    with pytest.raises(argparse.ArgumentTypeError):
        check(bad)



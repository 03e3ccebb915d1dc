# SPDX-License-Identifier: Apache-2.0
"""The operator's verbs against the real daemon: audit, why, resets, switches, and a backend that is down at first."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from volmgr import exception, names
from volmgr.context import MEMBER, RequestContext
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.waiting import wait_until

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}


def new_id() -> str:
    return str(uuid.uuid4())


def manage(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    """Run volmgr-manage beside a daemon."""
    argv = [sys.executable, "-W", "ignore", "-m", "volmgr.cmd.manage", "--config-file", str(daemon.config_file), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def sql(daemon: Daemon, statement: str, *values: Any) -> None:
    """Change SQL behind the daemon's back."""
    with closing(sqlite3.connect(daemon.state / "volmgr.sqlite", timeout=30)) as conn, conn:
        conn.execute(statement, values)


def stored(daemon: Daemon, name: str) -> Any:
    return daemon.folder / "sim" / name


def test_an_audit_from_the_command_line(daemon: Daemon, client: Client) -> None:
    kept, lost, orphan = new_id(), new_id(), new_id()
    for volume_id in (kept, lost):
        client.do("create_volume", volume_id, size=1)
    clean = manage(daemon, "audit")
    assert (clean.returncode, clean.stdout) == (0, "node@b: 0 findings\n"), clean.stderr
    stored(daemon, names.object_name("volume", lost)).unlink()
    stored(daemon, names.object_name("volume", orphan)).write_bytes(b"somebody's")
    sql(daemon, "UPDATE volumes SET status = 'extending' WHERE id = ?", kept)
    found = manage(daemon, "audit", "--json")
    assert found.returncode == 3, found.stderr
    (report,) = json.loads(found.stdout)
    by_kind = {item["kind"]: item for item in report["findings"]}
    assert {kind: item["resource_id"] for kind, item in by_kind.items()} == {
        "storage-missing": lost, "storage-orphan": orphan, "status-stuck": kept,
    }
    fixed = manage(daemon, "audit", "--fix")
    assert fixed.returncode == 3
    assert "settle: extending became available" in fixed.stdout
    assert f"--fix --finding {by_kind['storage-orphan']['id']}" in fixed.stdout
    assert stored(daemon, names.object_name("volume", orphan)).exists()
    assert client.api.get_volume(client.context, kept)["status"] == "available"
    listed = client.api.list_findings(client.context, filters={"resource_id": orphan})
    assert [item["id"] for item in listed] == [by_kind["storage-orphan"]["id"]]
    assert client.api.get_finding(client.context, listed[0]["id"]) == listed[0]
    with pytest.raises(exception.NotFound):
        client.api.get_finding(client.context, orphan)
    named = manage(daemon, "audit", "--fix", "--finding", by_kind["storage-orphan"]["id"])
    assert "does it" in named.stdout
    wait_until(lambda: not stored(daemon, names.object_name("volume", orphan)).exists(), 30, "the orphan is freed")
    client.do("delete_volume", lost)
    wait_until(lambda: manage(daemon, "audit").returncode == 0, 60, "nothing is left to find")
    daemon.stop()
    assert manage(daemon, "audit").returncode == 1


def test_only_an_administrator_may(client: Client) -> None:
    member = RequestContext(project_id="p", roles=[MEMBER], overwrite=False)
    for call in (
        lambda: client.api.audit(member),
        lambda: client.api.list_findings(member),
        lambda: client.api.get_finding(member, new_id()),
        lambda: client.api.reset_status(member, "volume", new_id(), "error"),
        lambda: client.api.service_disable(member),
    ):
        with pytest.raises(exception.Forbidden):
            call()


def test_why_is_one_screen(daemon: Daemon, client: Client) -> None:
    volume_id, attachment_id = new_id(), new_id()
    client.do("create_volume", volume_id, size=1)
    client.api.attachment_create(client.context, attachment_id, volume_id, new_id())
    client.api.attachment_update(client.context, volume_id, CONNECTOR, attachment_id)
    told = client.api.why(client.context, volume_id)
    name = names.object_name("volume", volume_id)
    for part in (
        f"volume {volume_id}: attaching, 1 GiB on node@b#b",
        f"SQL: {name}, 1073741824 bytes, serial ",
        f"granted to iqn:{CONNECTOR['initiator']} (rw)",
        f"storage: {name}, 1073741824 bytes",
        f"lets in {CONNECTOR['initiator']}, connected is nobody",
        f"attachment {attachment_id}: attaching",
        "create_volume done at ",
        "next: the instance connects, or: volmgr attachment delete",
    ):
        assert part in told["text"], told["text"]
    stored(daemon, name).unlink()
    assert "storage: missing" in client.api.why(client.context, volume_id)["text"]
    assert manage(daemon, "audit").returncode == 3
    told = client.api.why(client.context, volume_id)
    assert [item["kind"] for item in told["findings"]] == ["storage-missing"]
    assert "next: storage-missing: " in told["text"]
    client.do("delete_volume", volume_id, force=True)
    told = client.api.why(client.context, volume_id)
    assert told["text"].startswith(f"volume {volume_id}: gone\n")
    assert "(unexport-" in told["text"], "each step's time is told"
    with pytest.raises(exception.NotFound):
        client.api.why(client.context, new_id())


def test_a_reset_is_told_first_then_done_and_audited(daemon: Daemon, client: Client) -> None:
    volume_id = new_id()
    client.do("create_volume", volume_id, size=1)
    told = manage(daemon, "volume", "reset-status", volume_id, "in-use")
    assert told.returncode == 1
    assert "would break: no attachment says so" in told.stdout
    assert client.api.get_volume(client.context, volume_id)["status"] == "available"
    done = manage(daemon, "volume", "reset-status", volume_id, "in-use", "--yes")
    assert done.returncode == 3
    assert "now found: status-wrong" in done.stdout
    assert client.api.list_operations(client.context, filters={"verb": "reset_status"})[0]["resource_id"] == volume_id
    assert manage(daemon, "volume", "reset-status", volume_id, "available", "--yes").returncode == 0
    wrong = manage(daemon, "volume", "reset-status", volume_id, "extending", "--yes")
    assert (wrong.returncode, "must be one of" in wrong.stderr) == (1, True)


def test_a_disabled_worker_takes_nothing_new(daemon: Daemon, client: Client) -> None:
    volume_id, other = new_id(), new_id()
    client.do("create_volume", volume_id, size=1)
    client.api.service_disable(client.context, daemon.host, "the disks are replaced")
    (service,) = client.api.list_services(client.context, filters={"disabled": True}, limit=1)
    assert client.api.get_service(client.context, daemon.host)["disabled_reason"] == service["disabled_reason"]
    with pytest.raises(exception.NotFound):
        client.api.get_service(client.context, "nobody@nowhere")
    assert client.api.list_backends(client.context, marker=daemon.host) == []
    client.api.notification(client.context, "a disk was replaced", host=daemon.host)
    assert (service["disabled"], service["disabled_reason"]) == (True, "the disks are replaced")
    with pytest.raises(exception.NoSpace, match="the disks are replaced") as refused:
        client.do("create_volume", other, size=1)
    assert "volmgr service enable node@b" in refused.value.hint
    client.do("extend_volume", volume_id, 2)
    found = client.api.service_drain(client.context, daemon.host, "the disks are replaced", timeout=5)
    assert (found["unfinished"], found["parked"]) == (0, 0)
    daemon.stop()
    daemon.start()
    with pytest.raises(exception.NoSpace):
        client.do("create_volume", other, size=1)
    client.api.service_enable(client.context, daemon.host)
    client.do("create_volume", other, size=1)
    with pytest.raises(exception.NotFound):
        client.api.service_disable(client.context, "nobody@b")


def test_a_backend_that_is_down_at_first(make_daemon: Callable[..., Daemon]) -> None:
    """It is reported with the reason and tried again; what was asked meanwhile is done once it is there."""
    daemon = make_daemon(options={"report_interval": 0.5})
    volume_id, connected = new_id(), new_id()
    daemon.start()
    with daemon.client() as client:
        client.do("create_volume", connected, size=1)
        client.api.initialize_connection(client.context, connected, CONNECTOR)
    daemon.stop()
    faults = daemon.folder / "faults.json"
    faults.write_text(json.dumps([{
        "verb": "check_for_setup_error", "times": None, "error": "volmgr.backend_down", "message": "no disks today",
    }]))
    daemon.config_file.write_text(daemon.config_file.read_text() + f"sim_faults_file = {faults}\n")
    daemon.start(wait=False)
    with daemon.client() as client:

        def service() -> dict[str, Any]:
            return client.api.list_services(client.context)[0]

        wait_until(
            lambda: service()["state"] == "down", 60, "it is reported down",
            retry_on=(exception.BackendDown, exception.Timeout),
        )
        assert "no disks today" in service()["reason"]
        assert service()["up"], "the worker itself lives"
        answer = client.api.create_volume(client.context, volume_id, size=1)
        assert answer["state"] == "queued"
        with pytest.raises(exception.BackendDown, match="no disks today"):
            client.api.initialize_connection(client.context, volume_id, CONNECTOR)
        with pytest.raises(exception.BackendDown, match="no disks today"):
            client.api.audit(client.context)
        faults.unlink()
        client.api.wait_operation(client.context, answer["operation_id"])
        wait_until(lambda: service()["state"] == "up", 30, "it is reported up")
        assert service()["reason"] is None
        told = wait_until(
            lambda: "lets in" in client.api.why(client.context, connected)["text"], 30, "its exports are made again"
        )
        assert told
        assert client.api.audit(client.context)["findings"] == []

# SPDX-License-Identifier: Apache-2.0
"""What helps from afar: log lines that say what they are about, guru meditations, and a bundle without any secret."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from volmgr import crypto, exception
from volmgr.db import models
from volmgr.db.engine import Database
from volmgr.support.meditation import path_of
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
CONNECTOR = {"host": "h", "ip": "127.0.0.1", "initiator": "iqn.1993-08.org.debian:01:h"}


def report(daemon: Daemon, folder: Path, *options: str) -> tuple[dict[str, str], bytes, str]:
    """Return the files of a bundle, everything as bytes, and what was said on standard error."""
    path = folder / f"report-{uuid.uuid4()}.tar.gz"
    argv = ["-m", "volmgr.cmd.manage", "--config-file", str(daemon.config_file), "report", "--output", str(path)]
    done = subprocess.run(
        [sys.executable, *argv, *options], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as tar:
        files = {Path(item.name).name: tar.extractfile(item).read() for item in tar}  # type: ignore[union-attr]
    return {name: content.decode() for name, content in files.items()}, b"\n".join(files.values()), done.stderr


def log_options(tmp_path: Path, **options: Any) -> dict[str, Any]:
    return {"log_file": tmp_path / "volmgr.log", **options}


def refuse(client: Client) -> str:
    """Send a request that is refused; returns the id that it was about."""
    missing = str(uuid.uuid4())
    with pytest.raises(exception.VolumeNotFound):
        client.api.extend_volume(client.context, missing, 5)
    return missing


def test_a_line_says_which_request_and_what_it_is_about(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps([{"verb": "create_volume", "error": "volmgr.no_space"}]))
    backend = {
        "volume_driver": "sim", "target_helper": "fake", "sim_store_path": tmp_path / "sim", "sim_faults_file": faults,
    }
    daemon = make_daemon(backend=backend, options=log_options(tmp_path)).start()
    with daemon.client() as client:
        missing, created = refuse(client), str(uuid.uuid4())
        with pytest.raises(exception.NoSpace):
            client.do("create_volume", created, size=1)
        (operation,) = client.api.list_operations(client.context, filters={"resource_id": created})
    log = (tmp_path / "volmgr.log").read_text()
    request = client.context.request_id
    assert f"[{request} {missing} -] 'extend_volume' is answered with volmgr.not_found.volume" in log
    # The operation ran in a thread of a lane, behind the request.
    assert f"[{request} {created} {operation['id']}] Operation {operation['id']} (create_volume" in log
    # What no request is about does not bear the last one's.
    assert f"[{request}" not in next(line for line in log.splitlines() if "Serving node@b" in line)
    daemon.stop()
    stopped = next(line for line in (tmp_path / "volmgr.log").read_text().splitlines() if "Stopped" in line)
    assert request not in stopped


def test_lines_as_json(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon(options=log_options(tmp_path, use_json=True)).start()
    with daemon.client() as client:
        missing = refuse(client)
    lines = [json.loads(line) for line in (tmp_path / "volmgr.log").read_text().splitlines()]
    (line,) = [line for line in lines if "'extend_volume' is answered" in line["message"]]
    assert line["levelname"] == "INFO"
    assert line["context"] == {
        "request_id": client.context.request_id, "resource_id": missing, "operation_id": "-",
    }


def test_what_pretends_to_be_an_id_forges_no_line(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon(options=log_options(tmp_path)).start()
    forged = "x] all is well\n2026-01-01 00:00:00.000 1 ERROR volmgr [req-1 -"
    with daemon.client() as client:
        client.context.request_id = forged
        with pytest.raises(exception.Invalid):
            client.api.call(client.context, "extend_volume", volume_id=forged, new_size=5)
    log = (tmp_path / "volmgr.log").read_text()
    # Its own words are told, on its own line; the places of the ids are empty.
    assert "[- - -] 'extend_volume' is answered with volmgr.invalid" in log
    assert not [line for line in log.splitlines() if line.startswith("2026-01-01")]


@pytest.mark.once
@pytest.mark.parametrize("concurrency", ["eventlet", "threading"])
def test_a_daemon_says_what_it_is_at(make_daemon: Callable[..., Daemon], concurrency: str) -> None:
    daemon = make_daemon(sections={"backup": {"s3_secret_key": "not-for-anybody"}})
    daemon.start(VOLMGR_CONCURRENCY=concurrency)
    path = path_of(str(daemon.state), daemon.host)
    os.kill(daemon.pid, signal.SIGUSR2)
    wait_until(path.exists, 60, "the report is written")
    text = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert "service = node@b" in text and "works = True" in text
    assert "dispatch.py" in text, "the thread that pumps the journal"
    assert "s3_secret_key" in text and "not-for-anybody" not in text
    with daemon.client() as client:
        client.do("create_volume", str(uuid.uuid4()), size=1)
    assert daemon.stop() == 0


def test_a_bundle_has_what_helps_and_no_secret(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    planted = {
        "s3_secret_key": "pl4nted.by/flag+s3",
        "replication": "pl4nted-by-flag-replica",
        "broker": "pl4nted:in@a/url",
        "store": "pl4nted-in-an-option-without-flag",
    }
    daemon = make_daemon(
        backend={
            "volume_driver": "sim", "target_helper": "fake", "sim_store_path": tmp_path / "sim",
            "replication_device": f"backend_id:second,san_password:{planted['replication']}",
        },
        options=log_options(tmp_path),
        sections={
            "backup": {
                "s3_secret_key": planted["s3_secret_key"],
                "stores": f"other:s3+https://key:{planted['store']}@host/bucket",
            },
        },
    ).start()
    with daemon.client() as client:
        volume_id = str(uuid.uuid4())
        client.do("create_volume", volume_id, size=1)
        info = client.api.initialize_connection(client.context, volume_id, CONNECTOR)
        refuse(client)
    chap = info["data"]["auth_password"]
    keys = json.loads((daemon.state / "keys.json").read_text())["keys"].values()
    database = Database(f"sqlite:///{daemon.state / 'volmgr.sqlite'}", pool_size=1)
    cipher = crypto.read_key_file(str(daemon.state / "keys.json"))
    sealed = "provider5ecret99"
    with database.writer() as conn:
        auth = cipher.encrypt("volumes", "provider_auth", volume_id, crypto.Secret(f"CHAP user {sealed}"))
        conn.execute(sa.update(models.volumes).values(provider_auth=auth))
        error = {"code": "volmgr.error", "message": f"tgtd refused {chap} and --password={planted['broker']}"}
        conn.execute(sa.update(models.operations).values(error=error))
    database.close()
    with (tmp_path / "volmgr.log").open("a") as log:
        log.write(f"a careless library: {chap} {base64.b64encode(chap.encode()).decode()} {sealed} {' '.join(keys)}\n")
        log.write("connecting rabbit://volmgr:pl4nted:in%40a%2Furl@broker/v, postgresql://u:pl4nted5ql@db/volmgr\n")
        log.write('{"auth_password": "pl4nted json", "api_key": \'pl4nted quote\'} X-Auth-Token: pl4ntedtoken\n')
        log.write("Authorization: Bearer pl4nted.bearer.token CHAP someone pl4ntedchap\n")
        log.write("-----BEGIN PRIVATE KEY-----\npl4ntedpem\n-----END PRIVATE KEY-----\nthe last line\n")
    files, everything, said = report(daemon, tmp_path)
    for secret in (*planted.values(), chap, sealed, *keys, base64.b64encode(chap.encode()).decode(), "pl4nted"):
        assert secret.encode() not in everything, secret
    # It has not been made safe by having nothing in it.
    assert "s3_secret_key = ***" in files["configuration.conf"]
    assert "enabled_backends = ['b']" in files["configuration.conf"]
    found = json.loads(files["database.json"])
    assert found["schema"] == found["wanted_schema"] and found["resources"]["volumes"] == {"available": 1}
    assert {(item["verb"], item["state"]) for item in found["operations"]} >= {("create_volume", "done")}
    assert found["services"][0]["host"] == "node@b"
    assert json.loads(files["versions.json"])["volmgr"]
    assert "service = node@b" in files["meditation-b.txt"]
    assert "is answered with volmgr.not_found.volume" in files["log.txt"] and "the last line" in files["log.txt"]
    assert "rabbit://volmgr:***@broker" in files["log.txt"] and "a careless library: *** *** ***" in files["log.txt"]
    assert json.loads(files["missing.json"]) == {} and said == ""


def test_a_bundle_of_a_host_where_nothing_runs(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon()
    files, _everything, said = report(daemon, tmp_path, "--lines", "10")
    missing = json.loads(files["missing.json"])
    assert {"database.json", "meditation-b.txt", "secrets by value"} <= set(missing)
    assert "does not run" in missing["meditation-b.txt"] and "without database.json: " in said
    assert not daemon.state.exists() or not list(daemon.state.rglob("*.sqlite"))

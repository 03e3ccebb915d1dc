# SPDX-License-Identifier: Apache-2.0
"""What a real daemon tells over HTTP: its health with reasons, and metrics that the alerts and the dashboard name."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from volmgr import exception
from volmgr.testing.daemon import Daemon, free_port
from volmgr.testing.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]


def fetch(port: int, path: str) -> tuple[int, str]:
    """Return the status and the body of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(port: int) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return what a scrape finds, by the sample's name."""
    status, text = fetch(port, "/metrics")
    assert status == 200
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(found: dict[str, list[tuple[dict[str, str], float]]], name: str, **labels: str) -> float:
    (only,) = [number for has, number in found[name] if labels.items() <= has.items()]
    return only


@pytest.mark.once
@pytest.mark.parametrize("concurrency", ["eventlet", "threading"])
def test_requests_operations_and_what_there_is(make_daemon: Callable[..., Daemon], concurrency: str) -> None:
    port = free_port()
    daemon = make_daemon(sections={"metrics": {"port": port}}).start(VOLMGR_CONCURRENCY=concurrency)
    with daemon.client() as client:
        for _ in range(3):
            client.do("create_volume", str(uuid.uuid4()), size=2)
        with pytest.raises(exception.VolumeNotFound):
            client.api.extend_volume(client.context, str(uuid.uuid4()), 5)
    found = samples(port)
    assert value(found, "volmgr_operation_seconds_count", verb="create_volume", outcome="ok") == 3
    assert value(found, "volmgr_request_seconds_count", verb="create_volume", outcome="ok") == 3
    assert value(found, "volmgr_request_seconds_count", verb="extend_volume", outcome="volmgr.not_found.volume") == 1
    assert value(found, "volmgr_resources", noun="volume", status="available") == 3
    assert value(found, "volmgr_resources_gib", noun="volume", status="available") == 6
    assert value(found, "volmgr_backend_up") == 1
    assert value(found, "volmgr_database_up") == 1
    assert value(found, "volmgr_build_info", host=daemon.host) == 1
    wait_until(lambda: fetch(port, "/readyz")[0] == 200, 30, "the exports are made")
    assert fetch(port, "/healthz")[0] == 200
    assert fetch(port, "/secrets")[0] == 404
    assert daemon.stop() == 0


def test_a_backend_that_is_down_lives_and_is_not_ready(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    port = free_port()
    backend = {"volume_driver": "volmgr.drivers.lvm.LVMVolumeDriver", "target_helper": "fake",
               "volume_group": "there-is-none", "target_ip_address": "127.0.0.1"}
    daemon = make_daemon(backend=backend, sections={"metrics": {"port": port}}).start(wait=False)

    def answers() -> Any:
        try:
            return fetch(port, "/readyz")
        except (OSError, urllib.error.URLError):
            return None

    status, body = wait_until(answers, 60, "the daemon answers")
    assert status == 503
    wait_until(lambda: "there-is-none" in fetch(port, "/readyz")[1], 60, "the reason is told")
    reasons = json.loads(fetch(port, "/readyz")[1])["reasons"]
    assert set(reasons) == {"backend", "exports"}, body
    assert fetch(port, "/healthz")[0] == 200
    assert value(samples(port), "volmgr_backend_up") == 0
    assert daemon.process is not None
    assert daemon.stop() == 0


def test_what_alerts_and_dashboard_ask_for_is_there(make_daemon: Callable[..., Daemon]) -> None:
    port = free_port()
    daemon = make_daemon(sections={"metrics": {"port": port}}).start()
    with daemon.client() as client:
        client.do("create_volume", str(uuid.uuid4()), size=1)
    _status, text = fetch(port, "/metrics")
    assert daemon.stop() == 0
    known = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE)) | set(samples_of(text))
    asked = set()
    for path in ("etc/prometheus/volmgr.rules.yml", "etc/grafana/volmgr.json"):
        asked |= set(re.findall(r"\b(?:volmgr|process)_\w+", (ROOT / path).read_text()))
    assert len(asked) >= 12
    assert not asked - known


def samples_of(text: str) -> set[str]:
    """Return the names of all samples of a scrape."""
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def test_a_port_that_is_taken_is_named(make_daemon: Callable[..., Daemon]) -> None:
    port = free_port()
    first = make_daemon("first", sections={"metrics": {"port": port}}).start()
    second = make_daemon("second", sections={"metrics": {"port": port}}).start(wait=False)
    assert second.process is not None
    assert second.process.wait(60) == 1
    assert f"127.0.0.1:{port}" in second.tail()
    assert "[metrics]" in second.tail()
    assert first.stop() == 0

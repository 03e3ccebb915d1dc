# SPDX-License-Identifier: Apache-2.0
"""The status page in a real browser, over a real daemon; and who gets it at all."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from volmgr import exception
from volmgr.db import models
from volmgr.db.engine import Database, utcnow
from volmgr.testing import browser
from volmgr.testing.daemon import Client, Daemon, free_port
from volmgr.testing.waiting import wait_until

pytestmark = pytest.mark.once
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
SECONDS = 60.0


class Site:
    """A daemon with a status page, and something to see."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        self.daemon, self.port = daemon, port

    def get(self, path: str, host: str | None = None) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers={"Host": host} if host else {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()
        finally:
            connection.close()

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/status.json")[2])
        return found

    def change(self, *statements: Any) -> None:
        """Change the database behind the daemon's back."""
        database = Database(f"sqlite:///{self.daemon.state / 'volmgr.sqlite'}", pool_size=1)
        try:
            with database.writer() as conn:
                for statement in statements:
                    conn.execute(statement)
        finally:
            database.close()


def _finding(name: str, reason: str) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()), "host": "node@b", "kind": "missing-object", "resource": "volume",
        "resource_id": name, "name": "volume-x", "reason": reason, "repair": "operator", "safe": False,
        "created_at": utcnow(), "seen_at": utcnow(),
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One daemon for the tests that follow each other here; the last of them ends it."""
    tmp_path = tmp_path_factory.mktemp("status-page")
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps([
        {"verb": "create_volume", "error": "volmgr.no_space", "message": f"no room for {EVIL}", "times": 1},
        {"verb": "create_cloned_volume", "action": "delay", "seconds": 600, "times": None},
    ]))
    port = free_port()
    backend = {
        "volume_driver": "sim", "target_helper": "fake", "sim_store_path": tmp_path / "sim", "sim_faults_file": faults,
        "sim_capacity_gb": 1000,
    }
    daemon = Daemon(
        tmp_path / "node", backend=backend, options={"reconcile_interval": 0, "placement_attempts": 1},
        sections={"metrics": {"port": port}},
    )
    try:
        daemon.start()
        yield _filled(daemon, port)
    finally:
        if daemon.process is not None:
            daemon.kill()


def _filled(daemon: Daemon, port: int) -> Site:
    with daemon.client() as client:
        _fill(client)
    made = Site(daemon, port)
    made.change(
        sa.update(models.operations).where(models.operations.c.state == "running").values(progress=0.4242),
        sa.insert(models.findings).values(_finding(str(uuid.uuid4()), f"its storage is not there {EVIL}")),
        sa.update(models.services).values(
            capabilities={"pools": [
                {"pool_name": EVIL, "total_capacity_gb": 1000.0, "free_capacity_gb": 100.0,
                 "provisioned_capacity_gb": 2000.0},
                {"pool_name": "unmeasured", "total_capacity_gb": "unknown", "free_capacity_gb": "infinite"},
            ]}
        ),
    )
    return made


def _fill(client: Client) -> None:
    with pytest.raises(exception.NoSpace):
        client.do("create_volume", str(uuid.uuid4()), size=1, name="too big")
    source = str(uuid.uuid4())
    client.do("create_volume", source, size=1, name="source")
    context, copy = client.context, str(uuid.uuid4())
    client.api.create_volume(context, copy, size=1, source_volid=source, name=EVIL)
    wait_until(
        lambda: client.api.list_operations(context, filters={"resource_id": copy, "state": "running"}),
        SECONDS, "the clone runs",
    )


@pytest.fixture
def page() -> Iterator[browser.Page]:
    from tests.conftest import require

    program = next((path for name in browser.PROGRAMS if (path := shutil.which(name))), None)
    with browser.browser(program or require(browser.PROGRAMS[0])) as made:
        yield made


def cells(page: browser.Page, section: str) -> list[list[str]]:
    """Return the text of a table's cells, as somebody would read it."""
    script = (
        f"[...document.querySelectorAll('#{section} tbody tr')].map("
        "row => [...row.cells].map(cell => cell.innerText))"
    )
    found: list[list[str]] = page.value(script)
    return found


def test_what_is_shown_and_that_names_are_only_names(site: Site, page: browser.Page) -> None:
    page.size(1200, 900)
    page.open(f"http://127.0.0.1:{site.port}/")
    wait_until(lambda: cells(page, "backends"), SECONDS, "the page shows the backends")
    first, second = cells(page, "backends")
    assert first[0].startswith("node@b") and first[1].startswith("up") and first[2] == EVIL
    assert first[4] == "100 GiB of 1000 GiB free, 2000 GiB promised" and second[4] == "free: unknown"
    (running,) = cells(page, "operations")
    assert running[0] == "create_volume" and running[1].startswith(EVIL) and "42 %" in running[3]
    (finding,) = cells(page, "findings")
    assert EVIL in finding[2] and "repair: operator" in finding[2]
    (error,) = cells(page, "errors")
    assert f"no room for {EVIL}" in error[2] and error[1].startswith("too big\nvolume ")
    # Nothing of it has become markup, and nothing has run.
    assert page.value("document.title") == "volmgr"
    assert page.value("document.querySelectorAll('img').length + document.querySelectorAll('main script').length") == 0
    # The bars have the length that they should have.
    width = "b.firstChild.offsetWidth / b.offsetWidth"
    script = f"[...document.querySelectorAll('.bar')].map(b => [b.className.trim(), {width}])"
    (used_class, used), (_class, progress) = page.value(script)
    assert used_class == "bar warn" and abs(used - 0.9) < 0.02 and abs(progress - 0.42) < 0.02
    assert page.faults == []
    if folder := os.environ.get("VOLMGR_SCREENSHOT"):
        page.screenshot(Path(folder) / "status-page.png")


def test_a_script_that_is_not_its_own_does_not_run(site: Site, page: browser.Page) -> None:
    page.open(f"http://127.0.0.1:{site.port}/")
    wait_until(lambda: cells(page, "backends"), SECONDS, "the page shows the backends")
    page.value("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    assert page.value("window.ran === undefined") is True
    wait_until(lambda: page.value("1") and page.faults, SECONDS, "the browser says what it has refused")
    assert "Content Security Policy" in page.faults[0]


def test_only_who_asks_for_this_host_is_answered(site: Site) -> None:
    status, headers, _body = site.get("/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
    for own in (f"127.0.0.1:{site.port}", "localhost", f"[::1]:{site.port}"):
        assert site.get("/status.json", own)[0] == 200
    for foreign in ("evil.example", f"evil.example:{site.port}", "127.0.0.1.evil.example", "localhost.evil.example"):
        for path in ("/", "/status.json"):
            status, _headers, body = site.get(path, foreign)
            assert status == 421 and "node@b" not in body, foreign
    assert site.get("/nothing")[0] == 404


def test_it_follows(site: Site, page: browser.Page) -> None:
    page.open(f"http://localhost:{site.port}/")
    wait_until(lambda: len(cells(page, "findings")) == 1, SECONDS, "the page shows the finding")
    page.value("window.same = true")
    site.change(sa.insert(models.findings).values(_finding(str(uuid.uuid4()), "another")))
    wait_until(lambda: len(cells(page, "findings")) == 2, SECONDS, "the page shows the other one too")
    assert page.value("window.same") is True, "it was loaded again"


def test_the_document_shows_so_many_and_no_more(site: Site) -> None:
    found = site.document()
    assert found["trouble"] is None and found["counts"] == {"running": 1}
    site.change(*(sa.insert(models.findings).values(_finding(str(uuid.uuid4()), "many")) for _ in range(150)))
    assert len(site.document()["findings"]) == found["limits"]["findings"] == 100


def test_it_says_when_it_cannot_follow(site: Site, page: browser.Page) -> None:
    page.open(f"http://127.0.0.1:{site.port}/")
    wait_until(lambda: cells(page, "findings"), SECONDS, "the page shows the findings")
    site.daemon.kill()
    trouble = "document.getElementById('trouble').textContent"
    wait_until(lambda: "Not up to date" in page.value(trouble), SECONDS, "the page says that it is old")
    assert cells(page, "findings"), "what was known stays"

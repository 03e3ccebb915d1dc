# SPDX-License-Identifier: Apache-2.0
"""Whether a worker lives and whether it can serve, with the reasons; and the small HTTP server that tells it.

``/healthz`` fails when a restart would help, ``/readyz`` when requests had better go elsewhere; ``/metrics`` is for
Prometheus, ``/`` for people. Only reading is possible. This module decides nothing.
"""

from __future__ import annotations

import http.server
import json
import logging
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from volmgr import exception, page
from volmgr.db import schema

if TYPE_CHECKING:
    from volmgr.metrics import Metrics
    from volmgr.service import Worker

LOG = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
TEXT, JSON, HTML = "text/plain; version=0.0.4; charset=utf-8", "application/json", "text/html; charset=utf-8"
PATHS = ("/", "/status.json", "/metrics", "/healthz", "/readyz")


def ailments(worker: Worker) -> dict[str, str]:
    """Return what is wrong so that only a restart or an operator helps, by part."""
    try:
        with worker.database.reader() as conn:
            schema.current(conn)
    except Exception as error:
        return {"database": str(error)}
    return {}


def obstacles(worker: Worker) -> dict[str, str]:
    """Return why requests had better go elsewhere, by part."""
    found = ailments(worker)
    if worker.reason is not None:
        found["backend"] = worker.reason
    if not worker.rebuilt:
        found["exports"] = "what an earlier volmgr-volume had exported is still being made again"
    if worker.stopping.is_set():
        found["worker"] = "it is being stopped"
    return found


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request; what it tells is its server's."""

    server: _Server
    server_version = "volmgr"
    sys_version = ""
    timeout = TIMEOUT_SECONDS

    def do_GET(self) -> None:
        """Answer."""
        worker, path = self.server.worker, self.path.split("?", 1)[0]
        if path == "/metrics":
            self._answer(200, TEXT, self.server.metrics.text())
        elif path in ("/healthz", "/readyz"):
            found = ailments(worker) if path == "/healthz" else obstacles(worker)
            body = {"status": "failing" if found else "ok", "host": worker.host, "reasons": found}
            self._answer(503 if found else 200, JSON, json.dumps(body).encode() + b"\n")
        elif path in ("/", "/status.json") and not page.is_own(self.headers.get("Host")):
            self._answer(421, JSON, b'{"reason": "ask for this host by its address or its name"}\n')
        elif path == "/status.json":
            self._answer(200, JSON, json.dumps(page.document(worker)).encode() + b"\n")
        elif path == "/":
            self._answer(200, HTML, page.html(), {"Content-Security-Policy": page.policy()})
        else:
            self._answer(404, JSON, json.dumps({"paths": PATHS}).encode() + b"\n")

    def _answer(self, status: int, kind: str, body: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.send_response(status)
        for name, value in {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log a request, where somebody wants to see each."""
        LOG.debug("%s: %s", self.address_string(), format % args)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], worker: Worker, metrics: Metrics) -> None:
        self.worker = worker
        self.metrics = metrics
        super().__init__(address, _Handler)


def serve(worker: Worker, metrics: Metrics, address: str, port: int) -> _Server:
    """Start to tell how a worker is; ``shutdown()`` and ``server_close()`` end that.

    :param port: TCP port; 0 takes a free one.
    :raises InvalidConfiguration: nobody can listen there.
    """
    try:
        server = _Server((address, port), worker, metrics)
    except OSError as error:
        raise exception.InvalidConfiguration(
            reason=f"nobody can listen on {address}:{port}: {error.strerror}",
            hint="Change port or address in [metrics], or end what listens there",
        ) from error
    threading.Thread(target=server.serve_forever, name="volmgr-health", daemon=True).start()
    LOG.info("Metrics and health on http://%s:%d", *server.server_address[:2])
    return server

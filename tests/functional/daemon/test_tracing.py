# SPDX-License-Identifier: Apache-2.0
"""A request is one trace from the command line into the daemon, collected by OTLP over HTTP."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from tests.functional.daemon.test_images import run, volmgr
from volmgr.testing.daemon import Daemon
from volmgr.testing.waiting import wait_until

pytestmark = pytest.mark.once


@dataclass
class Collector:
    """What was exported: (service, span) pairs."""

    url: str
    spans: list[tuple[str, Any]] = field(default_factory=list)

    def of(self, service: str, name: str) -> list[Any]:
        return [span for exporter, span in self.spans if (exporter, span.name) == (service, name)]


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            told = trace_service_pb2.ExportTraceServiceRequest()
            told.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in told.resource_spans:
                names = {item.key: item.value.string_value for item in resource.resource.attributes}
                for scope in resource.scope_spans:
                    made.spans += [(names["service.name"], span) for span in scope.spans]
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_request_is_one_trace(make_daemon: Callable[..., Daemon], collector: Collector) -> None:
    daemon = make_daemon(
        sections={
            "oslo_messaging_tracing": {
                "tracing_enabled": True, "tracing_service_name": "volmgr", "otel_exporter_otlp_endpoint": collector.url,
            }
        },
        environment={"OTEL_BSP_SCHEDULE_DELAY": "50"},
    ).start()
    made = volmgr(daemon, "volume", "create", "traced", "--size", "1", "--wait")
    assert made["status"] == "available"

    def pairs() -> list[tuple[Any, Any]]:
        sent = collector.of("volmgr", "volume.create_volume")
        return [
            (one, other)
            for one in sent for other in collector.of("volmgr", "create_volume receive")
            if other.parent_span_id == one.span_id
        ]

    ((sent, received),) = wait_until(pairs, 30, "both ends of the request are told")
    assert sent.trace_id == received.trace_id and not sent.parent_span_id
    said = {item.key: item.value.string_value for item in received.attributes}
    assert said["rpc.method"] == "create_volume" and said["openstack.request_id"].startswith("req-")


def test_a_collector_that_is_away_changes_nothing(make_daemon: Callable[..., Daemon]) -> None:
    away = {"tracing_enabled": True, "otel_exporter_otlp_endpoint": "http://127.0.0.1:1"}
    daemon = make_daemon(sections={"oslo_messaging_tracing": away}).start()
    assert volmgr(daemon, "volume", "create", "untraced", "--size", "1", "--wait")["status"] == "available"
    assert daemon.stop() == 0


def test_what_is_not_installed_is_named(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(sections={"oslo_messaging_tracing": {"tracing_enabled": True, "otlp_protocol": "grpc"}})
    done = run(daemon, "volmgr.cmd.volume")
    assert done.returncode and "pip install 'oslo.messaging[tracing-grpc]'" in done.stderr

# SPDX-License-Identifier: Apache-2.0
"""Makes the RPC transport of a configuration; which one it is (``unix://``, ``rabbit://``) is the URL's affair."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from volmgr import exception

if TYPE_CHECKING:
    import oslo_messaging
    from oslo_config import cfg

REMOTE_ERRORS = [
    "volmgr.exception",
    "volmgr.db.faults",
    "volmgr.rpc.unix.errors",
    "volmgr.scheduler.expression",
    "volmgr.tools.lvm_errors",
    "volmgr.tools.tgt.errors",
]
"""Modules whose exceptions a client raises again as the class they were on the server: all that have any of ours."""


def get_transport(conf: cfg.ConfigOpts, url: str | None = None) -> oslo_messaging.Transport:
    """Return the RPC transport.

    oslo.messaging 18.3 registers two groups of options on the global configuration only, and every call reads them;
    on a configuration of one's own they are registered here.

    :param conf: any configuration, the global one or a private one.
    :param url: instead of ``transport_url``.
    :raises InvalidConfiguration: traces are wanted, and what exports them is not installed.
    """
    import oslo_messaging

    _register(conf)
    _load_exporter(conf)
    transport = oslo_messaging.get_rpc_transport(conf, url=url, allowed_remote_exmods=REMOTE_ERRORS)
    if type(transport._driver).__name__ == "RabbitDriver":
        from volmgr.rpc import rabbit

        rabbit.bound_confirmations(transport._driver)
    return transport


def get_notification_transport(conf: cfg.ConfigOpts) -> oslo_messaging.Transport:
    """Return the transport of notifications: ``[oslo_messaging_notifications] transport_url``, or that of requests."""
    import oslo_messaging
    from oslo_messaging.notify import notifier

    _register(conf)
    conf.register_opts(notifier._notifier_opts, group="oslo_messaging_notifications")
    url = conf.oslo_messaging_notifications.transport_url or conf.transport_url
    return oslo_messaging.get_notification_transport(conf, url=url)


def _register(conf: cfg.ConfigOpts) -> None:
    from oslo_messaging._metrics import client as metrics
    from oslo_messaging._tracing import client as tracing

    conf.register_opts(tracing.oslo_messaging_tracing, group="oslo_messaging_tracing")
    conf.register_opts(metrics.oslo_messaging_metrics, group="oslo_messaging_metrics")


def _load_exporter(conf: cfg.ConfigOpts) -> None:
    """Load what exports traces, if they are wanted: oslo.messaging 18.3 uses the module without having loaded it."""
    options = conf.oslo_messaging_tracing
    if not options.tracing_enabled:
        return
    # A program that ends waits for its spans: not for long, if nobody takes them. (Seconds, for all tries together.)
    os.environ.setdefault("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    kind = "grpc" if options.otlp_protocol == "grpc" else "http"
    try:
        importlib.import_module("opentelemetry.sdk.trace.export")
        importlib.import_module(f"opentelemetry.exporter.otlp.proto.{kind}.trace_exporter")
    except ImportError as error:
        raise exception.InvalidConfiguration(
            reason=f"[oslo_messaging_tracing] tracing_enabled needs OpenTelemetry: {error}",
            hint=f"Run: pip install 'oslo.messaging[tracing-{kind}]'",
        ) from error

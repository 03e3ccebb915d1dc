# SPDX-License-Identifier: Apache-2.0
"""What every log line says beside its text: for which request, and about which resource and operation.

The formats and the JSON form are oslo.log's (``use_json``). What is said comes from the work at hand, never from a
thread's past: oslo.context would let the first request that a thread ever served stand on all its later lines. This
module knows no verb.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from volmgr import names

FORMAT = (
    "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s "
    "[%(request_id)s %(resource_id)s %(operation_id)s] %(message)s"
)
NOTHING = "-"
#: the arguments that say what a request is about, the most telling one first.
_RESOURCES = (
    "volume_id", "snapshot_id", "group_id", "cgsnapshot_id", "backup_id", "attachment_id", "transfer_id", "type_id",
    "operation_id", "image_id",
)
_REQUEST = re.compile(r"\A[A-Za-z0-9-]{1,64}\Z")

_about: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("about", default=None)


@contextlib.contextmanager
def about(request_id: Any = None, resource_id: Any = None, operation_id: Any = None) -> Iterator[None]:
    """Let log lines from inside, in this thread (or green thread), say what the work at hand is about.

    What has not the form of an id is left out: it comes from whoever sends requests, and could forge lines.
    """
    token = _about.set(
        {
            "request_id": request_id if isinstance(request_id, str) and _REQUEST.match(request_id) else NOTHING,
            "resource_id": resource_id if names.is_uuid(resource_id) else NOTHING,
            "operation_id": operation_id if names.is_uuid(operation_id) else NOTHING,
        }
    )
    try:
        yield
    finally:
        _about.reset(token)


def resource_of(arguments: Any) -> Any:
    """Return what a request's arguments are about, None if nothing says so."""
    if not isinstance(arguments, Mapping):
        return None
    return next((arguments[name] for name in _RESOURCES if arguments.get(name)), None)


class Filter(logging.Filter):
    """Gives each record the context that oslo.log's formatters read, in place of one that a thread has kept."""

    def filter(self, record: logging.LogRecord) -> bool:
        if "context" not in record.__dict__:
            record.context = _about.get()
        return True


def setup(conf: Any) -> None:
    """Set logging up as the configuration says."""
    from oslo_log import log as oslo_log

    oslo_log.setup(conf, "volmgr")
    for handler in logging.getLogger().handlers:
        handler.addFilter(Filter())

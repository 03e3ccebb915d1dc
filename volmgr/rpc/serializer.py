# SPDX-License-Identifier: Apache-2.0
"""What travels: JSON primitives, and the context as a plain dictionary. Client and server share it."""

from __future__ import annotations

import os
from typing import Any

import oslo_messaging

from volmgr import validate
from volmgr.context import RequestContext


def _roles(field: str, value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or len(value) > MAX_ROLES:
        raise validate.invalid(field, f"must be a list of at most {MAX_ROLES} names", value)
    return [validate.name(field, item) for item in value]


MAX_ROLES = 256
_CHECKS: dict[str, validate.Check] = {
    "user_id": validate.name,
    "project_id": validate.name,
    "is_admin": validate.boolean,
    "roles": _roles,
    "request_id": validate.name,
    "global_request_id": validate.name,
    "request_key": validate.uuid,
}


class Serializer(oslo_messaging.NoOpSerializer):  # type: ignore[misc]
    """Arguments travel as JSON primitives; the context becomes a :class:`RequestContext`."""

    def serialize_context(self, context: Any) -> dict[str, Any]:
        return context if isinstance(context, dict) else dict(context.to_dict())

    def deserialize_context(self, context: dict[str, Any]) -> RequestContext:
        """Return the context of a message; what the process at its other end may not be, it cannot make itself.

        Over ``unix://`` only root and the daemon's own user are administrators, whoever else was let in; a message
        may narrow that, not widen it.

        :raises Invalid: one of its values is not what it should be.
        """
        for name, check in _CHECKS.items():
            if context.get(name) is not None:
                check(f"context.{name}", context[name])
        peer = context.get("_peer")
        if peer is not None and peer.get("uid") not in (0, os.geteuid()):
            context = {**context, "is_admin": False, "roles": []}
        return RequestContext.from_dict(context)

# SPDX-License-Identifier: Apache-2.0
"""What travels: JSON primitives, and the context as a plain dictionary. Client and server share it."""

from __future__ import annotations

from typing import Any

import oslo_messaging

from volmgr.context import RequestContext


class Serializer(oslo_messaging.NoOpSerializer):  # type: ignore[misc]
    """Arguments travel as JSON primitives; the context becomes a :class:`RequestContext`."""

    def serialize_context(self, context: Any) -> dict[str, Any]:
        return context if isinstance(context, dict) else dict(context.to_dict())

    def deserialize_context(self, context: dict[str, Any]) -> RequestContext:
        return RequestContext.from_dict(context)

# SPDX-License-Identifier: Apache-2.0
"""Who asks, and with which rights: the context that is the first argument of every request.

It travels as a plain dictionary. ``_peer`` is set by the transport, never by the caller. This module knows nothing of
volumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oslo_context import context

ADMIN = "admin"
READER = "reader"
MEMBER = "member"


class RequestContext(context.RequestContext):
    """The oslo request context with the key that makes a request idempotent.

    :param request_key: the caller's unique key (a UUID) for this one request; a repeat with the same key joins it.
    :param peer: ``{"uid", "gid", "pid"}`` of the process at the other end of ``unix://``.
    """

    def __init__(
        self, *args: Any, request_key: str | None = None, peer: Mapping[str, int] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.request_key = request_key
        self.peer = dict(peer) if peer else None

    @property
    def scope(self) -> str | None:
        """The only project whose resources the caller may see, or None for an administrator."""
        return None if self.is_admin else (self.project_id or "")

    def to_dict(self) -> dict[str, Any]:
        """Return the form that travels; it has no token."""
        return {
            "user_id": self.user_id,
            "project_id": self.project_id,
            "is_admin": self.is_admin,
            "roles": list(self.roles or ()),
            "request_id": self.request_id,
            "global_request_id": self.global_request_id,
            "request_key": self.request_key,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **_kwargs: Any) -> RequestContext:
        """Return the context of a message; unknown keys are left out, so that a newer caller is understood."""
        known = ("user_id", "project_id", "is_admin", "roles", "request_id", "global_request_id", "request_key")
        kept = {key: values[key] for key in known if values.get(key) is not None}
        return cls(peer=values.get("_peer"), overwrite=False, **kept)


def admin() -> RequestContext:
    """Return the context of volmgr itself."""
    return RequestContext(is_admin=True, roles=[ADMIN], overwrite=False)

# SPDX-License-Identifier: Apache-2.0
"""The outcome of requests that never became an operation: refused, nothing to do, or joined to one that runs already.

A message can arrive once more long after its request was answered. By then a volume of the same id may have been made
anew, or what the request was refused for may have gone; executed then, a late copy would delete what its sender never
meant, or do what its sender was told is not done. So these outcomes are kept in the journal under the request's key
like all others. What a client is asked to try again (``retryable``) is no outcome. This module knows no verb.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from volmgr import exception, types
from volmgr.context import RequestContext
from volmgr.db import operations, reservations
from volmgr.db.engine import Database
from volmgr.operations.base import Operation, request_key

#: keys of the data of such rows: the request was refused; the id of the operation that it joined.
REFUSED, JOINED = "refused", "joined"

Ended = Callable[[dict[str, Any]], dict[str, Any]]


class Outcomes:
    """What is kept of requests that become no operation. A part of :class:`volmgr.dispatch.Dispatcher`."""

    database: Database

    def _row(
        self, operation: Operation[Any], operation_id: str, key: str, context: RequestContext, *, claimed: bool
    ) -> dict[str, Any]:
        """Return the journal's row of a request."""
        raise NotImplementedError

    def _commit(
        self, write: Callable[[], Any], operation: Operation[Any], operation_id: str, key: str, context: RequestContext
    ) -> Any:
        """Do a transaction that keeps a request; what it repeats is an answer."""
        raise NotImplementedError

    def _keep(
        self, context: RequestContext, operation: Operation[Any], ended: Ended, reserved: Sequence[str] = ()
    ) -> dict[str, Any] | None:
        """Keep an outcome; returns None, or the answer to another copy of the request that came before.

        :param reserved: ids of the quota reservations that are given back.
        """
        operation_id, key = str(uuid.uuid4()), request_key(context, operation.verb, operation.a)
        row = ended(self._row(operation, operation_id, key, context, claimed=False))

        def write() -> None:
            with self.database.writer() as conn:
                if reserved:
                    reservations.take(conn, reserved, context.project_id or "")
                operations.insert(conn, row)

        other: dict[str, Any] | None = self._commit(write, operation, operation_id, key, context)
        return None if other is None or other["operation_id"] == operation_id else other

    def _refused(
        self, context: RequestContext, operation: Operation[Any], error: exception.VolmgrError
    ) -> dict[str, Any] | None:
        """Keep that a request is refused, and give back what was reserved for it; returns as :meth:`_keep` does."""
        told = exception.to_primitive(error)
        return self._keep(
            context,
            operation,
            lambda row: _ended(row, state="failed", error=told, data={REFUSED: True}),
            operation.reserved,
        )

    def _done_already(self, context: RequestContext, operation: Operation[Any], result: Any) -> dict[str, Any]:
        """Answer a request for what is so already."""
        row: dict[str, Any] = {}

        def ended(values: dict[str, Any]) -> dict[str, Any]:
            row.update(_ended(values, state="done", result=result, progress=1.0))
            return row

        other = self._keep(context, operation, ended)
        return other or {"operation_id": row["id"], "state": "done", "result": result}

    def _join(
        self, context: RequestContext, operation: Operation[Any], holder: types.OperationRecord
    ) -> dict[str, Any]:
        """Answer a request by an operation that another request has begun."""
        other = self._keep(context, operation, lambda row: _ended(row, state="done", data={JOINED: holder.id}))
        return other or answer(holder)

    def _joined(self, key: str, verb: str, context: RequestContext) -> dict[str, Any] | None:
        """Return the answer to a request whose key the journal knows, None if it does not.

        :raises VolmgrError: it was refused; the same error again.
        """
        with self.database.reader() as conn:
            found = operations.by_key(conn, key)
            if found is None:
                return None
            if found.verb != verb or found.project_id != context.project_id:
                raise exception.Conflict("The request key was used for another request", hint="Use a new key", key=key)
            data = found.data or {}
            if data.get(REFUSED) and found.error is not None:
                raise exception.from_primitive(found.error)
            return answer((operations.get(conn, data[JOINED]) if JOINED in data else None) or found)


def answer(record: types.OperationRecord) -> dict[str, Any]:
    """Return what a client is told of an operation."""
    return {"operation_id": record.id, "state": record.state, "result": record.result}


def _ended(row: dict[str, Any], **values: Any) -> dict[str, Any]:
    never_run = {"claimed": False, "claims": [], "epoch": 0, "incarnation": None, "started_at": None}
    return {**row, **never_run, "finished_at": row["created_at"], "updated_at": row["created_at"], **values}

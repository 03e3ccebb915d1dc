# SPDX-License-Identifier: Apache-2.0
"""The workers that are, or were, here: what they said last, and whether that was lately.

Whether a worker is up is not stored: the reader computes it on the database's clock, the only one that all hosts share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception
from volmgr.db import models, records
from volmgr.db.dialects import database_now
from volmgr.db.engine import Database, is_duplicate

_S = models.services
_HOST = _S.c.host == sa.bindparam("service_host")
_MISSING = "Look at: volmgr service list"


def register(
    conn: Connection,
    host: str,
    *,
    topic: str,
    rpc_version: str,
    incarnation: str,
    driver: str | None = None,
    availability_zone: str | None = None,
    state: str = "up",
    reason: str | None = None,
    capabilities: Mapping[str, Any] | None = None,
) -> None:
    """Record that a worker has started. What operators set (disabled, frozen, active backend) stays.

    :param host: ``host@backend``. :param reason: why ``state`` is not ``up``.
    """
    values = {
        "topic": topic,
        "rpc_version": rpc_version,
        "incarnation": incarnation,
        "driver": driver,
        "availability_zone": availability_zone,
        "state": state,
        "reason": reason,
        "capabilities": dict(capabilities) if capabilities is not None else None,
        "updated_at": database_now(),
    }
    if not conn.execute(sa.update(_S).where(_S.c.host == host).values(values)).rowcount:
        conn.execute(sa.insert(_S).values(host=host, created_at=database_now(), **values))


def enroll(database: Database, host: str, **values: Any) -> None:
    """Record that a worker has started, see :func:`register`; members of a cluster may do so at once, each the first.

    :raises VolmgrError: the database does not answer.
    """

    def write() -> None:
        with database.writer() as conn:
            register(conn, host, **values)

    try:
        database.repeating(write)
    except Exception as error:
        if not is_duplicate(error):
            raise
        database.repeating(write)  # the row is there now, and no start takes it away


_BEAT = (
    sa.update(_S)
    .where(_HOST)
    .values(updated_at=database_now(), state=sa.bindparam("new_state"), reason=sa.bindparam("new_reason"))
)
_BEAT_WITH_CAPABILITIES = _BEAT.values(capabilities=sa.bindparam("new_capabilities", type_=models.Json()))


def beat(
    conn: Connection,
    host: str,
    *,
    capabilities: Mapping[str, Any] | None = None,
    state: str = "up",
    reason: str | None = None,
) -> None:
    """Record that a worker lives; None as ``capabilities`` leaves those of before.

    :raises NotFound: the worker never registered.
    """
    values: dict[str, Any] = {"service_host": host, "new_state": state, "new_reason": reason}
    statement = _BEAT
    if capabilities is not None:
        statement = _BEAT_WITH_CAPABILITIES
        values["new_capabilities"] = dict(capabilities)
    if not conn.execute(statement, values).rowcount:
        raise _not_found(host)


_SELECT = sa.select(_S, database_now().label("now")).order_by(_S.c.host)


def list_services(conn: Connection, service_down_time: float) -> list[dict[str, Any]]:
    """Return all workers as clients read them.

    :param service_down_time: seconds after which a worker that has not beaten counts as down.
    """
    return [_view(row, service_down_time) for row in conn.execute(_SELECT)]


def page(
    found: Sequence[dict[str, Any]],
    filters: Mapping[str, Any] | None = None,
    marker: str | None = None,
    limit: int | None = None,
    sort_keys: Sequence[str] | None = None,
    sort_dirs: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Return a part of a list of workers, which is short: a deployment has hundreds at most.

    :param filters: by key, the value wanted. :param marker: the last worker of the page before.
    :param limit: how many at most, None for all. :param sort_keys: the order, by name without.
    """
    kept = [item for item in found if all(item[key] == value for key, value in (filters or {}).items())]
    keys = [*(sort_keys or ()), "host"]
    directions = [*(sort_dirs or ()), *["asc"] * len(keys)]
    for key, direction in reversed(list(zip(keys, directions, strict=False))):
        kept.sort(key=lambda item: str(item[key] or ""), reverse=direction == "desc")
    names = [item["host"] for item in kept]
    start = 0
    if marker is not None:
        start = names.index(marker) + 1 if marker in names else len(names)
    return kept[start : None if limit is None else start + limit]


def get(conn: Connection, host: str, service_down_time: float) -> dict[str, Any]:
    """Return one worker.

    :raises NotFound: no worker of that name was ever here.
    """
    row = conn.execute(_SELECT.where(_S.c.host == host)).first()
    if row is None:
        raise _not_found(host)
    return _view(row, service_down_time)


def is_up(conn: Connection, host: str, service_down_time: float) -> bool:
    """Return whether a worker has beaten lately; one that never was is not up."""
    row = conn.execute(_SELECT.where(_S.c.host == host)).first()
    return row is not None and bool(_view(row, service_down_time)["up"])


def _view(row: Any, service_down_time: float) -> dict[str, Any]:
    values = dict(row._mapping)
    age = (values.pop("now") - values["updated_at"]).total_seconds()
    values["up"] = age <= service_down_time
    for name in ("created_at", "updated_at"):
        values[name] = records.moment(values[name])
    return values


def enable(conn: Connection, host: str) -> None:
    """Let the scheduler place volumes there again.

    :raises NotFound: no worker of that name was ever here.
    """
    _set(conn, host, disabled=False, disabled_reason=None)


def disable(conn: Connection, host: str, reason: str | None = None) -> None:
    """Keep the scheduler from placing volumes there; what is there is served on.

    :raises NotFound: no worker of that name was ever here.
    """
    _set(conn, host, disabled=True, disabled_reason=reason)


def enable_again(conn: Connection, host: str, reason: str) -> None:
    """Let the scheduler place volumes there again, if that was forbidden for this reason and no other."""
    mine = (_S.c.host == host) & (_S.c.disabled_reason == reason)
    conn.execute(sa.update(_S).where(mine).values(disabled=False, disabled_reason=None))


def freeze(conn: Connection, host: str) -> None:
    """Refuse changes on the backend while it is replicated away.

    :raises NotFound: no worker of that name was ever here.
    """
    _set(conn, host, frozen=True)


def thaw(conn: Connection, host: str) -> None:
    """Allow changes again.

    :raises NotFound: no worker of that name was ever here.
    """
    _set(conn, host, frozen=False)


def set_active_backend(conn: Connection, host: str, backend_id: str | None) -> None:
    """Record which of its replicas the backend runs on; None is the first one.

    :raises NotFound: no worker of that name was ever here.
    """
    _set(conn, host, active_backend_id=backend_id)


def active_backend(conn: Connection, host: str) -> str | None:
    """Return which of its replicas a backend runs on; None for the first one."""
    found = conn.execute(sa.select(_S.c.active_backend_id).where(_S.c.host == host)).scalar()
    return str(found) if found else None


def remove(conn: Connection, host: str) -> None:
    """Forget a worker that is gone for good.

    :raises NotFound: no worker of that name was ever here.
    """
    if not conn.execute(sa.delete(_S).where(_S.c.host == host)).rowcount:
        raise _not_found(host)


def _set(conn: Connection, host: str, **values: Any) -> None:
    if not conn.execute(sa.update(_S).where(_S.c.host == host).values(values)).rowcount:
        raise _not_found(host)


def _not_found(host: str) -> exception.NotFound:
    return exception.NotFound(f"No worker {host!r} was ever here", hint=_MISSING, resource="service", id=host)

# SPDX-License-Identifier: Apache-2.0
"""What a person wants to see at a glance: workers with their pools, what is under way, what went wrong.

A constant number of statements, each with a limit, whatever there is. Nothing is changed.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import states
from volmgr.db import models, records, services

_O, _F = models.operations, models.findings
SHOWN, ERRORS = 100, 20
#: how far back errors are shown.
ERRORS_SECONDS = 21600.0
POOL = ("pool_name", "total_capacity_gb", "free_capacity_gb", "allocated_capacity_gb", "provisioned_capacity_gb")
_SERVICE = ("host", "state", "up", "reason", "disabled", "disabled_reason", "frozen", "driver", "updated_at")
_FINDING = ("id", "host", "kind", "resource", "resource_id", "reason", "repair", "safe")
_OPERATION = (
    "id", "verb", "resource", "resource_id", "host", "state", "step", "progress", "parked_for", "error",
    "created_at", "finished_at",
)
_NAMED = {
    "volume": models.volumes, "snapshot": models.snapshots, "group": models.groups,
    "cgsnapshot": models.cgsnapshots, "backup": models.backups,
}


def everything(conn: Connection, service_down_time: float, now: datetime.datetime) -> dict[str, Any]:
    """Return backends, counts of operations, operations under way, findings and recent errors."""
    backends = services.list_services(conn, service_down_time)
    # By host and state there is an index; the tombstones of a week are not read.
    somewhere = _O.c.host.in_([item["host"] for item in backends]) | _O.c.host.is_(None)
    unfinished = somewhere & _O.c.state.in_(states.UNFINISHED)
    columns = [_O.c[name] for name in _OPERATION]
    running = list(conn.execute(sa.select(*columns).where(unfinished).order_by(_O.c.created_at).limit(SHOWN)))
    since = now - datetime.timedelta(seconds=ERRORS_SECONDS)
    ended = (_O.c.state == "failed") & (_O.c.finished_at >= since)
    failed = list(conn.execute(sa.select(*columns).where(ended).order_by(_O.c.finished_at.desc()).limit(ERRORS)))
    findings = list(conn.execute(sa.select(_F).order_by(_F.c.created_at, _F.c.id).limit(SHOWN)))
    names = _names(conn, [*running, *failed, *findings])
    counts = conn.execute(sa.select(_O.c.state, sa.func.count()).where(unfinished).group_by(_O.c.state))
    return {
        "backends": [_backend(item) for item in backends],
        "counts": {state: count for state, count in counts},
        "operations": [_operation(row, names, now) for row in running],
        "findings": [
            {key: row._mapping[key] for key in _FINDING}
            | {"name": names.get(row.resource_id), "seconds": _age(now, row.created_at)}
            for row in findings
        ],
        "errors": [_operation(row, names, now) for row in failed],
        "limits": {"operations": SHOWN, "findings": SHOWN, "errors": ERRORS},
    }


def _names(conn: Connection, rows: Iterable[Any]) -> dict[str, str]:
    """Return the names of the resources that rows are about, by id; of each kind in one statement."""
    wanted: dict[str, set[str]] = {}
    for row in rows:
        wanted.setdefault(row.resource, set()).add(row.resource_id)
    found: dict[str, str] = {}
    for kind, table in _NAMED.items():
        if ids := wanted.get(kind):
            query = sa.select(table.c.id, table.c.display_name).where(table.c.id.in_(sorted(ids)))
            found.update({item: name for item, name in conn.execute(query) if name})
    return found


def _backend(service: dict[str, Any]) -> dict[str, Any]:
    pools = (service.get("capabilities") or {}).get("pools") or ()
    return {key: service[key] for key in _SERVICE} | {
        "pools": [{key: pool.get(key) for key in POOL} for pool in pools]
    }


def _operation(row: Any, names: dict[str, str], now: datetime.datetime) -> dict[str, Any]:
    error = row.error or {}
    return {
        **{key: row._mapping[key] for key in _OPERATION[:9]},
        "name": names.get(row.resource_id),
        "seconds": _age(now, row.finished_at or row.created_at),
        "finished_at": records.moment(row.finished_at),
        "message": error.get("message"),
        "hint": error.get("hint"),
        "code": error.get("code"),
    }


def _age(now: datetime.datetime, then: datetime.datetime) -> float:
    return max(0.0, (now - then).total_seconds())

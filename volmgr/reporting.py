# SPDX-License-Identifier: Apache-2.0
"""What a backend tells of itself, and what a driver tells of rows that were written before it was asked.

This module publishes nothing; the worker does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from volmgr.db import listing, models
from volmgr.db.engine import Database

LOG = logging.getLogger(__name__)
_TABLES = {"volume": models.volumes, "snapshot": models.snapshots}


def measure(driver: Any, *, discover: bool = False) -> dict[str, Any]:
    """Ask a driver what its backend can do and how full it is.

    Every pool is given the backend's ``filter_function``, ``goodness_function`` and ``extra_capabilities``, unless the
    driver has set the two functions for the pool itself.

    :param discover: also ask anew for the properties that extra specs may refer to.
    """
    if discover or not driver.capabilities:
        driver.init_capabilities()
        stats = dict(driver.capabilities)
    else:
        stats = {**driver.capabilities, **driver.get_volume_stats(refresh=True)}
    functions = {
        "filter_function": driver.get_filter_function(),
        "goodness_function": driver.get_goodness_function(),
    }
    extra = dict(driver.configuration.safe_get("extra_capabilities") or {})
    stats["pools"] = [
        {**functions, **{key: value for key, value in pool.items() if value is not None}, **extra}
        for pool in stats.get("pools") or [{"pool_name": driver.backend_name, **_figures(stats)}]
    ]
    return stats


def _figures(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an old driver without pools says of its space."""
    return {key: value for key, value in stats.items() if key.endswith(("_gb", "_percentage", "_ratio", "_support"))}


def tell_rows(database: Database, driver: Any, host: str) -> int:
    """Write what the driver knows of this worker's volumes and snapshots: pools, and provider ids that have changed.

    :param host: ``host@backend``. :returns: how many rows have changed.
    """
    with database.reader() as conn:
        without = sa.select(models.volumes.c.id).where(models.volumes.c.host == host).limit(1)
        pooled = conn.execute(without).first() is None
        asks = driver.supports("update_provider_info")
        if pooled and not asks:
            return 0
        volumes, snapshots = listing.of_worker(conn, "volume", host), listing.of_worker(conn, "snapshot", host)
    changes = [("volume", volume.id, {"host": f"{host}#{pool}"}) for volume in volumes
               if volume.host == host and (pool := driver.get_pool(volume))]
    if asks:
        told = driver.update_provider_info(volumes, snapshots)
        for noun, updates in zip(_TABLES, told, strict=True):
            changes += [(noun, item["id"], {"provider_id": item["provider_id"]}) for item in updates or ()]
    return _write(database, host, changes)


def _write(database: Database, host: str, changes: Iterable[tuple[str, str, dict[str, Any]]]) -> int:
    wanted = list(changes)

    def write() -> int:
        count = 0
        with database.writer() as conn:
            for noun, row_id, values in wanted:
                table = _TABLES[noun]
                mine = (table.c.host == host) | table.c.host.startswith(f"{host}#", autoescape=True)
                count += conn.execute(sa.update(table).where(table.c.id == row_id, mine).values(values)).rowcount
        return count

    return database.retrying(write) if wanted else 0

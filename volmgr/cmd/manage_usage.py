# SPDX-License-Identifier: Apache-2.0
"""volmgr-manage usage-audit: tells listeners what there is in a period, for whoever charges for it.

Events alone do not do for that: one can be lost between a commit and its sending. This module reads SQL, page by page,
and sends one ``<noun>.exists`` for each resource; no daemon needs to run.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volmgr.db.engine import Database
    from volmgr.types import Resource

PAGE = 1000
NOUNS = ("volume", "snapshot", "group", "cgsnapshot", "backup")
PERIODS = ("hour", "day", "month", "year")


def add_parser(nouns: Any) -> None:
    """Add the command to the grammar of volmgr-manage."""
    usage = nouns.add_parser(
        "usage-audit",
        help="tell listeners what there is",
        description="Send one <noun>.exists notification for every resource that was there in a period.",
    )
    usage.add_argument("--period", choices=PERIODS, default="month", help="the last whole one (UTC); default: month")
    usage.add_argument("--start", type=_moment, metavar="TIME", help="instead of --period: ISO 8601, UTC")
    usage.add_argument("--end", type=_moment, metavar="TIME", help="instead of --period: ISO 8601, UTC")
    usage.set_defaults(run=run)


def _moment(text: str) -> datetime.datetime:
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: {error}") from error
    return found.astimezone(datetime.UTC).replace(tzinfo=None) if found.tzinfo else found


def last_whole(period: str, now: datetime.datetime) -> tuple[datetime.datetime, datetime.datetime]:
    """Return the beginning and the end of the last whole hour, day, month or year before ``now``."""
    end = now.replace(minute=0, second=0, microsecond=0)
    if period == "hour":
        return end - datetime.timedelta(hours=1), end
    end = end.replace(hour=0)
    if period == "day":
        return end - datetime.timedelta(days=1), end
    end = end.replace(day=1)
    if period == "month":
        return (end - datetime.timedelta(days=1)).replace(day=1), end
    end = end.replace(month=1)
    return end.replace(year=end.year - 1), end


def run(conf: Any, arguments: argparse.Namespace) -> int:
    """Send the events; returns the exit status."""
    from volmgr import context, exception
    from volmgr.db.engine import Database, utcnow
    from volmgr.notifications import notifier_of, payload_of

    if bool(arguments.start) != bool(arguments.end):
        raise exception.Invalid("--start and --end belong together", field="start")
    start, end = (arguments.start, arguments.end) if arguments.start else last_whole(arguments.period, utcnow())
    if end <= start:
        raise exception.Invalid(f"The period ends at {end}, before it begins at {start}", field="end")
    notifier = notifier_of(conf, f"volume.{conf.host}")
    if notifier is None:
        raise exception.InvalidConfiguration(
            reason="no notification driver is set",
            hint="Set driver = messagingv2 in [oslo_messaging_notifications]",
        )
    about = {"audit_period_beginning": start.isoformat(), "audit_period_ending": end.isoformat()}
    database, count = Database.from_config(conf.database, pool_size=2), 0
    try:
        for noun in NOUNS:
            for resource in _existing(database, noun, end):
                notifier.info(context.admin(), f"{noun}.exists", {**payload_of(noun, resource), **about})
                count += 1
    finally:
        database.close()
    print(f"{count} resources from {start.isoformat()} to {end.isoformat()}")
    return 0


def _existing(database: Database, noun: str, end: datetime.datetime) -> Iterator[Resource]:
    """Return the resources that were made before ``end`` and are still there, by pages in the order of their ids."""
    import sqlalchemy as sa

    from volmgr.db import claims, records

    table, last = claims.TABLES[noun], ""
    while True:
        with database.reader() as conn:
            page = sa.select(*claims.COLUMNS[noun]).where(table.c.created_at < end, table.c.id > last)
            rows = conn.execute(page.order_by(table.c.id).limit(PAGE)).all()
        yield from (records.OF[noun](row) for row in rows)
        if len(rows) < PAGE:
            return
        last = rows[-1].id

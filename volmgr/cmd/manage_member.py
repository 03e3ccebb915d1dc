# SPDX-License-Identifier: Apache-2.0
"""volmgr-manage member: the workers of clusters, as SQL has them; no daemon needs to run. See :mod:`volmgr.cluster`."""

from __future__ import annotations

import argparse
from typing import Any

DONE, FAILED = 0, 1
_ROW = "{name:30} {service:30} {state:10} {unfinished:>10}  {id}"


def add_parser(nouns: Any) -> None:
    """Add the command to the grammar of volmgr-manage."""
    verbs = nouns.add_parser("member", help="the workers of clusters").add_subparsers(
        dest="verb", required=True, metavar="list|drain|undrain|fence"
    )
    verbs.add_parser("list", help="print them, and what each is at").set_defaults(run=run_list)
    for verb, text in (("drain", "let it begin nothing more"), ("undrain", "let it begin operations again")):
        drain = verbs.add_parser(verb, help=text, description=f"{text[0].upper()}{text[1:]}, within a few seconds.")
        drain.add_argument("name", metavar="HOST@BACKEND")
        drain.set_defaults(run=run_drain)
    fence = verbs.add_parser(
        "fence",
        help="say that a dead one writes no more",
        description="Let the other members go on with what a member was at whose lease has ended. Only once its "
        "host is known to be off, or cut off from the storage: two that write at once destroy data.",
    )
    fence.add_argument("name", metavar="HOST@BACKEND")
    fence.add_argument("--i-know-it-is-dead", action="store_true", help="do it")
    fence.set_defaults(run=run_fence)


def _open(conf: Any) -> Any:
    from volmgr.db.engine import Database

    return Database.from_config(conf.database, pool_size=2)


def _state(member: dict[str, Any]) -> str:
    if not member["holds"]:
        return "dead"
    return "draining" if member["draining"] else "up"


def run_list(conf: Any, arguments: argparse.Namespace) -> int:
    """Print the members; returns the exit status."""
    from volmgr.db import members

    database = _open(conf)
    try:
        with database.reader() as conn:
            found = members.listed(conn)
    finally:
        database.close()
    print(_ROW.format(name="NAME", service="BACKEND", state="STATE", unfinished="UNFINISHED", id="LIFE"))
    for member in found:
        print(_ROW.format(**member, state=_state(member)))
    return DONE


def run_drain(conf: Any, arguments: argparse.Namespace) -> int:
    """Drain a member, or take it back; returns the exit status."""
    from volmgr.db import members

    database = _open(conf)
    try:
        with database.writer() as conn:
            there = members.drain(conn, arguments.name, draining=arguments.verb == "drain")
    finally:
        database.close()
    if not there:
        raise _unknown(arguments.name)
    return DONE


def run_fence(conf: Any, arguments: argparse.Namespace) -> int:
    """Remove a dead member; returns the exit status."""
    from volmgr import exception
    from volmgr.db import members

    database = _open(conf)
    try:
        with database.writer() as conn:
            lives = members.of_name(conn, arguments.name)
            if not lives:
                raise _unknown(arguments.name)
            dead = [member for member, holds in lives if not holds]
            if not dead:
                raise exception.Conflict(
                    f"{arguments.name} lives: its lease has not ended",
                    hint="Stop it, or look at: volmgr-manage member list", resource="service", id=arguments.name,
                )
            if not arguments.i_know_it_is_dead:
                print(f"{arguments.name} would be removed. Once its host is known to be off, add: --i-know-it-is-dead")
                return FAILED
            for member in dead:
                members.remove(conn, member)
                print(f"What {member.name} was at goes on at the other members")
    finally:
        database.close()
    return DONE


def _unknown(name: str) -> Exception:
    from volmgr import exception

    return exception.NotFound(
        f"No member is named {name!r}", hint="Look at: volmgr-manage member list", resource="service", id=name
    )

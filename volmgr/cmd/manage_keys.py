# SPDX-License-Identifier: Apache-2.0
"""volmgr-manage key: the keys that encrypt secrets in the database. Daemons may run meanwhile; they follow the file."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volmgr.keys import Keys


def add_parser(nouns: Any) -> None:
    """Add the commands to the grammar of volmgr-manage."""
    verbs = nouns.add_parser("key", help="the keys that encrypt secrets").add_subparsers(
        dest="verb", required=True, metavar="rotate|list|status"
    )
    rotate = verbs.add_parser(
        "rotate",
        help="change the key, or go on with a change that was interrupted",
        description="Let a new key encrypt, encrypt again what older keys have encrypted, and remove those that "
        "nothing needs any more. Safe to repeat; daemons may run.",
    )
    rotate.add_argument(
        "--prepare", action="store_true", help="only put a new key into the file, to be copied to the other hosts"
    )
    rotate.add_argument(
        "--copied", action="store_true", help="every other host of the deployment has this key file: remove old keys"
    )
    rotate.add_argument(
        "--grace", type=float, metavar="SECONDS", help="how long an old key stays, if it is not the default of 60 s "
        "(0 where the database is this host's own file)",
    )
    rotate.set_defaults(run=_rotate)
    text = "the keys, and how many secrets each encrypts"
    verbs.add_parser("list", help=text, description=text).set_defaults(run=_list)
    text = "whether a change of the key has ended, and what to do next"
    more = f"{text}; exit status 3 if there is something to do"
    verbs.add_parser("status", help=text, description=more).set_defaults(run=_status)


@contextlib.contextmanager
def _keys(conf: Any) -> Iterator[Keys]:
    from volmgr.db import schema
    from volmgr.db.engine import Database
    from volmgr.keys import Keys

    database = Database.from_config(conf.database, pool_size=2)
    try:
        schema.check(database)
        yield Keys(conf.key_file, database, host=conf.host, embedded=conf.embedded)
    finally:
        database.close()


def _rotate(conf: Any, arguments: argparse.Namespace) -> int:
    with _keys(conf) as keys:
        if arguments.prepare:
            print(f"{keys.prepare()} is prepared; copy {keys.path} to the other hosts, then: volmgr-manage key rotate")
            return 0
        done = keys.rotate(copied=arguments.copied, grace=arguments.grace)
    print(f"{done.current} encrypts {'from now on' if done.made else 'already'}; {done.rows} secrets encrypted again")
    for key_id in done.retired:
        print(f"{key_id} is removed: nothing needs it")
    for key_id, reason in done.kept.items():
        print(f"{key_id} stays: {reason}")
    for place in done.damaged:
        print(f"volmgr-manage: no key opens {place}", file=sys.stderr)
    if done.kept and not done.damaged:
        print("Next: copy the key file to the other hosts, if there are any, then: volmgr-manage key rotate --copied")
    return 1 if done.damaged else 0


def _list(conf: Any, arguments: argparse.Namespace) -> int:
    with _keys(conf) as keys:
        found = keys.all()
    print(f"{'key':<10} {'state':<9} {'secrets':>8}  since")
    for key in found:
        print(f"{key.id:<10} {key.state:<9} {key.rows:>8}  {key.since or '-'}")
    return 0


def _status(conf: Any, arguments: argparse.Namespace) -> int:
    with _keys(conf) as keys:
        found = keys.all()
    current = next(key for key in found if key.state == "current")
    print(f"{current.id} encrypts; {current.rows} secrets are under it")
    status = 0
    for key in found:
        if key.state == "missing":
            print(f"{key.id} is not in {keys.path}, but {key.rows} secrets need it. Copy the file that has it")
            status = 3
        elif key.state == "prepared":
            print(f"{key.id} is prepared. When every host has the file: volmgr-manage key rotate")
            status = 3
        elif key.state == "old":
            print(f"{key.id} is old, {key.rows} secrets are under it. Go on with: volmgr-manage key rotate")
            status = 3
    return status

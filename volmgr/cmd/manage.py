# SPDX-License-Identifier: Apache-2.0
"""volmgr-manage: what an operator does to the database when no daemon needs to run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from volmgr import concurrency

if TYPE_CHECKING:
    from volmgr.db.engine import Database

PROG = "volmgr-manage"


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(prog=PROG, description=__doc__)
    top.add_argument("--config-file", action="append", default=[], metavar="PATH", help="may be given several times")
    top.add_argument("--config-dir", action="append", default=[], metavar="PATH", help="a folder with *.conf files")
    nouns = top.add_subparsers(dest="noun", required=True, metavar="db")
    verbs = nouns.add_parser("db", help="the database's schema").add_subparsers(
        dest="verb", required=True, metavar="upgrade|version|check"
    )
    for verb, (_, text) in _VERBS.items():
        verbs.add_parser(verb, help=text, description=text)
    return top


def _upgrade(database: Database) -> None:
    from volmgr.db import schema

    print(schema.upgrade(database))


def _version(database: Database) -> None:
    from volmgr.db import schema

    print(schema.version(database) or "none")


def _check(database: Database) -> None:
    from volmgr.db import schema

    schema.check(database)
    print(f"{schema.version(database)}: this code can run on it")


_VERBS: dict[str, tuple[Callable[[Database], None], str]] = {
    "upgrade": (_upgrade, "bring the schema to what this code needs; safe to repeat"),
    "version": (_version, "print the schema's revision"),
    "check": (_check, "fail if this code cannot run on the schema"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 bad usage."""
    # Nothing here serves requests: native threads, whatever the daemon runs on.
    concurrency.setup("threading")
    arguments = parser().parse_args(argv)

    from volmgr import conf as config
    from volmgr import exception
    from volmgr.db.engine import Database

    words = [word for path in arguments.config_file for word in ("--config-file", path)]
    words += [word for path in arguments.config_dir for word in ("--config-dir", path)]
    try:
        database = Database.from_config(config.load(words, prog=PROG).database, pool_size=2)
        try:
            _VERBS[arguments.verb][0](database)
        finally:
            database.close()
    except exception.VolmgrError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

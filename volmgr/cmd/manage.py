# SPDX-License-Identifier: Apache-2.0
"""volmgr-manage: schema, keys, images, for which no daemon needs to run; audits and resets, which a daemon answers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from volmgr import concurrency
from volmgr.cmd import manage_images, manage_keys, manage_live, manage_member, manage_report, manage_usage

if TYPE_CHECKING:
    from volmgr.db.engine import Database

PROG = "volmgr-manage"


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(prog=PROG, description=__doc__)
    top.add_argument("--config-file", action="append", default=[], metavar="PATH", help="may be given several times")
    top.add_argument("--config-dir", action="append", default=[], metavar="PATH", help="a folder with *.conf files")
    nouns = top.add_subparsers(
        dest="noun", required=True, metavar="db|key|audit|usage-audit|volume|snapshot|image|report|member"
    )
    verbs = nouns.add_parser("db", help="the database's schema").add_subparsers(
        dest="verb", required=True, metavar="upgrade|version|check"
    )
    for verb, (_, text) in _VERBS.items():
        verbs.add_parser(verb, help=text, description=text).set_defaults(run=_on_database)
    manage_live.add_parsers(nouns)
    manage_usage.add_parser(nouns)
    manage_keys.add_parser(nouns)
    manage_images.add_parsers(nouns)
    manage_report.add_parser(nouns)
    manage_member.add_parser(nouns)
    return top


def _on_database(conf: Any, arguments: argparse.Namespace) -> int:
    from volmgr.db.engine import Database

    database = Database.from_config(conf.database, pool_size=2)
    try:
        _VERBS[arguments.verb][0](database)
    finally:
        database.close()
    return 0


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
    """Run one command; returns the exit status: 0 done, 1 failed, 2 bad usage, 3 there is something to mend."""
    # Nothing here serves requests: native threads, whatever the daemon runs on.
    concurrency.setup("threading")
    arguments = parser().parse_args(argv)

    from volmgr import conf as config
    from volmgr import exception

    words = [word for path in arguments.config_file for word in ("--config-file", path)]
    words += [word for path in arguments.config_dir for word in ("--config-dir", path)]
    try:
        return int(arguments.run(config.load(words, prog=PROG), arguments))
    except exception.VolmgrError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

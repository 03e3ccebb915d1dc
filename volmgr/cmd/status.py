# SPDX-License-Identifier: Apache-2.0
"""volmgr-status: whether this code may run on this configuration, database and key file; nothing is changed.

``volmgr-status upgrade check`` ends with 0 (all is well), 1 (look at the warnings) or 2 (the daemon would not start).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck
from oslo_upgradecheck.upgradecheck import Code, Result

from volmgr import concurrency, exception

if TYPE_CHECKING:
    from volmgr.conf.loading import Configuration
    from volmgr.db.engine import Database

UNFINISHED_SHOWN = 5


@contextlib.contextmanager
def opened(conf: Configuration) -> Iterator[Database | None]:
    """Give the database of a configuration; None for an SQLite file that is not there, which would be made else."""
    from sqlalchemy.engine import make_url

    from volmgr.db.engine import Database

    url = make_url(conf.database.connection)
    if url.get_backend_name() == "sqlite" and not os.path.exists(url.database or ""):
        yield None
        return
    database = Database(conf.database.connection, pool_size=1)
    try:
        yield database
    finally:
        database.close()


def schema_revision(conf: Configuration) -> str | None:
    """Return the revision of the database's schema, None where there is none yet.

    :raises SchemaMismatch: this code may not run on it. :raises VolmgrError: the database does not answer.
    """
    from volmgr.db import schema

    with opened(conf) as database:
        found = schema.version(database) if database is not None else None
        if database is not None and found is not None:
            schema.check(database)
        return found


def _as_result(error: exception.VolmgrError) -> Result:
    return Result(Code.FAILURE, str(error))


class Checks(upgradecheck.UpgradeCommands):
    """The checks, over one configuration.

    :param argv: options of oslo.config for :func:`volmgr.conf.load`.
    """

    def __init__(self, argv: list[str] | None = None) -> None:
        super().__init__()
        self.argv = list(argv or ())
        self._conf: Configuration | None = None

    @property
    def conf(self) -> Configuration:
        """The configuration, loaded at its first use."""
        if self._conf is None:
            from volmgr import conf as volmgr_conf

            self._conf = volmgr_conf.load(self.argv)
        return self._conf

    def configuration(self) -> Result:
        """Every option has a possible value, every driver and target can be loaded."""
        from volmgr import conf as volmgr_conf
        from volmgr.drivers import loader

        try:
            for backend in volmgr_conf.backends(self.conf):
                loader.load(backend.volume_driver)
                if backend.target_helper:
                    loader.load_target(backend.target_helper)
        except exception.VolmgrError as error:
            return _as_result(error)
        return Result(Code.SUCCESS)

    def schema(self) -> Result:
        """The database has the schema that this code is written for."""
        try:
            found = schema_revision(self.conf)
        except exception.VolmgrError as error:
            return _as_result(error)
        if found is None:
            return Result(Code.WARNING, "There is no schema yet; volmgr-manage db upgrade makes it")
        return Result(Code.SUCCESS)

    def key(self) -> Result:
        """The key file opens what is in the database."""
        from volmgr import crypto
        from volmgr.db import models

        try:
            with opened(self.conf) as database:
                if database is None or schema_revision(self.conf) is None:
                    return Result(Code.SUCCESS, "There are no secrets yet")
                with database.reader() as conn:
                    canaries = list(conn.execute(models.keys.select()))
            if not canaries:
                return Result(Code.SUCCESS, "There are no secrets yet")
            cipher = crypto.read_key_file(self.conf.key_file)
            for row in canaries:
                cipher.decrypt("keys", "canary", row.name, row.canary)
        except exception.VolmgrError as error:
            return _as_result(error)
        return Result(Code.SUCCESS)

    def journal(self) -> Result:
        """This code knows every verb that is still to be finished."""
        try:
            unknown = self._unknown_operations()
        except exception.VolmgrError as error:
            return _as_result(error)
        if not unknown:
            return Result(Code.SUCCESS)
        shown = ", ".join(unknown[:UNFINISHED_SHOWN])
        return Result(Code.WARNING, f"Unfinished operations of a newer version stay until it is back: {shown}")

    def _unknown_operations(self) -> list[str]:
        import sqlalchemy as sa

        from volmgr import states
        from volmgr.db import models
        from volmgr.operations import snapshots, volumes
        from volmgr.operations.registry import find

        known = (volumes.CreateVolume, snapshots.CreateSnapshot)  # their import registers the verbs
        assert all(item.verb for item in known)
        with opened(self.conf) as database:
            if database is None or schema_revision(self.conf) is None:
                return []
            table = models.operations
            query = sa.select(table.c.id, table.c.verb, table.c.version).where(table.c.state.in_(states.UNFINISHED))
            with database.reader() as conn:
                rows: list[Any] = list(conn.execute(query))
        return [f"{row.verb} {row.id}" for row in rows if find(row.verb, row.version) is None]

    _upgrade_checks = (
        ("configuration", configuration),
        ("database schema", schema),
        ("key file", key),
        ("journal", journal),
    )


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    concurrency.setup("threading")
    checks = Checks()
    conf = cfg.ConfigOpts()
    upgradecheck.register_cli_options(conf, checks)
    try:
        conf(arguments, project="volmgr", prog="volmgr-status")
    except cfg.Error as error:
        print(f"volmgr-status: {error}", file=sys.stderr)
        return Code.FAILURE
    checks.argv = [word for path in conf.config_file or () for word in ("--config-file", path)]
    # The base class reads the output format from its module's global.
    upgradecheck.CONF = conf
    return int(upgradecheck.run(conf))


if __name__ == "__main__":
    sys.exit(main())

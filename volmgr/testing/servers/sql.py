# SPDX-License-Identifier: Apache-2.0
"""What the private SQL servers have in common: an administrator's connection and a fresh database for each test.

Which dialect is spoken is the subclass's; what is stored in the databases is the tests'.
"""

from __future__ import annotations

import abc
import contextlib
import re
import secrets
from collections.abc import Iterator
from typing import Any, ClassVar

import sqlalchemy
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection
from sqlalchemy.pool import NullPool

from volmgr.testing.servers.base import HOST, PrivateServer, ServerUnavailable, free_port

_DATABASE_NAME = re.compile(r"\A[a-z][a-z0-9_]{0,62}\Z")


class SQLServer(PrivateServer):
    """A private SQL server with one user, ``volmgr``, who may do everything."""

    drivername: ClassVar[str]
    library: ClassVar[str]
    admin_database: ClassVar[str]
    connect_args: ClassVar[dict[str, Any]]
    user_name: ClassVar[str] = "volmgr"

    def __init__(self, *, durable: bool = False, start_timeout_seconds: float = 90.0) -> None:
        super().__init__(durable=durable, start_timeout_seconds=start_timeout_seconds)
        self._password = ""

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the administrative database, for ``create_engine``; it holds the password."""
        return self.database_url(self.admin_database)

    def database_url(self, name: str) -> str:
        """Return the SQLAlchemy URL of a database, whether it exists or not."""
        _ = self.folder  # raises when there is no server
        url = URL.create(self.drivername, self.user_name, self._password, HOST, self.port, name)
        return url.render_as_string(hide_password=False)

    def create_database(self, name: str) -> str:
        """Create an empty database; one of that name is dropped first, with the connections to it.

        :param name: lower-case letters, digits and underscores, a letter first.
        :returns: its SQLAlchemy URL.
        :raises ValueError: the name is not of that form.
        """
        self.drop_database(name)
        with self._admin() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return self.database_url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, whoever is connected to it."""
        if not _DATABASE_NAME.match(name):
            raise ValueError(f"{name!r} is not a database name of lower-case letters, digits and underscores")
        with self._admin() as connection:
            connection.exec_driver_sql(self._drop_statement(name))

    @abc.abstractmethod
    def _drop_statement(self, name: str) -> str:
        """Return the statement that drops a database, connections to it notwithstanding."""

    def _prepare(self) -> None:
        self.port = free_port()
        self._password = secrets.token_hex(16)

    def _check_available(self) -> None:
        try:
            self._engine_for(f"{self.drivername}://{HOST}/")
        except ModuleNotFoundError as error:
            raise ServerUnavailable(f"the library {error.name} is not installed: pip install {self.library}") from error

    def _engine_for(self, url: str) -> sqlalchemy.Engine:
        return sqlalchemy.create_engine(
            url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=dict(self.connect_args)
        )

    @contextlib.contextmanager
    def _admin(self) -> Iterator[Connection]:
        engine = self._engine_for(self.url)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()

    def _answers(self) -> bool:
        try:
            with self._admin() as connection:
                return bool(connection.exec_driver_sql("SELECT 1").scalar() == 1)
        except exc.DBAPIError:
            return False

# SPDX-License-Identifier: Apache-2.0
"""A private PostgreSQL for tests, from the distribution's package; any version from 13 on.

It listens on one loopback port and on no unix socket. See initdb(1) and postgres(1).
"""

from __future__ import annotations

import signal
from typing import Any, ClassVar

from volmgr.testing.servers.base import HOST, find_program
from volmgr.testing.servers.sql import SQLServer

_BINARIES = "usr/lib/postgresql/*/bin"

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    # Files in the data folder instead of /dev/shm, where a killed server would leave them.
    "dynamic_shared_memory_type": "mmap",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class PostgreSQLServer(SQLServer):
    """A private PostgreSQL; its URLs are for psycopg2."""

    label = "PostgreSQL"
    package = "postgresql"
    account = "postgres"
    # "Fast shutdown" of postgres(1): clients are disconnected. SIGTERM would wait for them to leave.
    stop_signal = signal.SIGINT
    port_taken = "Address already in use"
    drivername = "postgresql+psycopg2"
    library = "psycopg2-binary"
    admin_database = "postgres"
    connect_args: ClassVar[dict[str, Any]] = {"connect_timeout": 5, "options": "-c statement_timeout=60000"}

    def _check_available(self) -> None:
        super()._check_available()
        self._initdb = find_program("initdb", self.package, pattern=f"{_BINARIES}/initdb")
        self._postgres = find_program("postgres", self.package, pattern=f"{_BINARIES}/postgres")

    def _prepare(self) -> None:
        super()._prepare()
        self._make_folder("data")
        password_file = self._write_file("password", self._password + "\n")
        argv = [self._initdb, "--pgdata", str(self.folder / "data"), "--username", self.user_name]
        argv += ["--pwfile", str(password_file), "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]
        self._run_to_end("initdb", argv if self.durable else [*argv, "--no-sync"])
        password_file.unlink()

    def _launch(self) -> int:
        settings = _SETTINGS | ({} if self.durable else _NOT_DURABLE)
        argv = [self._postgres, "-D", str(self.folder / "data"), "-p", str(self.port)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return self._run("server", argv, cwd=self.folder)

    def _drop_statement(self, name: str) -> str:
        return f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"

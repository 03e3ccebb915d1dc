# SPDX-License-Identifier: Apache-2.0
"""A private MariaDB for tests, from the distribution's package.

It listens on one loopback port, and on a unix socket inside its own folder. See mariadb-install-db(1) and mariadbd(8).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from volmgr.testing.servers.base import HOST, find_program
from volmgr.testing.servers.sql import SQLServer

# Committed data are with the kernel, so they survive a killed server, but not yet on the disk.
_NOT_DURABLE = ["--innodb-flush-log-at-trx-commit=2", "--innodb-doublewrite=OFF", "--sync-binlog=0"]
_DURABLE = ["--innodb-flush-log-at-trx-commit=1"]


class MariaDBServer(SQLServer):
    """A private MariaDB; its URLs are for PyMySQL."""

    label = "MariaDB"
    package = "mariadb-server"
    account = "mysql"
    port_taken = "Address already in use"
    drivername = "mysql+pymysql"
    library = "PyMySQL"
    admin_database = "mysql"
    connect_args: ClassVar[dict[str, Any]] = {"connect_timeout": 5, "read_timeout": 60, "write_timeout": 60}

    def __init__(self, *, durable: bool = False, start_timeout_seconds: float = 90.0) -> None:
        super().__init__(durable=durable, start_timeout_seconds=start_timeout_seconds)
        self._init_file: Path | None = None

    def _check_available(self) -> None:
        super()._check_available()
        self._install_db = find_program("mariadb-install-db", self.package)
        self._mariadbd = find_program("mariadbd", self.package)

    def _prepare(self) -> None:
        super()._prepare()
        self._make_folder("data")
        self._make_folder("tmp")
        # root is left to a local user's unix socket; nobody is let in without a password.
        argv = [self._install_db, "--no-defaults", f"--datadir={self.folder / 'data'}", f"--tmpdir={self._tmp}"]
        argv += ["--auth-root-authentication-method=socket", "--skip-test-db", "--skip-name-resolve"]
        self._run_to_end("install-db", argv)
        user = f"'{self.user_name}'@'{HOST}'"
        self._init_file = self._write_file(
            "init.sql",
            f"CREATE USER {user} IDENTIFIED BY '{self._password}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO {user} WITH GRANT OPTION;\n",
        )

    @property
    def _tmp(self) -> Path:
        return self.folder / "tmp"

    def _launch(self) -> int:
        data = self.folder / "data"
        argv = [self._mariadbd, "--no-defaults", f"--datadir={data}", f"--tmpdir={self._tmp}"]
        # Relative to the data folder, whose path may be longer than a socket's address may be.
        argv += ["--socket=server.sock", "--pid-file=server.pid", f"--bind-address={HOST}", f"--port={self.port}"]
        argv += ["--skip-name-resolve", "--character-set-server=utf8mb4", "--skip-log-bin", "--max-connections=200"]
        argv += ["--performance-schema=OFF", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M"]
        argv += _DURABLE if self.durable else _NOT_DURABLE
        if self._init_file is not None:
            argv.append(f"--init-file={self._init_file}")
        return self._run("server", argv, cwd=data)

    def _answers(self) -> bool:
        answers = super()._answers()
        if answers and self._init_file is not None:
            self._init_file.unlink()
            self._init_file = None
        return answers

    def _drop_statement(self, name: str) -> str:
        return f"DROP DATABASE IF EXISTS {name}"

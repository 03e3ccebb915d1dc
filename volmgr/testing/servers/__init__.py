# SPDX-License-Identifier: Apache-2.0
"""Private PostgreSQL, MariaDB and RabbitMQ servers for tests, started from the distribution's packages.

Each runs on free loopback ports in a temporary folder of its own and ends, folder included, with the process that
started it, however that one ends. Nothing here knows what volmgr stores in a database or sends through a broker.
"""

from __future__ import annotations

from volmgr.testing.servers.base import (
    PrivateServer,
    ServerError,
    ServerNotRunning,
    ServerStartFailed,
    ServerStopFailed,
    ServerUnavailable,
)
from volmgr.testing.servers.mariadb import MariaDBServer
from volmgr.testing.servers.postgresql import PostgreSQLServer
from volmgr.testing.servers.rabbitmq import RabbitMQServer

__all__ = [
    "MariaDBServer",
    "PostgreSQLServer",
    "PrivateServer",
    "RabbitMQServer",
    "ServerError",
    "ServerNotRunning",
    "ServerStartFailed",
    "ServerStopFailed",
    "ServerUnavailable",
]

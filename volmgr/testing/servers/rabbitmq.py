# SPDX-License-Identifier: Apache-2.0
"""A private RabbitMQ node for tests, from the distribution's package, with an epmd of its own.

Everything that two nodes on one machine could share is set apart: node name, folders, the AMQP and the distribution
port, epmd's port, the home folder with Erlang's cookie. See rabbitmq-server(8), rabbitmq-env.conf(5) and epmd(1).
"""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import amqp  # type: ignore[import-untyped]

from volmgr.testing.servers.base import HOST, PrivateServer, find_program, free_port
from volmgr.testing.servers.certificates import make_server_certificate
from volmgr.testing.waiting import wait_until

_USER = "volmgr"
_VIRTUAL_HOST = "volmgr"
_PROBE_SECONDS = 10
_EPMD_SECONDS = 15

_CONFIG = """\
default_user = {user}
default_pass = {password}
default_vhost = {virtual_host}
loopback_users = none
log.console = true
log.console.level = info
log.file = false
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.relative = 0.4
"""
_PLAIN_LISTENER = """\
listeners.tcp.1 = {host}:{port}
num_acceptors.tcp = 2
"""
_TLS_LISTENER = """\
listeners.tcp = none
listeners.ssl.1 = {host}:{port}
num_acceptors.ssl = 2
ssl_options.cacertfile = {folder}/ca.pem
ssl_options.certfile = {folder}/server.pem
ssl_options.keyfile = {folder}/server.key
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
"""


class RabbitMQServer(PrivateServer):
    """A private RabbitMQ node with one virtual host; tests share it by topics or exchanges of their own.

    :param tls: listen by TLS only, with a certificate of an authority made for this server; see :attr:`ca_file`.
    """

    label = "RabbitMQ"
    package = "rabbitmq-server"
    account = "rabbitmq"
    port_taken = "eaddrinuse"

    def __init__(self, *, tls: bool = False, start_timeout_seconds: float = 90.0) -> None:
        super().__init__(start_timeout_seconds=start_timeout_seconds)
        self.tls = tls
        self._password = ""

    @property
    def url(self) -> str:
        """The oslo.messaging transport URL; TLS also needs ``ssl`` and ``ssl_ca_file`` of [oslo_messaging_rabbit]."""
        _ = self.folder  # raises when there is no server
        return f"rabbit://{_USER}:{self._password}@{HOST}:{self.port}/{_VIRTUAL_HOST}"

    @property
    def ca_file(self) -> Path | None:
        """The PEM file of the authority that signed the node's certificate; None without TLS."""
        return self.folder / "ca.pem" if self.tls else None

    def _check_available(self) -> None:
        # Not the one in /usr/sbin, which changes user, folder and log file by itself.
        self._program = find_program("rabbitmq-server", self.package, pattern="usr/lib/rabbitmq/bin/rabbitmq-server")
        self._epmd = find_program("epmd", "erlang-base")

    def _prepare(self) -> None:
        self.port, self._distribution_port, self._epmd_port = free_port(), free_port(), free_port()
        self._password = secrets.token_hex(16)
        self._node = f"volmgr-{secrets.token_hex(4)}@localhost"
        self._make_folder("data")
        self._write_file("enabled_plugins", "[].\n")
        # Else the distribution's own settings would be read.
        self._write_file("rabbitmq-env.conf", "")
        listener = _TLS_LISTENER if self.tls else _PLAIN_LISTENER
        self._write_file(
            "rabbitmq.conf",
            (_CONFIG + listener).format(
                user=_USER,
                password=self._password,
                virtual_host=_VIRTUAL_HOST,
                host=HOST,
                port=self.port,
                folder=self.folder,
            ),
        )
        if self.tls:
            certificate = make_server_certificate(HOST)
            self._write_file("ca.pem", certificate.authority)
            self._write_file("server.pem", certificate.certificate)
            self._write_file("server.key", certificate.key)

    def _launch(self) -> int:
        environment = self._environment()
        # Without one of ours, the node would start an epmd as a daemon that stays behind.
        self._run("epmd", [self._epmd, "-port", str(self._epmd_port), "-address", HOST], cwd=self.folder)
        wait_until(lambda: _listens(self._epmd_port), _EPMD_SECONDS, "epmd to listen")
        return self._run("server", [self._program], cwd=self.folder, env=environment)

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_BASE": folder,
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": folder,
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_PID_FILE": f"{folder}/rabbitmq.pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_CRASH_DUMP": f"{folder}/erl_crash.dump",
            # The start script then becomes the node by exec, instead of waiting for it as a shell between us and it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _answers(self) -> bool:
        tls = {"ca_certs": str(self.ca_file), "server_hostname": HOST} if self.tls else False
        connection = amqp.Connection(
            f"{HOST}:{self.port}",
            userid=_USER,
            password=self._password,
            virtual_host=_VIRTUAL_HOST,
            connect_timeout=_PROBE_SECONDS,
            read_timeout=_PROBE_SECONDS,
            write_timeout=_PROBE_SECONDS,
            ssl=tls,
        )
        try:
            connection.connect()
            connection.close()
        except (OSError, amqp.AMQPError):
            return False
        return True


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=_PROBE_SECONDS).close()
    except OSError:
        return False
    return True

# SPDX-License-Identifier: Apache-2.0
"""The private servers themselves: they start, answer, keep their data over a crash, and leave nothing behind.

Real servers from the distribution's packages; what volmgr does with them is tested elsewhere.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import amqp  # type: ignore[import-untyped]
import oslo_messaging
import psutil
import pytest
import sqlalchemy
from oslo_config import cfg
from oslo_messaging._metrics import client as metrics
from oslo_messaging._tracing import client as tracing
from sqlalchemy import exc
from sqlalchemy.pool import NullPool

from volmgr.testing.servers import (
    MariaDBServer,
    PostgreSQLServer,
    PrivateServer,
    RabbitMQServer,
    ServerError,
    ServerStartFailed,
    ServerUnavailable,
)
from volmgr.testing.servers.base import HOST, _issued_ports, find_program, free_port
from volmgr.testing.servers.certificates import make_server_certificate
from volmgr.testing.servers.keeping import Keeper
from volmgr.testing.servers.pytest_fixtures import unavailable
from volmgr.testing.servers.sql import SQLServer
from volmgr.testing.waiting import WaitTimeout, wait_until

pytest_plugins = ("volmgr.testing.servers.pytest_fixtures",)

pytestmark = pytest.mark.once
SQL_KINDS = ("postgresql", "mariadb")
SECONDS = 30.0


def execute(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Run statements in one transaction; return the rows of the last one, if it has any."""
    engine = sqlalchemy.create_engine(url, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        engine.dispose()


def processes_of(server: PrivateServer) -> list[psutil.Process]:
    keeper = psutil.Process(server.keeper_pid)
    return [keeper, *keeper.children(recursive=True)]


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that live; psutil compares start times, so a reused pid does not count."""
    return [process for process in processes if lives(process)]


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False  # it ended between the two looks


def started(server: PrivateServer) -> Iterator[PrivateServer]:
    try:
        server.start()
    except ServerUnavailable as error:
        unavailable(str(error))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(params=SQL_KINDS)
def shared_sql(request: pytest.FixtureRequest) -> SQLServer:
    server: SQLServer = request.getfixturevalue(f"{request.param}_server")
    return server


@pytest.fixture
def own_sql(shared_sql: SQLServer) -> Iterator[SQLServer]:
    """A second server of the same kind, beside the session's, to stop and kill at will."""
    for server in started(type(shared_sql)()):
        assert isinstance(server, SQLServer)
        yield server


def messaging_conf(server: RabbitMQServer) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    conf([])
    # oslo.messaging registers these two groups on its global configuration only, and reads them from any.
    conf.register_opts(tracing.oslo_messaging_tracing, group="oslo_messaging_tracing")
    conf.register_opts(metrics.oslo_messaging_metrics, group="oslo_messaging_metrics")
    oslo_messaging.get_rpc_transport(conf, server.url).cleanup()  # registers the driver's options
    if server.ca_file is not None:
        conf.set_override("ssl", True, group="oslo_messaging_rabbit")
        conf.set_override("ssl_ca_file", str(server.ca_file), group="oslo_messaging_rabbit")
    return conf


class Echo:
    def echo(self, context: object, value: object) -> object:
        return {"echoed": value}


def rpc_echo(server: RabbitMQServer, value: object) -> object:
    transport = oslo_messaging.get_rpc_transport(messaging_conf(server), server.url)
    topic = f"echo-{uuid.uuid4().hex}"
    target = oslo_messaging.Target(topic=topic, server="one")
    rpc = oslo_messaging.get_rpc_server(transport, target, [Echo()])
    rpc.start()
    try:
        client = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic=topic), timeout=SECONDS)
        return client.call({}, "echo", value=value)
    finally:
        rpc.stop()
        rpc.wait()
        transport.cleanup()


def amqp_connection(server: RabbitMQServer) -> amqp.Connection:
    location = server.url.removeprefix("rabbit://")
    user, _, rest = location.partition(":")
    password, _, rest = rest.partition("@")
    address, _, virtual_host = rest.partition("/")
    connection = amqp.Connection(
        address, userid=user, password=password, virtual_host=virtual_host, confirm_publish=True, read_timeout=SECONDS
    )
    connection.connect()
    return connection


# --- SQL servers ------------------------------------------------------------------------------------------------------


def test_sql_server_answers_a_query_in_a_fresh_database(shared_sql: SQLServer) -> None:
    url = shared_sql.create_database("fresh")
    execute(url, "CREATE TABLE t (n INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (41)")
    assert execute(url, "SELECT n + 1 FROM t") == [(42,)]

    again = shared_sql.create_database("fresh")
    assert again == url
    with pytest.raises(exc.DBAPIError):
        execute(again, "SELECT n FROM t")


def test_sql_database_is_dropped_under_an_open_connection(shared_sql: SQLServer) -> None:
    engine = sqlalchemy.create_engine(shared_sql.create_database("in_use"))
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        connection.rollback()
        shared_sql.drop_database("in_use")
    engine.dispose()
    with pytest.raises(exc.DBAPIError):
        execute(shared_sql.database_url("in_use"), "SELECT 1")


def test_sql_database_name_is_checked(shared_sql: SQLServer) -> None:
    with pytest.raises(ValueError, match="not a database name"):
        shared_sql.create_database("a; DROP DATABASE b")


def test_sql_server_refuses_a_wrong_password(shared_sql: SQLServer) -> None:
    url = sqlalchemy.make_url(shared_sql.url)
    with pytest.raises(exc.DBAPIError):
        execute(url.set(password="not-it").render_as_string(hide_password=False), "SELECT 1")
    assert str(url.password) not in repr(shared_sql)
    assert str(url.password) not in shared_sql.log_text()


def test_sql_server_keeps_its_data_over_restart_and_kill_beside_another(
    shared_sql: SQLServer, own_sql: SQLServer
) -> None:
    assert own_sql.port != shared_sql.port
    url = own_sql.create_database("kept")
    execute(url, "CREATE TABLE t (n INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)")

    first_pid = own_sql.pid
    own_sql.restart()
    assert own_sql.pid != first_pid
    execute(url, "INSERT INTO t VALUES (2)")

    victims = [process for process in processes_of(own_sql) if process.pid != own_sql.keeper_pid]
    own_sql.kill()
    assert running(victims) == []
    with pytest.raises(exc.DBAPIError):
        execute(url, "SELECT 1")

    own_sql.start()
    assert execute(url, "SELECT n FROM t ORDER BY n") == [(1,), (2,)]
    assert execute(shared_sql.url, "SELECT 1") == [(1,)]


def test_start_reports_the_log_when_its_port_is_taken_meanwhile(own_sql: SQLServer) -> None:
    own_sql.kill()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind((HOST, own_sql.port))
        thief.listen()
        with pytest.raises(ServerStartFailed, match="Address already in use"):
            own_sql.start()
    own_sql.start()
    assert execute(own_sql.url, "SELECT 1") == [(1,)]


class Unlucky(PostgreSQLServer):
    """Finds its first port taken by another program, as happens when two test runs choose the same one."""

    taken = 0

    def _prepare(self) -> None:
        super()._prepare()
        if not self.taken:
            self.taken = self.port = self.thief.getsockname()[1]

    def __init__(self, thief: socket.socket) -> None:
        super().__init__()
        self.thief = thief


def test_first_start_takes_other_ports_when_one_is_taken(postgresql_server: PostgreSQLServer) -> None:
    with socket.create_server((HOST, 0)) as thief, Unlucky(thief) as server:
        assert server.taken == thief.getsockname()[1]
        assert server.port != server.taken
        assert execute(server.url, "SELECT 1") == [(1,)]


# --- RabbitMQ ---------------------------------------------------------------------------------------------------------


def test_rabbitmq_carries_an_rpc_call(rabbitmq_server: RabbitMQServer) -> None:
    assert rpc_echo(rabbitmq_server, [1, "two"]) == {"echoed": [1, "two"]}


def test_rabbitmq_keeps_messages_over_restart_and_kill_beside_another(rabbitmq_server: RabbitMQServer) -> None:
    with RabbitMQServer() as own:
        assert own.port != rabbitmq_server.port
        with amqp_connection(own) as connection:
            channel = connection.channel()
            channel.queue_declare("kept", durable=True, auto_delete=False)
            for body in ("before restart", "before kill"):
                channel.basic_publish(amqp.Message(body, delivery_mode=2), routing_key="kept")
        own.restart()
        with amqp_connection(own) as connection:
            assert connection.channel().basic_get("kept", no_ack=True).body == "before restart"

        victims = [process for process in processes_of(own) if process.pid != own.keeper_pid]
        assert {"epmd", "beam.smp"} <= {process.name() for process in victims}
        own.kill()
        assert running(victims) == []
        own.start()

        with amqp_connection(own) as connection:
            channel = connection.channel()
            # A broker that crashes may forget an acknowledgement, never a confirmed message: the first may come again.
            bodies = [message.body for message in iter(lambda: channel.basic_get("kept", no_ack=True), None)]
        assert bodies[-1] == "before kill"
        assert set(bodies) <= {"before restart", "before kill"}
        assert rpc_echo(own, "own") == {"echoed": "own"}
        assert rpc_echo(rabbitmq_server, "shared") == {"echoed": "shared"}


def test_rabbitmq_by_tls_is_trusted_by_its_own_authority_only(rabbitmq_server: RabbitMQServer, tmp_path: Path) -> None:
    with RabbitMQServer(tls=True) as server:
        assert rpc_echo(server, "by tls") == {"echoed": "by tls"}
        stranger = tmp_path / "ca.pem"
        stranger.write_text(make_server_certificate(HOST).authority)
        context = ssl.create_default_context(cafile=str(stranger))
        with (
            socket.create_connection((HOST, server.port), timeout=SECONDS) as plain,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            context.wrap_socket(plain, server_hostname=HOST)
    assert rabbitmq_server.ca_file is None


# --- nothing is left --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PostgreSQLServer, MariaDBServer, RabbitMQServer])
@pytest.mark.parametrize("killed", [False, True], ids=["running", "killed"])
def test_stop_leaves_no_process_and_no_file(kind: type[PrivateServer], killed: bool, own_temporary: Path) -> None:
    before = Path("/proc/sysvipc/shm").read_text().splitlines()
    for server in started(kind()):
        folder, processes = server.folder, processes_of(server)
        pids = {process.pid for process in processes}
        assert folder.parent == own_temporary
        if killed:
            server.kill()
        server.stop()
        assert running(processes) == []
        assert list(own_temporary.iterdir()) == []
        # A process id comes round again, so what was there before does not count.
        assert [line for line in shared_memory_made_by(pids) if line not in before] == []
        server.stop()  # a second one does nothing
        with pytest.raises(ServerError, match="was not started"):
            _ = server.url


def shared_memory_made_by(pids: set[int]) -> list[str]:
    """Return the lines of System V shared memory segments whose creator (fifth column) is one of ``pids``."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return [line for line in lines if int(line.split()[4]) in pids]


@pytest.fixture
def own_temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files of this test alone, that the servers' users can pass through."""
    with tempfile.TemporaryDirectory(prefix="volmgr-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield path


ORPHAN = """
import os
import sys
from volmgr.testing.servers import MariaDBServer, PostgreSQLServer, RabbitMQServer
server = {"PostgreSQL": PostgreSQLServer, "MariaDB": MariaDBServer, "RabbitMQ": RabbitMQServer}[sys.argv[1]]()
server.start()
# A child of the test run that still holds the keeper's socket must not keep the server alive.
if os.fork():
    print(server.keeper_pid, flush=True)
sys.stdin.read()
os._exit(0)
"""


@pytest.mark.parametrize("kind", [PostgreSQLServer, MariaDBServer, RabbitMQServer])
@pytest.mark.parametrize("victim", ["test run", "keeper"])
def test_server_does_not_outlive_a_killed_test_run(kind: type[PrivateServer], victim: str, own_temporary: Path) -> None:
    try:
        kind()._check_available()
    except ServerUnavailable as error:
        unavailable(str(error))
    environment = os.environ | {"TMPDIR": str(own_temporary)}
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN, kind.label], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as run:
        assert run.stdout is not None
        keeper = psutil.Process(int(run.stdout.readline()))
        processes = [keeper, *keeper.children(recursive=True)]
        assert len(processes) > 1
        os.kill(run.pid if victim == "test run" else keeper.pid, signal.SIGKILL)
        wait_until(lambda: not running(processes), SECONDS, f"{processes} to end")
        run.kill()
    if victim == "test run":
        assert list(own_temporary.iterdir()) == []


# --- the parts --------------------------------------------------------------------------------------------------------


def test_missing_program_names_its_package() -> None:
    with pytest.raises(ServerUnavailable, match="Debian package no-such-package"):
        find_program("no-such-program", "no-such-package")


def test_free_port_is_free_and_never_given_twice() -> None:
    state = random.getstate()
    first = free_port()
    random.setstate(state)  # the same candidates in the same order
    second = free_port()
    assert second != first
    with socket.create_server((HOST, first)), socket.create_server((HOST, second)):
        pass


def test_free_port_passes_over_a_port_in_use() -> None:
    state = random.getstate()
    with socket.create_server((HOST, free_port())) as taken:
        random.setstate(state)
        _issued_ports.discard(taken.getsockname()[1])
        assert free_port() != taken.getsockname()[1]


def test_keeper_ends_a_daemon_that_left_its_parent_and_its_session(own_temporary: Path) -> None:
    folder = own_temporary / "kept"
    folder.mkdir()
    keeper = Keeper(folder)
    try:
        script = "setsid sleep 600 & echo $! > daemon; mv daemon pid"
        environment = {"PATH": os.environ["PATH"]}
        keeper.run("daemon", ["/bin/sh", "-c", script], env=environment, cwd=folder, log=folder / "log", user=None)
        wait_until((folder / "pid").exists, SECONDS, "the daemon to start")
        wait_until(lambda: keeper.poll("daemon") == 0, SECONDS, "its parent to end")
        daemon = psutil.Process(int((folder / "pid").read_text()))
        assert running([daemon]) == [daemon]
    finally:
        keeper.finish()
    assert running([daemon]) == []
    assert not folder.exists()


def test_keeper_says_why_a_program_does_not_start(own_temporary: Path) -> None:
    folder = own_temporary / "kept"
    folder.mkdir()
    keeper = Keeper(folder)
    try:
        with pytest.raises(ServerError, match="could not run: FileNotFoundError"):
            keeper.run("none", ["/no/such/program"], env={}, cwd=folder, log=folder / "log", user=None)
    finally:
        keeper.finish()


def test_wait_until_returns_the_value_and_reports_the_last_one() -> None:
    values = iter([0, "", "there"])
    assert wait_until(lambda: next(values), SECONDS, "a value") == "there"
    with pytest.raises(WaitTimeout, match=r"answers: not within 0 s; last seen: \[\]") as caught:
        wait_until(list[str], 0, "answers")
    assert caught.value.last == []


def test_wait_until_retries_only_the_errors_that_it_is_told() -> None:
    attempts: list[int] = []

    def third_time() -> int:
        attempts.append(len(attempts))
        if len(attempts) < 3:
            raise ConnectionRefusedError("not yet")
        return len(attempts)

    assert wait_until(third_time, SECONDS, "the third attempt", retry_on=OSError) == 3
    attempts.clear()
    with pytest.raises(ConnectionRefusedError):
        wait_until(third_time, SECONDS, "the third attempt")
    attempts.clear()
    with pytest.raises(WaitTimeout) as caught:
        wait_until(third_time, 0, "the third attempt", retry_on=OSError)
    assert isinstance(caught.value.last, ConnectionRefusedError)
    assert caught.value.__cause__ is caught.value.last

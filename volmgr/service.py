# SPDX-License-Identifier: Apache-2.0
"""One worker for one backend: starts, claims, beats, drains.

The order of a start: incarnation lock, schema, keys, driver and target, registration, RPC; what an earlier incarnation
left and the exports are taken up in the background, so that requests are served at once. A backend that cannot be set
up is reported down with the reason and tried again for ever; the worker lives and answers meanwhile.
"""

from __future__ import annotations

import datetime
import importlib
import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import oslo_messaging

from volmgr import context as ctx
from volmgr import crypto, equipment, exception, joining, probes, reporting, systemd
from volmgr.backups.stores import Stores
from volmgr.cluster import Membership
from volmgr.db import answered, operations, reservations, schema, services, transfers
from volmgr.db import types as volume_types
from volmgr.db.admission import Settings
from volmgr.db.engine import Database
from volmgr.dispatch import Dispatcher
from volmgr.drivers import loader
from volmgr.exports import Exports
from volmgr.health import Health, is_ours
from volmgr.images.access import Images
from volmgr.incarnation import Incarnation, command_of
from volmgr.metrics import Metrics, Unmeasured
from volmgr.notifications import Notifications, Silence, open_notifications
from volmgr.operations import image_source, placing
from volmgr.operations.attachments import Attachments
from volmgr.operations.base import Args, Operation
from volmgr.operations.catalogue import Catalogue
from volmgr.operations.properties import Properties
from volmgr.operations.resets import Resets
from volmgr.operations.transfers import AcceptTransfer, Transfers
from volmgr.placement import Placement
from volmgr.reconcile.auditor import LEVEL, Auditor
from volmgr.reconcile.world import Process
from volmgr.replicas import Replicas
from volmgr.runtime import Clock, Executor, Lanes, SystemClock
from volmgr.switches import Switches
from volmgr.targets.base import Target
from volmgr.tasks import Backend

LOG = logging.getLogger(__name__)

__all__ = ["Worker"]
PURGE_INTERVAL = 3600.0
PURGE_LIMIT = 1000
_ATTACHMENTS = uuid.UUID("5b7a8a52-4f0c-4c43-8a4e-6b1a52a2a7de")


class Worker:
    """Everything that serves one backend, put together.

    :param conf: the loaded configuration. :param backend: the backend's options.
    :param clock: where time comes from. :param executor: where operations run; by default thread pools by lane.
    :param killpoint: see :class:`volmgr.tasks.Runner`.
    """

    def __init__(
        self,
        conf: Any,
        backend: Any,
        *,
        driver: Any = None,
        clock: Clock | None = None,
        executor: Executor | None = None,
        killpoint: Callable[[str], None] | None = None,
    ) -> None:
        self.conf = conf
        self.options = backend
        #: this worker; the backend that it serves, alone or with the others of its cluster.
        self.name = f"{conf.host}@{backend.config_group}"
        self.host = joining.service_of(conf, backend.config_group)
        self.membership: Membership | None = None
        self.clock: Clock = clock or SystemClock()
        self.executor: Executor = executor or Lanes(
            {"control": conf.control_threads, "bulk": conf.bulk_slots, "observe": 2}
        )
        self.killpoint = killpoint
        self.incarnation = Incarnation(f"{conf.state_path}/locks", self.name)
        self.driver: Any = driver
        self.target: Target | None = None
        self.reason: str | None = "starting"
        self._threads: list[threading.Thread] = []
        self.stopping = threading.Event()
        self._servers: list[Any] = []
        self._bell: Any = None
        self.stats: dict[str, Any] = {}
        self.health = Health(self)
        self.rebuilt = False
        self.notifications: Notifications | Silence = Silence()
        self.metrics: Metrics | Unmeasured = Unmeasured()
        self._probes: Any = None

    def settings_of(self, name: str) -> Any:
        """Return an option of the deployment."""
        return getattr(self.conf, name)

    # --- start ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the lock, open the database and the keys, load the driver.

        :raises VolmgrError: the worker cannot run; the hint says what to do.
        """
        self.incarnation.acquire()
        self.database = Database.from_config(self.conf.database, pool_size=self.conf.control_threads + 16)
        schema.prepare(self.database, embedded=self.conf.embedded)
        self.cipher = crypto.Cipher.open(self.conf.key_file, self.database)
        self.notifications = open_notifications(self.conf, self.host, self.database.reader)
        self._watch()
        if self.driver is None:
            self.target = loader.make_target(self.conf, self.options)
            self.driver = self._load_driver()
        else:
            self.target = self.driver.target_driver
        self.membership = joining.membership(self)
        self.assemble()

    def _watch(self) -> None:
        """Let the worker be measured and its health be seen, where a port is set for that."""
        if not self.conf.metrics.port:
            return
        backends = self.conf.enabled_backends or [self.options.config_group]
        self.metrics = Metrics(self)
        port = self.conf.metrics.port + backends.index(self.options.config_group)
        self._probes = probes.serve(self, self.metrics, str(self.conf.metrics.address), port)

    def pools(self) -> list[dict[str, Any]]:
        """Return what was last known of the backend's pools."""
        return list(self.stats.get("pools") or ())

    def assemble(self) -> None:
        """Put together what works on the database with the driver: exports, journal, attachments."""
        settings = self._settings()
        self.images = Images.from_config(self.conf.images, self.conf.state_path, self.incarnation.held_fd)
        self.types = volume_types.Cache(self.database)
        self.exports = Exports(
            self.database,
            self.driver,
            self.target,
            settings=settings,
            cipher=self.cipher,
            clock=self.clock,
            killpoint=self.killpoint,
            volume_types=self.types.get,
            locks=joining.locks(self.membership),
        )
        self.placement = Placement(
            self.database,
            self.host,
            settings.zone,
            self.clock,
            down_time=self.conf.service_down_time,
            max_age=3 * self.conf.report_interval,
        )
        replicas = Replicas(self.database, self.driver, self.host, shared=self.membership is not None)
        backend = Backend(
            self.driver,
            self.exports,
            settings,
            self.cipher,
            types=self.types.get,
            find_type=self.types.find,
            placement=self.placement,
            ring=self.ring,
            notifications=self.notifications,
            metrics=self.metrics,
            stores=Stores.from_conf(self.conf),
            frozen=replicas.is_frozen,
            images=self.images,
            initiators=equipment.initiators(self.conf, self.options, self.incarnation.held_fd),
            membership=self.membership,
            moved=self.health.hurry,
        )
        self.dispatcher = Dispatcher(
            self.database,
            backend,
            executor=self.executor,
            clock=self.clock,
            incarnation=self.incarnation.id,
            bulk_slots=self.conf.bulk_slots,
            killpoint=self.killpoint,
        )
        self.dispatcher.paused = True
        self.auditor = Auditor(self.dispatcher, processes=self._left_over)
        self.switches = Switches(
            self.database, self.clock, self.host, lambda: self.conf.service_down_time, self.placement.refresh
        )
        self.resets = Resets(self.database, self.clock, self.host)
        self.attachments = Attachments(self.database, self.exports, self.clock)
        self.properties = Properties(self.database, self.exports, self.clock)
        self.replicas = replicas
        self.transfers = Transfers(
            self.database,
            self.clock,
            lambda context, values: self.submit(context, AcceptTransfer, values),
            lambda context: self.dispatcher.joined(context, AcceptTransfer.verb),
        )
        self.catalogue = Catalogue(self.database, self.types, self.clock, settings.quota)

    def _load_driver(self) -> Any:
        # Commands inherit the lock of this life, so that the next one can end what outlives it.
        lock_fd = self.incarnation.fd
        active = Replicas(self.database, None, self.host).active_backend_id
        return equipment.load_driver(
            self.options, host=self.host, target=self.target, lock_fd=lock_fd, active_backend_id=active
        )

    def _settings(self) -> Settings:
        return equipment.settings(self.conf, self.options, self.host, self.driver, self.target)

    def init_host(self) -> None:
        """Set driver and target up once; a failure is kept as the reason why the backend is down."""
        try:
            if self.target is not None:
                self.target.start()
                self.exports.admit_known()
            self.driver.do_setup(ctx.admin())
            self.driver.check_for_setup_error()
            self.measure(discover=True)
        except Exception as error:
            self.down(error)
            LOG.error("The backend %s is down: %s", self.host, error, exc_info=not is_ours(error))
            return
        if self.driver.supports("set_throttle"):
            self.driver.set_throttle()
        self.driver.set_initialized()
        self.reason = None

    def measure(self, *, discover: bool = False) -> dict[str, Any]:
        """Ask the backend what it can do and how full it is.

        Where its target listens is for hosts that compare their sessions with it.
        """
        stats = reporting.measure(self.driver, discover=discover)
        if self.target is not None:
            stats["target_portals"] = [str(portal) for portal in self.target.config.portals]
            stats["target_prefix"] = self.target.config.prefix
        self.stats = stats
        self.placement.measured(stats)
        return stats

    def down(self, error: Exception) -> None:
        """Keep why the backend is down."""
        self.reason = str(error)
        self.placement.measured(self.stats, self.reason)

    def start(self, transport: Any) -> None:
        """Serve: requests first, then what an earlier incarnation left."""
        from volmgr.manager import RPC_VERSION
        from volmgr.rpc.server import make_bell, make_server

        joining.join(self)
        self.init_host()
        services.enroll(
            self.database,
            self.host,
            topic=self.conf.volume_topic,
            availability_zone=self.dispatcher.backend.settings.zone,
            driver=str(self.options.volume_driver),
            incarnation=self.incarnation.id,
            rpc_version=RPC_VERSION,
            state="up" if self.is_working() else "down",
            reason=self.reason,
            capabilities=self.stats,
        )
        self.placement.refresh()
        self.manager = _load_class(self.conf.volume_manager)(worker=self)
        # Whatever is for a cluster's backend any of its members takes.
        for name in dict.fromkeys((self.name, self.host)):
            self._servers.append(
                make_server(transport, topic=self.conf.volume_topic, name=name, endpoints=[self.manager])
            )
        self._bell = make_bell(transport, topic=self.conf.volume_topic)
        for server in self._servers:
            server.start(override_pool_size=max(200, self.conf.control_threads * 2))
        self.spawn(self.init_host_with_rpc, "recovery")
        self.spawn(self._beat, "beat")
        if (interval := systemd.watchdog_interval()) is not None:
            self.spawn(lambda: self._feed(interval), "watchdog")
        what = f"driver {self.options.volume_driver} {self.driver.get_version()}"
        LOG.info("Serving %s (%s, target %s)", self.host, what, self.options.target_helper or "none")

    def init_host_with_rpc(self) -> None:
        """Once the backend is up: run what was begun, rebuild the exports, then pump the journal until the end."""
        if down := not self.is_working():
            self.health.wait_until_up()
        else:
            self.dispatcher.paused = False
        if self.stopping.is_set():
            return
        if self.health.insist(self._take_over, "Taking over what an earlier volmgr-volume had begun"):
            self.dispatcher.paused = False
            if not down:
                self.spawn(self.dispatcher.loop, "pump")
            self.dispatcher.ring()
            if self.health.insist(self.exports.rebuild, "Making the exports again"):
                self.rebuilt = True
                self.spawn(self._reconcile, "audit")
            self.health.insist(self._tell_rows, "Asking the driver about its volumes")

    def _tell_rows(self) -> None:
        if count := reporting.tell_rows(self.database, self.driver, self.host):
            LOG.info("%d rows follow what the driver says of them", count)

    def _take_over(self) -> None:
        if count := self.dispatcher.recover():
            LOG.warning("Took over %d operations that an earlier volmgr-volume had begun", count)
        image_source.sweep(self.database, self.images)

    def _reconcile(self) -> None:
        """Audit again and again until the end."""
        interval = self.conf.reconcile_interval
        while interval and not self.stopping.is_set():
            if self.is_working():
                self.audit()
            if self.clock.wait(self.stopping, interval):
                return

    def audit(self) -> None:
        """Compare SQL, storage and target; what only makes the target follow SQL is mended at once."""
        try:
            found = self.auditor.run(fix=True, repairs=LEVEL).findings
            if left := [item for item in found if item.repair not in LEVEL]:
                LOG.warning("%d findings wait for: volmgr-manage audit", len(left))
        except Exception as error:
            known = is_ours(error)
            LOG.error("The audit of %s failed, it is tried again: %s", self.host, error, exc_info=not known)

    def _left_over(self) -> list[Process]:
        return [Process(pid, command_of(pid)) for pid in self.incarnation.left_over()]

    def spawn(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=f"volmgr-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    # --- life -----------------------------------------------------------------------------------------------------

    def is_working(self) -> bool:
        """Return whether the backend is set up."""
        return self.reason is None and bool(self.driver.initialized)

    def ready(self) -> None:
        """Return if the backend is set up.

        :raises BackendDown: it is not; the reason says why.
        """
        if self.reason is not None:
            replicas = self.driver.supports("failover_host") and "failover_host" not in self.driver.lacks
            over = f"; its replicas may serve instead: volmgr backend failover {self.host}" if replicas else ""
            raise exception.BackendDown(
                f"The backend {self.host} is down: {self.reason}",
                hint=f"It is tried again by itself; see: volmgr doctor{over}",
            )

    def submit(self, context: Any, cls: type[Operation[Any]], values: dict[str, Any]) -> dict[str, Any]:
        """Check a changing request's arguments and admit it; while the backend is down it waits in the journal."""
        arguments: Args = cls.args.parse(values)
        return self.dispatcher.submit(context, cls, arguments)

    def findings_about(self, resource_id: str) -> list[dict[str, Any]]:
        """Audit, and return what was found about one resource; nothing while the backend is down."""
        if not self.is_working():
            return []
        found = self.auditor.run().to_json()["findings"]
        return [item for item in found if item["resource_id"] == resource_id]

    @staticmethod
    def derived_id(context: Any, *parts: str | None) -> str:
        """Return the id of an attachment whose caller gave none: the same for the same volume and user of it."""
        return str(uuid.uuid5(_ATTACHMENTS, "/".join(part or "" for part in parts)))

    def capabilities(self, refresh: bool) -> dict[str, Any]:
        """Return what the backend can do and how full it is."""
        self.ready()
        if refresh or not self.stats:
            self.measure(discover=True)
        return self.stats

    def explain_placement(self, context: Any, values: dict[str, Any]) -> dict[str, Any]:
        """Return all pools with what speaks for and against each, and the place that a volume would get."""
        _kind, request = placing.request_of(self.dispatcher.backend, context, values)
        judged = self.placement.explain(request)
        best = next((item.pool.host for item in judged if item.passed), None)
        return {"host": best, "backends": [item.to_json() for item in judged]}

    def publish(self) -> dict[str, Any]:
        """Ask the backend for its state and record it."""
        stats = self.capabilities(True)
        with self.database.writer() as conn:
            services.beat(conn, self.host, capabilities=stats, state="up", reason=None)
        self.placement.refresh()
        return stats

    def ring(self, host: str) -> None:
        """Wake another worker: its journal has something new. It would find that by itself, a moment later."""
        if self._bell is None:
            return
        try:
            self._bell.prepare(server=host).cast(ctx.admin(), "ring")
        except (oslo_messaging.MessagingException, exception.VolmgrError) as error:
            LOG.info("%s was not woken, it looks into its journal by itself: %s", host, error)

    def _beat(self) -> None:
        asked = time.monotonic()
        purged = 0.0
        while not self.stopping.wait(self.conf.report_interval):
            stats, trouble = None, self.reason
            try:
                if self.is_working():
                    trouble = self._look_after_target()
                if self.is_working() and time.monotonic() - asked >= self.conf.backend_stats_polling_interval:
                    stats, asked = self.health.examine(), time.monotonic()
                    self.replicas.look()
                    trouble = self.reason or trouble
                with self.database.writer() as conn:
                    state = "up" if trouble is None else "down"
                    if trouble is None or self.membership is None:  # the other members may well be up
                        services.beat(conn, self.host, capabilities=stats, state=state, reason=trouble)
                self.placement.refresh()
                self._expire()
                if time.monotonic() - purged >= PURGE_INTERVAL:
                    self._purge()
                    purged = time.monotonic()
            except Exception as error:
                LOG.error("The heartbeat of %s failed, it is tried again: %s", self.host, error)

    def _expire(self) -> None:
        """Give quota back that was reserved and not used in time, and withdraw offers that nobody has accepted."""
        with self.database.reader() as conn:
            over = transfers.has_expired(conn, self.clock.now())
        if over:
            with self.database.writer() as conn:
                transfers.expire(conn, self.clock.now())
        with self.database.reader() as conn:
            if not reservations.expired(conn, self.clock.now()):
                return
        with self.database.writer() as conn:
            count = reservations.expire(conn, self.clock.now())
        LOG.info("%d quota reservations have expired", count)

    def _look_after_target(self) -> str | None:
        """Have a dead target started again, and what it has lost made again; returns what is wrong with it."""
        if self.target is None:
            return None
        try:
            self.target.check()
            if self.rebuilt:
                self.exports.restore_missing()
        except exception.VolmgrError as error:
            LOG.error("The target of %s does not answer: %s", self.host, error)
            return str(error)
        return None

    def _purge(self) -> None:
        """Forget operations that ended long ago, a thousand in each transaction."""
        before = self.clock.now() - datetime.timedelta(days=self.conf.operation_history_days)
        while not self.stopping.is_set():
            with self.database.writer() as conn:
                gone = operations.purge(conn, before, PURGE_LIMIT), answered.purge(conn, before, PURGE_LIMIT)
            if max(gone) < PURGE_LIMIT:
                return

    def _feed(self, interval: float) -> None:
        """Feed systemd's watchdog while database and threads answer."""
        while not self.stopping.wait(interval):
            if wrong := probes.ailments(self):
                LOG.error("The watchdog is not fed: %s", wrong)
                continue
            try:
                systemd.notify(WATCHDOG=1)
            except OSError as error:
                LOG.error("The watchdog cannot be fed: %s", error)

    def stop(self, timeout: float = 30.0) -> bool:
        """Drain: take no more requests, let what runs end; what does not is taken up by the next start.

        :param timeout: seconds. :returns: whether everything had ended.
        """
        self.stopping.set()
        self.health.hurry()
        for server in self._servers:
            server.stop()
        self.dispatcher.stop()
        drained = self.executor.shutdown(timeout)
        if joining.leave(self, drained) and (left := self.dispatcher.let_go()):
            LOG.warning("%d operations are left to the next start", left)
        if self.target is not None:
            self.target.stop()
        self.notifications.close()
        if self._probes is not None:
            self._probes.shutdown()
            self._probes.server_close()
        self.database.close()
        self.incarnation.release()
        return drained


def _load_class(path: str) -> Any:
    """Return a class by its dotted path.

    :raises InvalidConfiguration: there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise exception.InvalidConfiguration(reason=f"volume_manager {path!r} cannot be loaded: {error}") from error

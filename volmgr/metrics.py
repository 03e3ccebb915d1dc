# SPDX-License-Identifier: Apache-2.0
"""What a worker lets be measured, in Prometheus' terms: requests and operations as histograms, the journal as it is.

Durations are observed as they happen; what SQL knows (operations by state and age, findings, volumes) is asked for at
each scrape, in four statements. The library is imported by a worker that has it switched on.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import volmgr
from volmgr import exception
from volmgr.db import figures

if TYPE_CHECKING:
    from volmgr.service import Worker
    from volmgr.types import OperationRecord

LOG = logging.getLogger(__name__)

REQUEST_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)
OPERATION_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1800, 7200)
#: the figures of a pool that are numbers, as drivers call them.
POOL_FIGURES = ("total_capacity_gb", "free_capacity_gb", "allocated_capacity_gb", "provisioned_capacity_gb")


class Unmeasured:
    """What a worker has where nothing is measured."""

    enabled = False

    def request(self, *_args: Any) -> None:
        """Measure nothing."""

    def operation(self, *_args: Any) -> None:
        """Measure nothing."""


class Metrics:
    """The metrics of one worker."""

    enabled = True

    def __init__(self, worker: Worker) -> None:
        import prometheus_client as prometheus

        self.registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Histogram(
            "volmgr_request_seconds", "From a request's arrival to its answer, by verb and outcome.",
            ["verb", "outcome"], registry=self.registry, buckets=REQUEST_BUCKETS,
        )
        self._operations = prometheus.Histogram(
            "volmgr_operation_seconds", "From an operation's admission to its end, waits included.",
            ["verb", "outcome"], registry=self.registry, buckets=OPERATION_BUCKETS,
        )
        self.registry.register(_Worker(worker))
        prometheus.ProcessCollector(registry=self.registry)

    def request(self, verb: str, began: float, error: Exception | None = None) -> None:
        """Count a request that has been answered.

        :param began: when, by ``time.monotonic()``.
        """
        self._requests.labels(verb, _outcome(error)).observe(time.monotonic() - began)

    def operation(self, record: OperationRecord, now: datetime.datetime, error: Exception | None = None) -> None:
        """Count an operation that has ended."""
        if record.created_at is not None:
            seconds = max(0.0, (now - record.created_at).total_seconds())
            self._operations.labels(record.verb, _outcome(error)).observe(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format, version 0.0.4."""
        import prometheus_client as prometheus

        return prometheus.generate_latest(self.registry)


def _outcome(error: Exception | None) -> str:
    if error is None:
        return "ok"
    return error.code if isinstance(error, exception.VolmgrError) else "error"


class _Worker:
    """What is so at this moment, asked for when somebody looks."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[Any]:
        """Return the families of a scrape."""
        from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

        worker = self._worker
        yield InfoMetricFamily(
            "volmgr_build", "What runs here.",
            value={"version": volmgr.__version__, "host": worker.host, "driver": str(worker.options.volume_driver)},
        )
        yield GaugeMetricFamily("volmgr_backend_up", "Whether the backend is set up.", value=worker.is_working())
        yield from self._pools()
        try:
            with worker.database.reader() as conn:
                unfinished = figures.unfinished(conn, worker.host)
                findings, resources = figures.findings(conn, worker.host), figures.resources(conn, worker.host)
        except Exception as error:
            LOG.warning("A scrape tells nothing of the journal: %s", error)
            yield GaugeMetricFamily("volmgr_database_up", "Whether the database answers.", value=0)
            return
        yield GaugeMetricFamily("volmgr_database_up", "Whether the database answers.", value=1)
        yield from self._journal(unfinished)
        found = GaugeMetricFamily("volmgr_findings", "What the last audit left, by kind.", labels=["kind"])
        for kind, count in findings.items():
            found.add_metric([kind], count)
        yield found
        counts = GaugeMetricFamily("volmgr_resources", "Volumes and snapshots.", labels=["noun", "status"])
        sizes = GaugeMetricFamily("volmgr_resources_gib", "Their sizes in GiB.", labels=["noun", "status"])
        for (noun, status), (count, gigabytes) in resources.items():
            counts.add_metric([noun, status], count)
            sizes.add_metric([noun, status], gigabytes)
        yield from (counts, sizes)

    def _journal(self, unfinished: list[figures.Unfinished]) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        labels, now = ["verb", "state"], self._worker.clock.now()
        count = GaugeMetricFamily("volmgr_operations_unfinished", "Operations that have not ended.", labels=labels)
        age = GaugeMetricFamily("volmgr_operations_oldest_seconds", "The age of the oldest of them.", labels=labels)
        for item in unfinished:
            count.add_metric([item.verb, item.state], item.count)
            age.add_metric([item.verb, item.state], (now - item.oldest).total_seconds())
        yield from (count, age)

    def _pools(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        pools = self._worker.pools()
        for name in POOL_FIGURES:
            family = GaugeMetricFamily(
                f"volmgr_pool_{name.removesuffix('_gb')}_gib", f"{name} of a pool, in GiB.", labels=["pool"]
            )
            for pool in pools:
                if isinstance(pool.get(name), int | float):
                    family.add_metric([str(pool.get("pool_name"))], pool[name])
            yield family

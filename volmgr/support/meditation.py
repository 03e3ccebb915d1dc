# SPDX-License-Identifier: Apache-2.0
"""A guru meditation: what a daemon is at, at the moment when it is asked by SIGUSR2, also when it answers nobody.

oslo.reports does the work; it is imported when a report is wanted, as a daemon that never meditates should not pay
for it. The file has the same name each time and appears whole. This module decides nothing.
"""

from __future__ import annotations

import logging
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volmgr import __version__, concurrency, names

if TYPE_CHECKING:
    from volmgr.service import Worker

LOG = logging.getLogger(__name__)


def path_of(state_path: str, service: str) -> Path:
    """Return where the report of a worker is written.

    :param service: ``host@backend``.
    """
    return Path(state_path) / "reports" / f"{names.lock_file_name(service)}.txt"


def write(worker: Worker) -> None:
    """Write the report of a worker; what goes wrong is logged, as nobody waits here for an answer."""
    path = path_of(worker.conf.state_path, worker.name)
    try:
        text = _text(worker)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
        draft.replace(path)
    except Exception:
        LOG.exception("The guru meditation could not be written to %s", path)
        return
    LOG.warning("A guru meditation is in %s", path)


def _text(worker: Worker) -> str:
    from oslo_reports import report
    from oslo_reports.generators import conf as conf_generator
    from oslo_reports.generators import process, threading
    from oslo_reports.models import with_default_views
    from oslo_reports.views.text import generic

    from volmgr.support import scrub, settings

    def section(values: dict[str, Any]) -> Any:
        return with_default_views.ModelWithDefaultViews(values, text_view=generic.KeyValueView())

    made = report.TextReport("Guru Meditation")
    made.add_section("Package", lambda: section(_package()))
    made.add_section("Worker", lambda: section(_worker(worker)))
    made.add_section("Threads", threading.ThreadReportGenerator())
    if concurrency.is_green():
        made.add_section("Green Threads", threading.GreenThreadReportGenerator())
    made.add_section("Processes", process.ProcessReportGenerator())
    made.add_section("Configuration", conf_generator.ConfigReportGenerator(worker.conf))
    return scrub.Scrubber(settings.secret_values(worker.conf)).scrub(str(made.run()))


def _package() -> dict[str, Any]:
    return {"volmgr": __version__, "python": platform.python_version(), "kernel": platform.release()}


def _worker(worker: Worker) -> dict[str, Any]:
    """Return how a worker is, from its memory alone: the database may be what it waits for."""
    return {
        "service": worker.host,
        "incarnation": worker.incarnation.id,
        "works": worker.is_working(),
        "reason": worker.reason,
        "exports_rebuilt": worker.rebuilt,
        "stopping": worker.stopping.is_set(),
        "operations_running": worker.dispatcher.running(),
    }

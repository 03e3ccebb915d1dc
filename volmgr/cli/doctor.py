# SPDX-License-Identifier: Apache-2.0
"""``volmgr doctor``: one table of what this host has, what it lacks, and what to do about it.

Exit code 1 if something is missing that a configured backend, or the daemon, cannot work without.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from volmgr import exception
from volmgr.cli import base, checks
from volmgr.cli import session as sessions
from volmgr.cli.checks import CheckResult, Result

if TYPE_CHECKING:
    from volmgr.conf.loading import Configuration

ANSWER_TIMEOUT = 5.0
START = "systemctl start volmgr-volume; journalctl -u volmgr-volume"


class Doctor(base.Lister):
    """Check that this host has what its backends need."""

    shown = ("check", "result", "found", "remedy")
    missing = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--offline", action="store_true", help="do not ask the daemon and the database")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[Any]]:
        results = examine(self.app.options, offline=parsed_args.offline)
        self.missing = any(result.result is Result.MISSING for result in results)
        rows = [
            {"check": item.check, "result": str(item.result), "found": item.found, "remedy": item.remedy}
            for item in results
        ]
        return self.table(parsed_args, rows)

    def run(self, parsed_args: argparse.Namespace) -> int:
        super().run(parsed_args)
        return 1 if self.missing else 0


def examine(options: argparse.Namespace, *, offline: bool) -> list[CheckResult]:
    """Return the results of every check.

    :param options: the program's global options.
    """
    try:
        conf = sessions.configuration(options)
        backends = _backends(conf)
    except exception.VolmgrError as error:
        return [CheckResult("configuration", Result.MISSING, error.message, error.hint)]
    needed = checks.needs(backends)
    listed = ", ".join(str(backend.config_group) for backend in backends)
    results = [CheckResult("configuration", Result.OK, f"backends: {listed}")]
    results += checks.check_modules(needed)
    results += checks.check_tools(needed.tools)
    results += checks.check_state_path(conf.state_path)
    results += checks.check_socket(options.transport_url or conf.transport_url)
    if not offline:
        results += check_daemon(conf, options.transport_url)
        results += check_database(conf)
    return results


def _backends(conf: Configuration) -> list[Any]:
    from volmgr import conf as volmgr_conf

    return list(volmgr_conf.backends(conf))


def check_daemon(conf: Configuration, transport_url: str | None) -> list[CheckResult]:
    """Ask the workers how they are."""
    from volmgr import context
    from volmgr.rpc.client import VolumeAPI

    api = VolumeAPI(transport_url, conf=conf, timeout=ANSWER_TIMEOUT)
    try:
        services = api.list_services(context.admin())
    except exception.VolmgrError as error:
        return [CheckResult("daemon", Result.MISSING, error.message, error.hint or START)]
    finally:
        api.close()
    results = [CheckResult("daemon", Result.OK, f"answers, {len(services)} known")]
    for service in services:
        label = f"worker {service['host']}"
        if service.get("up", True) and service["state"] == "up":
            results.append(CheckResult(label, Result.OK, "up"))
        else:
            reason = service.get("reason") or f"last heard of at {service.get('updated_at')}"
            results.append(CheckResult(label, Result.MISSING, f"{service['state']}: {reason}", START))
    return results


def check_database(conf: Configuration) -> list[CheckResult]:
    """Compare the database's schema with this code's."""
    from volmgr.cmd.status import schema_revision

    label, remedy = "database schema", "volmgr-manage db upgrade"
    try:
        found = schema_revision(conf)
    except exception.SchemaMismatch as error:
        return [CheckResult(label, Result.MISSING, error.message, error.hint)]
    except exception.VolmgrError as error:
        return [CheckResult(label, Result.WARNING, error.message, error.hint)]
    if found is None:
        return [CheckResult(label, Result.WARNING, "not made yet", remedy)]
    return [CheckResult(label, Result.OK, found)]

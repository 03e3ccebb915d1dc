# SPDX-License-Identifier: Apache-2.0
"""Commands over workers and their backends."""

from __future__ import annotations

import argparse
import time
from typing import Any

from volmgr import exception
from volmgr.cli import base

#: seconds that one request waits for a worker to become idle.
SLICE = 5.0


class ServiceList(base.Lister):
    """List the workers."""

    shown = ("host", "state", "up", "disabled", "disabled_reason", "reason", "updated_at")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.table(parsed_args, self.session.listing("service"))


class _Switch(base.Show):
    """A command over one worker."""

    reasoned = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("host", help="host@backend, or the backend's name where it is the only one")
        if self.reasoned:
            parser.add_argument("--reason", metavar="TEXT", help="for whoever wonders why")
        return parser

    def host(self, given: str) -> str:
        """Return the worker that is meant."""
        return str(chosen(self.session.listing("service"), given)["host"])


class ServiceShow(_Switch):
    """Show a worker."""

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given = str(parsed_args.host)
        return self.fields(self.session.call("get_service", service=given if "@" in given else self.host(given)))


class ServiceDisable(_Switch):
    """Place nothing new on a worker; what is there is served on."""

    reasoned = True

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        host = self.host(parsed_args.host)
        return self.fields(self.session.call("service_disable", service=host, reason=parsed_args.reason))


class ServiceEnable(_Switch):
    """Place new volumes on a worker again."""

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.fields(self.session.call("service_enable", service=self.host(parsed_args.host)))


class ServiceDrain(_Switch):
    """Place nothing new on a worker and wait until it is idle; parked operations are not waited for."""

    reasoned = True
    left = 0

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_timeout(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        host, deadline = self.host(parsed_args.host), time.monotonic() + parsed_args.timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            found = self.session.call(
                "service_drain", service=host, reason=parsed_args.reason, timeout=min(left, SLICE)
            )
            self.left = found["unfinished"]
            if not self.left or left <= 0:
                return self.fields(found)

    def run(self, parsed_args: argparse.Namespace) -> int:
        super().run(parsed_args)
        return 1 if self.left else 0


class InitiatorAdd(base.Common):
    """Make a host's Fibre Channel port known, before it logs in."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("wwpn", help="the port's name, 16 hexadecimal digits")
        parser.add_argument("--host", metavar="HOST@BACKEND", help="the worker whose ports the host uses")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        answer = self.session.call("initiator_add", wwpn=parsed_args.wwpn, host=parsed_args.host)
        self.say(f"the port {answer['wwpn']} is known")
        return 0


def summary(backend: dict[str, Any]) -> dict[str, Any]:
    """Return a backend with the figures of its first pool beside its own, sizes in GiB."""
    stats = backend.get("capabilities") or backend
    pool = (stats.get("pools") or [{}])[0]
    figures = {
        "protocol": stats.get("storage_protocol"),
        "total_gb": _rounded(pool.get("total_capacity_gb", stats.get("total_capacity_gb"))),
        "free_gb": _rounded(pool.get("free_capacity_gb", stats.get("free_capacity_gb"))),
        "provisioned_gb": _rounded(pool.get("provisioned_capacity_gb")),
    }
    return {**figures, **{key: value for key, value in backend.items() if key not in figures}}


def _rounded(value: Any) -> Any:
    return round(value, 1) if isinstance(value, int | float) else value


class BackendList(base.Lister):
    """List the backends."""

    shown = ("host", "state", "up", "driver", "protocol", "total_gb", "free_gb", "provisioned_gb")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.table(parsed_args, [summary(row) for row in self.session.listing("backend")])


class BackendShow(base.Show):
    """Show what a backend can do."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("backend", help="host@backend, or the backend's name where it is the only one")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.fields(summary(chosen(self.session.listing("backend"), parsed_args.backend)))


def chosen(backends: list[dict[str, Any]], given: str) -> dict[str, Any]:
    """Return the backend that ``given`` means: host@backend, or the part behind the @ of a single one.

    :raises NotFound: none. :raises Invalid: several.
    """
    exact = [row for row in backends if row["host"] == given]
    found = exact or [row for row in backends if str(row["host"]).partition("@")[2] == given]
    if not found:
        raise exception.NotFound(
            f"There is no backend {given!r}", hint="Run: volmgr backend list", resource="backend", id=given
        )
    if len(found) > 1:
        listed = ", ".join(str(row["host"]) for row in found)
        raise exception.Invalid(f"Several backends are named {given!r}", hint=f"Give one of {listed}", field="backend")
    return found[0]

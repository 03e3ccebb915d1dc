# SPDX-License-Identifier: Apache-2.0
"""``volmgr host audit``: what this host has of volumes that it may not have, or not any more."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from volmgr import exception
from volmgr.cli import base

PAGE = 1000


class Audit(base.Lister):
    """Compare this host's sessions, disks and multipath maps with its grants.

    Exit code 1 if something is found and not taken away.
    """

    shown = ("kind", "target", "devices", "reason", "result")
    left = 0

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        help_ = "take away what is stale and not in use; nothing is written to it"
        parser.add_argument("--fix", action="store_true", help=help_)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[Any]]:
        from volmgr.initiator import audit, sysfs

        if parsed_args.fix and os.geteuid() != 0:
            raise exception.Forbidden("Only root can take disks away", hint="Run it as root, or without --fix")
        # In this order: what is granted after this look is not looked for.
        view = sysfs.read()
        backends = audit.backends_of(self.session.call("list_backends"))
        initiators = {item.initiator for item in view.sessions if audit.ours(item, backends)}
        grants = audit.granted_of(row for name in sorted(initiators) for row in self._grants(name))
        findings = audit.compare(view, grants, backends)
        rows = [self._row(finding, fix=parsed_args.fix) for finding in findings]
        self.say(f"{len(view.sessions)} sessions, {len(findings)} findings, {self.left} left")
        return self.table(parsed_args, rows)

    def run(self, parsed_args: argparse.Namespace) -> int:
        super().run(parsed_args)
        return 1 if self.left else 0

    def _grants(self, initiator: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self.session.listing(
                "grant", filters={"initiator": initiator}, limit=PAGE, marker=found[-1]["id"] if found else None
            )
            found += page
            if len(page) < PAGE:
                return found

    def _row(self, finding: Any, *, fix: bool) -> dict[str, Any]:
        from volmgr.initiator import repair

        devices = [item.name for item in (*finding.maps, *finding.disks)]
        result = finding.hint or "volmgr host audit --fix"
        done = False
        if fix and finding.fixable:
            try:
                result, done = repair.repair(finding), True
            except exception.VolmgrError as error:
                result = str(error)
        self.left += not done
        return {
            "kind": finding.kind,
            "target": finding.session.target if finding.session else None,
            "portal": finding.session.portal if finding.session else None,
            "devices": devices,
            "reason": finding.reason,
            "result": result,
        }

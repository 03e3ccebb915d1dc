# SPDX-License-Identifier: Apache-2.0
"""Commands over findings. To look anew, and to mend: ``volmgr-manage audit``."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from volmgr.cli import base


class List(base.Pages):
    """List what the last audits have found."""

    noun = "finding"
    filters = ("kind", "resource", "host")
    renamed: ClassVar[dict[str, str]] = {"resource": "resource_id"}
    shown = ("id", "kind", "resource_id", "repair", "safe", "created_at", "reason")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--kind", metavar="KIND", help="only findings of this kind, such as storage-missing")
        parser.add_argument("--resource", metavar="ID", help="only findings about this id")
        parser.add_argument("--host", metavar="HOST", help="only findings of this host@backend")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.page(parsed_args)


class Show(base.Show):
    """Show one finding."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("finding", help="id of the finding, from: volmgr finding list")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.fields(self.session.call("get_finding", finding_id=parsed_args.finding))

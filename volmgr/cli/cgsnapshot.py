# SPDX-License-Identifier: Apache-2.0
"""Commands over the snapshots of consistency groups."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from volmgr.cli import base, volume

Parser = argparse.ArgumentParser


class Create(base.WaitShow):
    """Snapshot all volumes of a consistency group at one instant."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("group", help="name or id of the group")
        parser.add_argument("name", nargs="?", help="name of the cgsnapshot; it need not be unique")
        parser.add_argument("--id", type=base.an_id, metavar="UUID", help="id of it (default: a random one)")
        parser.add_argument("--description", metavar="TEXT", help="text for people")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given = parsed_args
        cgsnapshot_id = base.new_id(given.id)
        self.submit(
            given,
            "create_cgsnapshot",
            cgsnapshot_id=cgsnapshot_id,
            group_id=self.session.find("group", given.group),
            name=given.name,
            description=given.description,
        )
        return self.fields(self.session.call("get_cgsnapshot", cgsnapshot_id=cgsnapshot_id))


class List(base.Pages):
    """List cgsnapshots."""

    noun = "cgsnapshot"
    filters = ("name", "status")
    renamed: ClassVar[dict[str, str]] = {"name": "display_name"}
    shown = ("id", "name", "group_id", "status", "snapshots", "operation_id")

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--group", metavar="GROUP", help="only those of this group")
        parser.add_argument("--name", metavar="NAME", help="only cgsnapshots of this name")
        parser.add_argument("--status", metavar="STATUS", help="only cgsnapshots in this status")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        of = self.session.find("group", parsed_args.group) if parsed_args.group else None
        return self.page(parsed_args, group_id=of)


class Show(base.Show):
    """Show a cgsnapshot."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("cgsnapshot", help="name or id of the cgsnapshot")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        cgsnapshot_id = self.session.find("cgsnapshot", parsed_args.cgsnapshot)
        return self.fields(self.session.call("get_cgsnapshot", cgsnapshot_id=cgsnapshot_id))


class Delete(base.Deleter):
    """Delete cgsnapshots with their snapshots."""

    noun = "cgsnapshot"

    def delete(self, parsed: argparse.Namespace, given: str) -> None:
        self.submit(parsed, "delete_cgsnapshot", cgsnapshot_id=self.session.find("cgsnapshot", given))


class Why(volume.Why):
    """Say why a cgsnapshot is in the state that it is in."""

    noun = "cgsnapshot"

# SPDX-License-Identifier: Apache-2.0
"""Commands over consistency groups."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from volmgr.cli import base, volume

Parser = argparse.ArgumentParser


class Create(base.WaitShow):
    """Make a consistency group."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", nargs="?", help="name of the group; it need not be unique")
        source = parser.add_mutually_exclusive_group()
        source.add_argument("--cgsnapshot", metavar="CGSNAPSHOT", help="with a volume for each snapshot of this one")
        source.add_argument("--source", metavar="GROUP", help="with a volume for each of this group, as they are now")
        parser.add_argument("--id", type=base.an_id, metavar="UUID", help="id of the group (default: a random one)")
        parser.add_argument(
            "--type", metavar="TYPE", action="append", help="volume type that its volumes may have; may be repeated"
        )
        parser.add_argument("--description", metavar="TEXT", help="text for people")
        parser.add_argument("--availability-zone", metavar="ZONE", help="zone to make it in")
        parser.add_argument("--host", metavar="HOST", help="host@backend to make it on (default: it is placed)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        session, given = self.session, parsed_args
        group_id = base.new_id(given.id)
        own = {"group_id": group_id, "name": given.name, "description": given.description}
        placed = {"volume_types": given.type, "availability_zone": given.availability_zone, "host": given.host}
        if given.cgsnapshot or given.source:
            # What would choose its place goes along and is refused: it is where its source is.
            self.submit(
                given,
                "create_consistencygroup_from_src",
                cgsnapshot_id=session.find("cgsnapshot", given.cgsnapshot) if given.cgsnapshot else None,
                source_group_id=session.find("group", given.source) if given.source else None,
                **own,
                **placed,
            )
        else:
            self.submit(given, "create_consistencygroup", **own, **placed)
        return self.fields(session.call("get_group", group_id=group_id))


class List(base.Pages):
    """List consistency groups."""

    noun = "group"
    filters = ("name", "status", "host")
    renamed: ClassVar[dict[str, str]] = {"name": "display_name"}
    shown = ("id", "name", "status", "host", "volumes", "operation_id")

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--name", metavar="NAME", help="only groups of this name")
        parser.add_argument("--status", metavar="STATUS", help="only groups in this status")
        parser.add_argument("--host", metavar="HOST", help="only groups on this host@backend#pool")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.page(parsed_args)


class Show(base.Show):
    """Show a consistency group."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("group", help="name or id of the group")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        group_id = self.session.find("group", parsed_args.group)
        return self.fields(self.session.call("get_group", group_id=group_id))


class Update(base.WaitShow):
    """Change a consistency group."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("group", help="name or id of the group")
        parser.add_argument("--add", metavar="VOLUME", action="append", help="volume to add; may be repeated")
        parser.add_argument("--remove", metavar="VOLUME", action="append", help="volume to take out; may be repeated")
        parser.add_argument("--name", metavar="NAME", help="new name")
        parser.add_argument("--description", metavar="TEXT", help="new description")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        session, given = self.session, parsed_args
        group_id = session.find("group", given.group)
        self.submit(
            given,
            "update_consistencygroup",
            group_id=group_id,
            add_volumes=[session.find("volume", item) for item in given.add] if given.add else None,
            remove_volumes=[session.find("volume", item) for item in given.remove] if given.remove else None,
            name=given.name,
            description=given.description,
        )
        return self.fields(session.call("get_group", group_id=group_id))


class Delete(base.Deleter):
    """Delete consistency groups."""

    noun = "group"

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--volumes", action="store_true", help="delete its volumes, too")
        return parser

    def delete(self, parsed: argparse.Namespace, given: str) -> None:
        group_id = self.session.find("group", given)
        self.submit(parsed, "delete_consistencygroup", group_id=group_id, delete_volumes=parsed.volumes or None)


class Why(volume.Why):
    """Say why a consistency group is in the state that it is in."""

    noun = "group"

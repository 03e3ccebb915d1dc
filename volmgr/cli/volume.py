# SPDX-License-Identifier: Apache-2.0
"""Commands over volumes."""

from __future__ import annotations

import argparse
import json
from typing import Any, ClassVar

from volmgr.cli import base

Parser = argparse.ArgumentParser


def add_volume(parser: Parser) -> None:
    """Add the argument that names a volume."""
    parser.add_argument("volume", help="name or id of the volume")


class Create(base.WaitShow):
    """Make a volume."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", nargs="?", help="name of the volume; it need not be unique")
        parser.add_argument("--size", type=base.positive, metavar="GIB", help="size in GiB (default: its source's)")
        source = parser.add_mutually_exclusive_group()
        source.add_argument("--snapshot", metavar="SNAPSHOT", help="start with the bytes of this snapshot")
        source.add_argument("--source", metavar="VOLUME", help="start with the bytes of this volume")
        source.add_argument("--replica-of", metavar="VOLUME", help="start with the bytes of this volume's replica")
        source.add_argument("--image", metavar="[STORE/]ID", help="start with the disk in this image")
        source.add_argument("--backup", metavar="BACKUP", help="start with the bytes of this backup")
        parser.add_argument("--id", type=base.an_id, metavar="UUID", help="id of the volume (default: a random one)")
        parser.add_argument("--type", metavar="TYPE", help="volume type")
        parser.add_argument("--description", metavar="TEXT", help="text for people")
        parser.add_argument("--availability-zone", metavar="ZONE", help="zone to make it in")
        parser.add_argument("--group", metavar="GROUP", help="consistency group to make it in")
        parser.add_argument("--host", metavar="HOST", help="host@backend to make it on (default: it is placed)")
        parser.add_argument("--multiattach", action="store_true", help="several instances may use it at once")
        parser.add_argument(
            "--property", type=base.pair, metavar="KEY=VALUE", action="append", help="metadata; may be repeated"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        session, given = self.session, parsed_args
        volume_id = base.new_id(given.id)
        self.submit(
            given,
            "create_volume",
            volume_id=volume_id,
            size=given.size,
            snapshot_id=session.find("snapshot", given.snapshot) if given.snapshot else None,
            source_volid=session.find("volume", given.source) if given.source else None,
            source_replica=session.find("volume", given.replica_of) if given.replica_of else None,
            image_id=given.image,
            backup_id=session.find("backup", given.backup) if given.backup else None,
            volume_type=given.type,
            group_id=session.find("group", given.group) if given.group else None,
            name=given.name,
            description=given.description,
            availability_zone=given.availability_zone,
            metadata=dict(given.property) if given.property else None,
            multiattach=given.multiattach or None,
            host=given.host,
        )
        return self.fields(session.call("get_volume", volume_id=volume_id))


class List(base.Pages):
    """List volumes."""

    noun = "volume"
    filters = ("name", "status", "host")
    renamed: ClassVar[dict[str, str]] = {"name": "display_name"}
    shown = ("id", "name", "status", "size", "host", "operation_id")

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--name", metavar="NAME", help="only volumes of this name")
        parser.add_argument("--status", metavar="STATUS", help="only volumes in this status")
        parser.add_argument("--host", metavar="HOST", help="only volumes on this host@backend")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.page(parsed_args)


class Show(base.Show):
    """Show a volume."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        add_volume(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        volume_id = self.session.find("volume", parsed_args.volume)
        return self.fields(self.session.call("get_volume", volume_id=volume_id))


class Set(base.Show):
    """Change what a volume says of itself."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        add_volume(parser)
        parser.add_argument("--name", metavar="NAME", help="new name")
        parser.add_argument("--description", metavar="TEXT", help="new description")
        parser.add_argument(
            "--property", type=base.pair, metavar="KEY=VALUE", action="append", help="set metadata; may be repeated"
        )
        parser.add_argument("--unset", metavar="KEY", action="append", help="remove metadata; may be repeated")
        for flag, dest, value, text in (
            ("--read-only", "readonly", True, "only reading attachments from now on"),
            ("--read-write", "readonly", False, "writing attachments too"),
            ("--bootable", "bootable", True, "an instance can start from it"),
            ("--no-bootable", "bootable", False, "no instance can start from it"),
        ):
            parser.add_argument(flag, dest=dest, action="store_const", const=value, help=text)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given, session = parsed_args, self.session
        volume_id = session.find("volume", given.volume)
        metadata = None
        if given.property or given.unset:
            present = session.call("get_volume", volume_id=volume_id)["metadata"]
            metadata = {**present, **dict(given.property or ())}
            for key in given.unset or ():
                metadata.pop(key, None)
        session.call(
            "update_volume",
            volume_id=volume_id,
            name=given.name,
            description=given.description,
            metadata=metadata,
            readonly=given.readonly,
            bootable=given.bootable,
        )
        return self.fields(session.call("get_volume", volume_id=volume_id))


class Extend(base.WaitShow):
    """Make a volume larger."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        add_volume(parser)
        parser.add_argument("new_size", type=base.positive, metavar="GIB", help="new size in GiB")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        volume_id = self.session.find("volume", parsed_args.volume)
        self.submit(parsed_args, "extend_volume", volume_id=volume_id, new_size=parsed_args.new_size)
        return self.fields(self.session.call("get_volume", volume_id=volume_id))


class Delete(base.Deleter):
    """Delete volumes."""

    noun = "volume"

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--cascade", action="store_true", help="its snapshots too")
        parser.add_argument("--force", action="store_true", help="also when it is in use: its connections are cut")
        parser.add_argument("--unmanage", action="store_true", help="forget the volume and leave its storage alone")
        return parser

    def delete(self, parsed: argparse.Namespace, given: str) -> None:
        self.submit(
            parsed,
            "delete_volume",
            volume_id=self.session.find("volume", given),
            cascade=parsed.cascade or None,
            force=parsed.force or None,
            unmanage_only=parsed.unmanage or None,
        )


class Manage(base.WaitShow):
    """Make storage that a backend has already a volume."""

    wait_default = True

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("source", help="name of the storage in the backend, see: volmgr volume manageable")
        parser.add_argument("name", nargs="?", help="name of the volume; it need not be unique")
        parser.add_argument("--id", type=base.an_id, metavar="UUID", help="id of the volume (default: a random one)")
        parser.add_argument("--host", metavar="HOST", help="host@backend that has the storage")
        parser.add_argument("--type", metavar="TYPE", help="volume type")
        parser.add_argument("--description", metavar="TEXT", help="text for people")
        parser.add_argument("--bootable", action="store_true", help="an instance can start from it")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given = parsed_args
        volume_id = base.new_id(given.id)
        self.submit(
            given,
            "manage_existing",
            volume_id=volume_id,
            ref={"source-name": given.source},
            host=given.host,
            volume_type=given.type,
            name=given.name,
            description=given.description,
            bootable=given.bootable or None,
        )
        return self.fields(self.session.call("get_volume", volume_id=volume_id))


class Manageable(base.Lister):
    """List what a backend has and whether it could be managed."""

    noun = "volume"
    shown = ("source", "size", "safe_to_manage", "reason_not_safe", "id")

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("host", help="host@backend, see: volmgr backend list")
        parser.add_argument("--marker", metavar="NAME", help="start behind this storage")
        parser.add_argument("--limit", type=base.positive, metavar="N", help="at most so many rows")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given = parsed_args
        found = self.session.call(
            f"get_manageable_{self.noun}s", host=given.host, marker=given.marker, limit=given.limit
        )
        rows = [{"source": item["reference"].get("source-name"), "id": item["cinder_id"], **item} for item in found]
        return self.table(given, rows)


class Detach(base.Common):
    """End attachments of a volume and take their access away, whatever the volume's status is."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        add_volume(parser)
        chosen = parser.add_mutually_exclusive_group(required=True)
        chosen.add_argument("--attachment", metavar="ID", type=base.an_id, help="only this attachment")
        chosen.add_argument("--force", action="store_true", help="all attachments, and all access that was granted")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        volume_id = self.session.find("volume", parsed_args.volume)
        self.session.call(
            "detach_volume", volume_id=volume_id, attachment_id=parsed_args.attachment, force=parsed_args.force
        )
        status = self.session.call("get_volume", volume_id=volume_id)["status"]
        self.say(f"volume {volume_id} is {status}")
        return 0


class Undelete(base.WaitShow):
    """Bring a deleted volume back."""

    wait_default = True

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("volume", type=base.an_id, help="id of the volume; names are free again once it is deleted")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        self.submit(parsed_args, "undelete_volume", volume_id=parsed_args.volume)
        return self.fields(self.session.call("get_volume", volume_id=parsed_args.volume))


class Revert(base.WaitShow):
    """Take a volume back to one of its snapshots; what was written since is lost."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        add_volume(parser)
        parser.add_argument("snapshot", help="name or id of the snapshot")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        volume_id = self.session.find("volume", parsed_args.volume)
        snapshot_id = self.session.find("snapshot", parsed_args.snapshot)
        self.submit(parsed_args, "revert_to_snapshot", volume_id=volume_id, snapshot_id=snapshot_id)
        return self.fields(self.session.call("get_volume", volume_id=volume_id))


class Why(base.Common):
    """Say why a resource is in the state that it is in."""

    noun = "volume"

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("resource", metavar=self.noun, help=f"name or id of the {self.noun}")
        parser.add_argument("--json", action="store_true", help="everything that is known, as JSON")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        answer = self.session.call("why", resource_id=self.session.find(self.noun, parsed_args.resource))
        text = json.dumps(answer, indent=2) if parsed_args.json else str(answer["text"])
        self.app.stdout.write(text.rstrip("\n") + "\n")
        return 0

# SPDX-License-Identifier: Apache-2.0
"""Commands over snapshots."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from volmgr.cli import base, volume

Parser = argparse.ArgumentParser


class Create(base.WaitShow):
    """Take a snapshot of a volume."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        volume.add_volume(parser)
        parser.add_argument("name", nargs="?", help="name of the snapshot; it need not be unique")
        parser.add_argument("--id", type=base.an_id, metavar="UUID", help="id of the snapshot (default: a random one)")
        parser.add_argument("--description", metavar="TEXT", help="text for people")
        parser.add_argument("--force", action="store_true", help="also while an attachment is being made or ended")
        parser.add_argument(
            "--property", type=base.pair, metavar="KEY=VALUE", action="append", help="metadata; may be repeated"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given = parsed_args
        snapshot_id = base.new_id(given.id)
        self.submit(
            given,
            "create_snapshot",
            volume_id=self.session.find("volume", given.volume),
            snapshot_id=snapshot_id,
            name=given.name,
            description=given.description,
            metadata=dict(given.property) if given.property else None,
            force=given.force or None,
        )
        return self.fields(self.session.call("get_snapshot", snapshot_id=snapshot_id))


class List(base.Pages):
    """List snapshots."""

    noun = "snapshot"
    filters = ("name", "status")
    renamed: ClassVar[dict[str, str]] = {"name": "display_name", "size": "volume_size"}
    shown = ("id", "name", "volume_id", "status", "size", "operation_id")

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--volume", metavar="VOLUME", help="only snapshots of this volume")
        parser.add_argument("--name", metavar="NAME", help="only snapshots of this name")
        parser.add_argument("--status", metavar="STATUS", help="only snapshots in this status")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        of = self.session.find("volume", parsed_args.volume) if parsed_args.volume else None
        return self.page(parsed_args, volume_id=of)


class Show(base.Show):
    """Show a snapshot."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("snapshot", help="name or id of the snapshot")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        snapshot_id = self.session.find("snapshot", parsed_args.snapshot)
        return self.fields(self.session.call("get_snapshot", snapshot_id=snapshot_id))


class Delete(base.Deleter):
    """Delete snapshots."""

    noun = "snapshot"

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--unmanage", action="store_true", help="forget the snapshot and leave its storage alone")
        return parser

    def delete(self, parsed: argparse.Namespace, given: str) -> None:
        snapshot_id = self.session.find("snapshot", given)
        self.submit(parsed, "delete_snapshot", snapshot_id=snapshot_id, unmanage_only=parsed.unmanage or None)


class Manage(base.WaitShow):
    """Make storage that a backend has already a snapshot of a volume."""

    wait_default = True

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        volume.add_volume(parser)
        parser.add_argument("source", help="name of the storage in the backend, see: volmgr snapshot manageable")
        parser.add_argument("name", nargs="?", help="name of the snapshot; it need not be unique")
        parser.add_argument("--id", type=base.an_id, metavar="UUID", help="id of the snapshot (default: a random one)")
        parser.add_argument("--description", metavar="TEXT", help="text for people")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given = parsed_args
        snapshot_id = base.new_id(given.id)
        self.submit(
            given,
            "manage_existing_snapshot",
            snapshot_id=snapshot_id,
            volume_id=self.session.find("volume", given.volume),
            ref={"source-name": given.source},
            name=given.name,
            description=given.description,
        )
        return self.fields(self.session.call("get_snapshot", snapshot_id=snapshot_id))


class Manageable(volume.Manageable):
    """List the snapshots that a backend has and whether they could be managed."""

    noun = "snapshot"


class Why(volume.Why):
    """Say why a snapshot is in the state that it is in."""

    noun = "snapshot"

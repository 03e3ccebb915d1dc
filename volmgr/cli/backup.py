# SPDX-License-Identifier: Apache-2.0
"""Commands over backups."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from volmgr.cli import base, volume

Parser = argparse.ArgumentParser


class Create(base.WaitShow):
    """Back a volume up."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        volume.add_volume(parser)
        parser.add_argument("name", nargs="?", help="name of the backup; it need not be unique")
        parser.add_argument("--id", type=base.an_id, metavar="UUID", help="id of the backup (default: a random one)")
        parser.add_argument("--snapshot", metavar="SNAPSHOT", help="back up this snapshot of the volume")
        parser.add_argument("--incremental", action="store_true", help="only what has changed since the newest backup")
        parser.add_argument("--parent", metavar="BACKUP", help="only what has changed since this backup")
        parser.add_argument("--store", metavar="NAME", help="where it goes (default: backup_store of the daemon)")
        parser.add_argument("--description", metavar="TEXT", help="text for people")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        session, given = self.session, parsed_args
        backup_id = base.new_id(given.id)
        self.submit(
            given,
            "create_backup",
            backup_id=backup_id,
            volume_id=session.find("volume", given.volume),
            snapshot_id=session.find("snapshot", given.snapshot) if given.snapshot else None,
            incremental=given.incremental or None,
            parent_id=session.find("backup", given.parent) if given.parent else None,
            store=given.store,
            name=given.name,
            description=given.description,
        )
        return self.fields(session.call("get_backup", backup_id=backup_id))


class List(base.Pages):
    """List backups."""

    noun = "backup"
    filters = ("name", "status", "store")
    renamed: ClassVar[dict[str, str]] = {"name": "display_name"}
    shown = ("id", "name", "volume_id", "status", "size", "stored_bytes", "parent_id", "data_at")

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--volume", metavar="VOLUME", help="only backups of this volume, which may be gone: its id")
        parser.add_argument("--name", metavar="NAME", help="only backups of this name")
        parser.add_argument("--status", metavar="STATUS", help="only backups in this status")
        parser.add_argument("--store", metavar="NAME", help="only backups in this store")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        of = self.session.find("volume", parsed_args.volume) if parsed_args.volume else None
        return self.page(parsed_args, volume_id=of)


class Show(base.Show):
    """Show a backup."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("backup", help="name or id of the backup")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        backup_id = self.session.find("backup", parsed_args.backup)
        return self.fields(self.session.call("get_backup", backup_id=backup_id))


class Restore(base.WaitShow):
    """Restore a backup."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("backup", help="name or id of the backup")
        target = parser.add_mutually_exclusive_group()
        target.add_argument("--volume", metavar="VOLUME", help="write over this volume, all of it")
        target.add_argument("--name", metavar="NAME", help="name of the new volume")
        parser.add_argument("--id", type=base.an_id, metavar="UUID", help="id of the new volume")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        session, given = self.session, parsed_args
        volume_id = session.find("volume", given.volume) if given.volume else base.new_id(given.id)
        backup_id = session.find("backup", given.backup)
        self.submit(given, "restore_backup", backup_id=backup_id, volume_id=volume_id, name=given.name)
        return self.fields(session.call("get_volume", volume_id=volume_id))


class Delete(base.Deleter):
    """Delete backups."""

    noun = "backup"

    def delete(self, parsed: argparse.Namespace, given: str) -> None:
        self.submit(parsed, "delete_backup", backup_id=self.session.find("backup", given))


class Why(volume.Why):
    """Say why a backup is in the state that it is in."""

    noun = "backup"

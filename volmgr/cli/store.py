# SPDX-License-Identifier: Apache-2.0
"""Commands over what is in a backup store, without daemon, database or configuration.

Whoever can read the store can restore from it; keys for S3 come from the environment, AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY.
"""

from __future__ import annotations

import argparse
import os
import stat
from typing import TYPE_CHECKING, Any

from volmgr import exception
from volmgr.cli import base

if TYPE_CHECKING:
    from volmgr.backups.format import Manifest
    from volmgr.backups.store import BackupStore

Parser = argparse.ArgumentParser


def _add_store(parser: Parser) -> None:
    parser.add_argument("store", metavar="URL", help="/FOLDER, s3://BUCKET/PREFIX or s3+https://HOST/BUCKET/PREFIX")


def _open(url: str) -> BackupStore:
    from volmgr.backups.store import open_store

    return open_store(url)


def _manifest(store: BackupStore, backup_id: str) -> Manifest:
    from volmgr.backups import copying

    return copying.manifest_of(store, backup_id)


class List(base.Lister):
    """List the backups that are in a store."""

    shown = ("id", "volume_id", "volume_name", "data_at", "size_bytes", "stored_bytes", "parent_id", "trouble")

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_store(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        store = _open(parsed_args.store)
        rows = [self._row(store, backup_id) for backup_id in store.folders()]
        return self.table(parsed_args, sorted(rows, key=lambda row: (row["volume_id"] or "", row["data_at"] or "")))

    def _row(self, store: BackupStore, backup_id: str) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(self.shown) | {"id": backup_id}
        try:
            made = _manifest(store, backup_id)
        except exception.VolmgrError as error:
            return {**row, "trouble": error.message}
        return {
            **row,
            "volume_id": made.volume.get("id"),
            "volume_name": made.volume.get("name"),
            "data_at": made.data_at,
            "size_bytes": made.size_bytes,
            "stored_bytes": made.stored_bytes,
            "parent_id": made.parent_id,
        }


class Show(base.Show):
    """Show what a backup in a store is of."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_store(parser)
        parser.add_argument("backup", type=base.an_id, metavar="BACKUP-ID", help="id of the backup")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        made = _manifest(_open(parsed_args.store), parsed_args.backup)
        names = ("id", "volume", "size_bytes", "stored_bytes", "object_count", "parent_id", "holders", "data_at")
        return self.fields({name: _plain(getattr(made, name)) for name in names})


class Restore(base.Common):
    """Write a backup from a store to a block device or a file."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_store(parser)
        parser.add_argument("backup", type=base.an_id, metavar="BACKUP-ID", help="id of the backup")
        parser.add_argument("path", metavar="PATH", help="block device, or file to be made")
        parser.add_argument("--overwrite", action="store_true", help="write over what PATH has")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from volmgr.backups import copying
        from volmgr.drivers import progress

        store = _open(parsed_args.store)
        made = _manifest(store, parsed_args.backup)
        with _Target(parsed_args.path, made.size_bytes, parsed_args.overwrite) as (file, blank):
            reader = copying.Reader(store, made)
            with progress.reporting(self._tell):
                reader.restore(file, made.size_bytes, blank=blank)
        self.say(f"restored {made.size_bytes} bytes of volume {made.volume.get('id')} as of {made.data_at}")
        return 0

    def _tell(self, fraction: float) -> None:
        if self.app.options.verbose_level and self.app.stderr.isatty():
            self.app.stderr.write(f"\r{fraction:.1%} ")


class _Target:
    """Open what is restored to; as a context it is (file, whether it reads as zeros).

    :raises Conflict: there is something that might be wanted. :raises NoSpace: the device is too small.
    """

    def __init__(self, path: str, size_bytes: int, overwrite: bool) -> None:
        self.path, self.size_bytes, self.overwrite = path, size_bytes, overwrite

    def __enter__(self) -> tuple[Any, bool]:
        try:
            self.file, blank = self._open()
        except OSError as error:
            raise exception.Invalid(f"{self.path} cannot be written: {error.strerror}", field="path") from error
        return self.file, blank

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _open(self) -> tuple[Any, bool]:
        there = os.path.exists(self.path)
        is_device = there and stat.S_ISBLK(os.stat(self.path).st_mode)
        if there and not self.overwrite:
            raise exception.Conflict(
                f"{self.path} is there already", hint="With --overwrite its bytes are lost", resource="file"
            )
        # O_EXCL on a block device: refused while it is mounted or otherwise held.
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if is_device else os.O_CREAT)
        file = os.fdopen(os.open(self.path, flags, 0o600), "r+b", buffering=0)
        if not is_device:
            file.truncate(0)
            file.truncate(self.size_bytes)
        elif (size := file.seek(0, os.SEEK_END)) < self.size_bytes:
            file.close()
            raise exception.NoSpace(f"{self.path} has {size} bytes, the backup needs {self.size_bytes}")
        return file, not is_device


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else dict(value) if hasattr(value, "keys") else value

# SPDX-License-Identifier: Apache-2.0
"""Commands over images."""

from __future__ import annotations

import argparse
import uuid
from typing import Any

from volmgr.cli import base, volume

Parser = argparse.ArgumentParser


class Upload(base.WaitShow):
    """Make an image of a volume, which may be in use."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        volume.add_volume(parser)
        parser.add_argument(
            "--id", metavar="[STORE/]ID", help="id of the image, in the default store unless named (default: random)"
        )
        parser.add_argument(
            "--disk-format", choices=["raw", "qcow2"], default="raw", help="how it is stored (default: raw)"
        )
        parser.add_argument("--name", metavar="TEXT", help="name for people (default: the volume's)")
        parser.add_argument(
            "--property", type=base.pair, metavar="KEY=VALUE", action="append", help="a property; may be repeated"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given = parsed_args
        meta: dict[str, Any] = {"id": given.id or str(uuid.uuid4()), "disk_format": given.disk_format}
        if given.name:
            meta["name"] = given.name
        if given.property:
            meta["properties"] = dict(given.property)
        volume_id = self.session.find("volume", given.volume)
        self.submit(given, "copy_volume_to_image", volume_id=volume_id, image_meta=meta)
        return self.fields({"image": meta["id"], **self.session.call("get_volume", volume_id=volume_id)})


class List(base.Lister):
    """List images."""

    shown = ("id", "store", "name", "disk_format", "size", "virtual_size", "min_disk")

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--store", metavar="STORE", help="only images of this store")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        rows: list[dict[str, Any]] = self.session.call("list_images", store=parsed_args.store)
        return self.table(parsed_args, rows)


class Show(base.Show):
    """Show an image."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("image", metavar="[STORE/]ID", help="id of the image, in the default store unless named")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.fields(self.session.call("get_image", image_id=parsed_args.image))

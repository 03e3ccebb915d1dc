# SPDX-License-Identifier: Apache-2.0
"""Commands over offers of volumes to other projects."""

from __future__ import annotations

import argparse
from typing import Any

from volmgr.cli import base, volume

Parser = argparse.ArgumentParser


class Create(base.Show):
    """Offer a volume to another project; the key is shown once."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        volume.add_volume(parser)
        parser.add_argument("--name", metavar="NAME", help="name of the offer")
        parser.add_argument("--id", type=base.an_id, metavar="UUID", help="id of the offer (default: a random one)")
        parser.add_argument(
            "--expires-in", type=base.seconds, metavar="S", help="seconds that it stands (default: for ever)"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given = parsed_args
        return self.fields(self.session.call(
            "transfer_create", transfer_id=base.new_id(given.id),
            volume_id=self.session.find("volume", given.volume), name=given.name, expires_in=given.expires_in,
        ))


class Accept(base.WaitShow):
    """Take an offered volume over for the project of --project."""

    wait_default = True

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("transfer", type=base.an_id, help="id of the offer")
        parser.add_argument("--key-file", type=argparse.FileType("r"), default="-", metavar="FILE",
                            help="the file that has the key (default: standard input)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        key = parsed_args.key_file.read().strip()
        answer = self.submit(parsed_args, "transfer_accept", transfer_id=parsed_args.transfer, auth_key=key)
        return self.fields(self.session.call("get_operation", operation_id=answer["operation_id"]))


class List(base.Pages):
    """List offers."""

    noun = "transfer"
    shown = ("id", "name", "volume_id", "project_id", "created_at", "expires_at")

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--volume", metavar="VOLUME", help="only the offer of this volume")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        wanted = self.session.find("volume", parsed_args.volume) if parsed_args.volume else None
        return self.page(parsed_args, volume_id=wanted)


class Show(base.Show):
    """Show an offer; its key is not shown again."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("transfer", type=base.an_id, help="id of the offer")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.fields(self.session.call("get_transfer", transfer_id=parsed_args.transfer))


class Delete(base.Remover):
    """Withdraw offers."""

    noun = "transfer"

    def remove(self, parsed: argparse.Namespace, given: str) -> None:
        self.session.call("transfer_delete", transfer_id=given)

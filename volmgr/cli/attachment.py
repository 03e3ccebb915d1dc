# SPDX-License-Identifier: Apache-2.0
"""Commands over attachments: the steps that a compute service takes, one by one."""

from __future__ import annotations

import argparse
import json
from typing import Any, ClassVar

from volmgr.cli import base, volume

Parser = argparse.ArgumentParser
SECRETS = ("auth_password", "discovery_auth_password")
HIDDEN = "***"


def connector_file(path: str) -> dict[str, Any]:
    """Return the connector in a JSON file, ``-`` for standard input."""
    try:
        with argparse.FileType("r", encoding="utf-8")(path) as file:
            value = json.load(file)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{path} has no JSON object")
    return value


def hide(info: dict[str, Any], *, show: bool) -> dict[str, Any]:
    """Return connection_info with its secrets covered, unless they are asked for."""
    data = {key: HIDDEN if key in SECRETS and not show else value for key, value in info["data"].items()}
    return {**info, "data": data}


class Create(base.Show):
    """Reserve a volume, and connect it if a connector is given."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        volume.add_volume(parser)
        parser.add_argument("--instance", type=base.an_id, metavar="UUID", help="the instance that will use it")
        parser.add_argument("--mode", choices=("rw", "ro"), default="rw", help="what it may do (default: rw)")
        parser.add_argument("--id", type=base.an_id, metavar="UUID", help="id of the attachment (default: random)")
        parser.add_argument(
            "--connector",
            type=connector_file,
            metavar="FILE",
            help="JSON file with the host's connector, as os-brick makes it (-: standard input); gives the connection",
        )
        parser.add_argument("--show-secrets", action="store_true", help="print the CHAP password too")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given, session = parsed_args, self.session
        attachment_id, volume_id = base.new_id(given.id), session.find("volume", given.volume)
        session.call(
            "attachment_create",
            attachment_id=attachment_id,
            volume_id=volume_id,
            instance_uuid=given.instance,
            mode=given.mode,
        )
        connection = None
        if given.connector is not None:
            info = session.call(
                "attachment_update", volume_id=volume_id, connector=given.connector, attachment_id=attachment_id
            )
            connection = hide(info, show=given.show_secrets)
        row = session.call("get_attachment", attachment_id=attachment_id)
        return self.fields({**row, "connection_info": connection})


class List(base.Pages):
    """List attachments."""

    noun = "attachment"
    filters = ("instance", "status")
    renamed: ClassVar[dict[str, str]] = {"instance": "instance_uuid"}
    shown = ("id", "volume_id", "status", "mode", "instance_uuid", "host_name")

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--volume", metavar="VOLUME", help="only attachments of this volume")
        parser.add_argument("--instance", type=base.an_id, metavar="UUID", help="only this instance's attachments")
        parser.add_argument("--status", metavar="STATUS", help="only attachments in this status")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        of = self.session.find("volume", parsed_args.volume) if parsed_args.volume else None
        return self.page(parsed_args, volume_id=of)


def _add_attachment(parser: Parser) -> None:
    parser.add_argument("attachment", type=base.an_id, help="id of the attachment")


class Show(base.Show):
    """Show an attachment."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_attachment(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.fields(self.session.call("get_attachment", attachment_id=parsed_args.attachment))


class Complete(base.Show):
    """Say that the instance uses the volume now."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_attachment(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        self.session.call("attachment_complete", attachment_id=parsed_args.attachment)
        return self.fields(self.session.call("get_attachment", attachment_id=parsed_args.attachment))


class Delete(base.Deleter):
    """End attachments and take their access away."""

    noun = "attachment"

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        # The daemon answers when it is so; there is nothing to wait for.
        parser.set_defaults(wait=True)
        return parser

    def delete(self, parsed: argparse.Namespace, given: str) -> None:
        record = self.session.call("get_attachment", attachment_id=given)
        self.session.call("attachment_delete", volume_id=record["volume_id"], attachment_id=given)

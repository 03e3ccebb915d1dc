# SPDX-License-Identifier: Apache-2.0
"""Commands over QoS: limits of speed that volume types are associated with."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from volmgr.cli import base, type

Parser = argparse.ArgumentParser
CONSUMERS = ("front-end", "back-end", "both")


def add_qos(parser: Parser) -> None:
    """Add the positional argument of a command over one QoS."""
    parser.add_argument("qos", help="name or id of the QoS")


class Create(base.Show):
    """Make a QoS."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", help="name of the QoS")
        parser.add_argument("--id", type=base.an_id, metavar="UUID", help="id of the QoS (default: a random one)")
        parser.add_argument(
            "--consumer", choices=CONSUMERS, default="back-end", help="who keeps the limits (default: %(default)s)"
        )
        type.add_specs(parser, "a limit, such as total_iops_sec=500")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given = parsed_args
        made = self.session.call(
            "qos_create",
            qos_id=base.new_id(given.id),
            name=given.name,
            consumer=given.consumer,
            specs=dict(given.property) if given.property else None,
        )
        return self.fields(made)


class List(base.Pages):
    """List QoS."""

    noun = "qos"
    shown: ClassVar[tuple[str, ...]] = ("id", "name", "consumer", "specs")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.page(parsed_args)


class Show(base.Show):
    """Show a QoS."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        add_qos(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.fields(self.session.call("get_qos", qos_id=parsed_args.qos))


class Set(base.Show):
    """Change a QoS."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        add_qos(parser)
        parser.add_argument("--name", metavar="NAME", help="new name")
        parser.add_argument("--consumer", choices=CONSUMERS, help="who keeps the limits")
        type.add_specs(parser, "a limit")
        parser.add_argument("--unset", metavar="KEY", action="append", help="remove a limit; may be repeated")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given, session = parsed_args, self.session
        qos_id = session.call("get_qos", qos_id=given.qos)["id"]
        session.call(
            "qos_update", qos_id=qos_id, name=given.name, consumer=given.consumer, specs=type.specs_of(given)
        )
        return self.fields(session.call("get_qos", qos_id=qos_id))


class Delete(base.Remover):
    """Delete QoS."""

    noun = "qos"

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--force", action="store_true", help="also one that types are associated with")
        return parser

    def remove(self, parsed: argparse.Namespace, given: str) -> None:
        qos_id = self.session.call("get_qos", qos_id=given)["id"]
        self.session.call("qos_delete", qos_id=qos_id, force=parsed.force or None)


class Associate(base.Show):
    """Let volumes of a type have a QoS."""

    verb = "qos_associate"

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        add_qos(parser)
        type.add_type(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        qos_id = self.session.call("get_qos", qos_id=parsed_args.qos)["id"]
        type_id = self.session.call("get_type", type_id=parsed_args.type)["id"]
        return self.fields(self.session.call(self.verb, qos_id=qos_id, type_id=type_id))


class Disassociate(Associate):
    """End an association."""

    verb = "qos_disassociate"

# SPDX-License-Identifier: Apache-2.0
"""Commands over volume types."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from volmgr.cli import base

Parser = argparse.ArgumentParser


def add_type(parser: Parser) -> None:
    """Add the positional argument of a command over one type."""
    parser.add_argument("type", help="name or id of the volume type")


def add_specs(parser: Parser, what: str) -> None:
    """Add the option that sets specs."""
    parser.add_argument(
        "--property", type=base.pair, metavar="KEY=VALUE", action="append", help=f"set {what}; may be repeated"
    )


def specs_of(parsed: argparse.Namespace) -> dict[str, str | None] | None:
    """Return what ``--property`` and ``--unset`` say, None for nothing."""
    wanted: dict[str, str | None] = dict(parsed.property or ())
    return wanted | dict.fromkeys(parsed.unset or ()) or None


class Create(base.Show):
    """Make a volume type."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", help="name of the type")
        parser.add_argument("--id", type=base.an_id, metavar="UUID", help="id of the type (default: a random one)")
        parser.add_argument("--description", metavar="TEXT", help="text for people")
        parser.add_argument("--private", action="store_true", help="only administrators see and use it")
        add_specs(parser, "an extra spec")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given = parsed_args
        made = self.session.call(
            "type_create",
            type_id=base.new_id(given.id),
            name=given.name,
            description=given.description,
            is_public=False if given.private else None,
            extra_specs=dict(given.property) if given.property else None,
        )
        return self.fields(made)


class List(base.Pages):
    """List volume types."""

    noun = "type"
    shown: ClassVar[tuple[str, ...]] = ("id", "name", "is_public", "description", "qos_id")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.page(parsed_args)


class Show(base.Show):
    """Show a volume type."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        add_type(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.fields(self.session.call("get_type", type_id=parsed_args.type))


class Set(base.Show):
    """Change a volume type."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        add_type(parser)
        parser.add_argument("--name", metavar="NAME", help="new name")
        parser.add_argument("--description", metavar="TEXT", help="new description")
        parser.add_argument("--public", action="store_const", const=True, help="everybody sees and uses it")
        parser.add_argument("--private", dest="public", action="store_const", const=False, help="only administrators")
        add_specs(parser, "an extra spec")
        parser.add_argument("--unset", metavar="KEY", action="append", help="remove an extra spec; may be repeated")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given, session = parsed_args, self.session
        type_id = session.call("get_type", type_id=given.type)["id"]
        changes = {"name": given.name, "description": given.description, "is_public": given.public}
        if any(value is not None for value in changes.values()):
            session.call("type_update", type_id=type_id, **changes)
        if (specs := specs_of(given)) is not None:
            session.call("type_set_specs", type_id=type_id, extra_specs=specs)
        return self.fields(session.call("get_type", type_id=type_id))


class Delete(base.Remover):
    """Delete volume types."""

    noun = "type"

    def remove(self, parsed: argparse.Namespace, given: str) -> None:
        type_id = self.session.call("get_type", type_id=given)["id"]
        self.session.call("type_delete", type_id=type_id)

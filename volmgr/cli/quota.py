# SPDX-License-Identifier: Apache-2.0
"""Commands over quotas: what projects may have, and what they have."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from volmgr import exception
from volmgr.cli import base

Parser = argparse.ArgumentParser
NAMES = ("volumes", "snapshots", "gigabytes")


def a_limit(text: str) -> int | str:
    """A whole number from 0, -1 for no limit, or ``default``."""
    if text == "default":
        return text
    value = int(text)
    if value < -1:
        raise argparse.ArgumentTypeError("it must be from 0, -1 for no limit, or the word default")
    return value


def figures(row: dict[str, Any]) -> dict[str, Any]:
    """Return a project's quota with ``in use of limit`` in one cell each."""
    shown = {name: _cell(row[name]) for name in NAMES}
    return {"project_id": row["project_id"], "volume_type": row["volume_type_id"], **shown}


def _cell(item: dict[str, int]) -> str:
    return f"{item['in_use']} of {'any' if item['limit'] < 0 else item['limit']}"


class List(base.Pages):
    """List quotas."""

    noun = "quota"
    shown: ClassVar[tuple[str, ...]] = ("project_id", "volume_type", *NAMES)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        rows = self.session.listing("quota", limit=parsed_args.limit, marker=parsed_args.marker)
        return self.table(parsed_args, [figures(row) for row in rows])


class Show(base.Show):
    """Show a project's quota."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("project", help="id of the project")
        parser.add_argument("--type", metavar="TYPE", help="of this volume type only")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        found = self.session.call("get_quota", project_id=parsed_args.project, volume_type=parsed_args.type)
        return self.fields(found)


class Set(Show):
    """Set limits."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        for name in NAMES:
            parser.add_argument(
                f"--{name}", type=a_limit, metavar="N", help="the limit; -1 for none, or the word default"
            )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given = {name: getattr(parsed_args, name) for name in NAMES}
        limits = {name: None if item == "default" else item for name, item in given.items() if item is not None}
        if not limits:
            options = ", ".join(f"--{name}" for name in NAMES)
            raise exception.Invalid("There is no limit to set", hint=f"Give one of {options}", field="limits")
        made = self.session.call(
            "quota_set", project_id=parsed_args.project, volume_type=parsed_args.type, limits=limits
        )
        return self.fields(made)

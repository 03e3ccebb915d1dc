# SPDX-License-Identifier: Apache-2.0
"""Commands over operations: what the daemon is doing, and how to steer it."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from volmgr.cli import base, waiting

Parser = argparse.ArgumentParser


class List(base.Pages):
    """List operations, the newest first."""

    noun = "operation"
    filters = ("resource", "state", "verb")
    renamed: ClassVar[dict[str, str]] = {"resource": "resource_id"}
    shown = ("id", "verb", "resource_id", "state", "step", "progress", "created_at")

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--resource", type=base.an_id, metavar="UUID", help="only operations on this resource")
        parser.add_argument("--state", metavar="STATE", help="only operations in this state")
        parser.add_argument("--verb", metavar="VERB", help="only operations of this verb")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        return self.page(parsed_args)


class _One(base.Show):
    """A command over one operation."""

    verb: ClassVar[str] = ""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("operation", type=base.an_id, help="id of the operation")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        if self.verb:
            self.session.call(self.verb, operation_id=parsed_args.operation)
        return self.fields(self.session.call("get_operation", operation_id=parsed_args.operation))


class Show(_One):
    """Show an operation."""


class Cancel(_One):
    """Stop an operation and undo what it has begun."""

    verb = "operation_cancel"


class Retry(_One):
    """Let a parked operation go on."""

    verb = "operation_retry"


class Abandon(_One):
    """Give a parked operation up."""

    verb = "operation_abandon"


class Wait(_One):
    """Wait until an operation has ended."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        base.add_timeout(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        operation = waiting.wait(self.session, parsed_args.operation, parsed_args.timeout, self.app.stderr)
        return self.fields(operation)

# SPDX-License-Identifier: Apache-2.0
"""Sphinx directives that read the command lines from the programs themselves, so that no page can fall behind them.

``.. volmgr-commands::`` lists the commands of ``volmgr``; ``.. program-options:: module:function`` lists what a parser
takes, with its subcommands. Output depends on the programs alone, not on a version of argparse.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive


def _entry(term: str, text: str) -> nodes.definition_list_item:
    item = nodes.definition_list_item()
    item += nodes.term("", "", nodes.literal(term, term))
    item += nodes.definition("", nodes.paragraph(text, text))
    return item


def _list(entries: list[tuple[str, str]]) -> nodes.definition_list:
    return nodes.definition_list("", *(_entry(term, text) for term, text in entries))


class Commands(Directive):
    """The table of commands of ``volmgr``."""

    def run(self) -> list[nodes.Node]:
        from volmgr.cli.commands import COMMANDS

        return [_list([(f"volmgr {name}", f"{entry.help}.") for name, entry in COMMANDS.items()])]


def _term(action: argparse.Action) -> str:
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if not action.option_strings:
        return name
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {name}")


def _help(action: argparse.Action) -> str:
    values: dict[str, Any] = {**vars(action), "prog": ""}
    return (action.help or "") % values if "%(" in (action.help or "") else action.help or ""


def _options(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    return [
        (_term(action), _help(action))
        for action in parser._actions
        if not isinstance(action, argparse._SubParsersAction) and action.help is not argparse.SUPPRESS
    ]


def _leaves(parser: argparse.ArgumentParser, words: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    branches = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not branches:
        yield words, parser
    for name, child in branches[0].choices.items() if branches else ():
        yield from _leaves(child, f"{words} {name}")


class ProgramOptions(Directive):
    """What a parser takes: its own options, then each subcommand with its description and options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].partition(":")
        parser: argparse.ArgumentParser = getattr(importlib.import_module(module), name)()
        found: list[nodes.Node] = [_list(_options(parser))]
        for words, leaf in _leaves(parser, parser.prog):
            if leaf is parser:
                continue
            found.append(nodes.paragraph("", "", nodes.strong(words, words)))
            if leaf.description:
                text = " ".join(leaf.description.split())
                found.append(nodes.paragraph(text, text))
            if options := [item for item in _options(leaf) if not item[0].startswith("-h")]:
                found.append(_list(options))
        return found


def setup(app: Any) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("volmgr-commands", Commands)
    app.add_directive("program-options", ProgramOptions)
    return {"parallel_read_safe": True}

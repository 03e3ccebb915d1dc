# SPDX-License-Identifier: Apache-2.0
"""The program ``volmgr``: global options, errors and exit codes.

Exit codes: 0 done; 1 refused, failed, or still unfinished when the wait ended; 2 the command line is wrong. Everything
heavy (messaging, os-brick) is imported by the command that needs it. This module knows no verb.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from cliff import app, command
from cliff import help as cliff_help

from volmgr import __version__, concurrency, exception
from volmgr.cli.commands import COMMANDS, Manager

if TYPE_CHECKING:
    from volmgr.cli.session import Session

DONE, FAILED, USAGE = 0, 1, 2


class VolmgrApp(app.App):
    """cliff's application with volmgr's global options."""

    NAME = "volmgr"

    def __init__(self, **kwargs: Any) -> None:
        text = "Volumes for compute services, from the command line."
        super().__init__(text, __version__, Manager(), deferred_help=True, **kwargs)
        self._session: Session | None = None

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, Any] | None = None
    ) -> argparse.ArgumentParser:
        merged = {"conflict_handler": "resolve", "prog": self.NAME, **(argparse_kwargs or {})}
        parser = super().build_option_parser(description, version, merged)
        parser.add_argument("--version", action="version", version=f"{self.NAME} {version}")
        group = parser.add_argument_group("connection")
        group.add_argument(
            "--config-file",
            action="append",
            metavar="FILE",
            help="read the transport from this file; may be repeated (default: /etc/volmgr/volmgr.conf if it exists)",
        )
        group.add_argument(
            "--transport-url",
            metavar="URL",
            default=os.environ.get("VOLMGR_TRANSPORT_URL"),
            help="unix:///directory or rabbit://… (default: VOLMGR_TRANSPORT_URL, the configuration, then the daemon "
            "of this host)",
        )
        group.add_argument(
            "--state-path",
            metavar="FOLDER",
            default=os.environ.get("VOLMGR_STATE_PATH"),
            help="the daemon's folder (default: VOLMGR_STATE_PATH, then the configuration)",
        )
        group.add_argument(
            "--project",
            metavar="ID",
            default=os.environ.get("OS_PROJECT_ID"),
            help="act for one project only (default: OS_PROJECT_ID, else all projects)",
        )
        return parser

    def configure_logging(self) -> None:
        """Show nothing of the libraries on stderr below warnings, so that errors stand alone; -v shows more."""
        super().configure_logging()
        levels = {0: logging.ERROR, 1: logging.ERROR, 2: logging.INFO}
        logging.getLogger().handlers[-1].setLevel(levels.get(self.options.verbose_level, logging.DEBUG))

    @property
    def session(self) -> Session:
        """The connection to the daemon, made at its first use."""
        if self._session is None:
            from volmgr.cli.session import Session

            self._session = Session.from_options(self.options)
        return self._session

    def run(self, argv: list[str]) -> int:
        """Run one command; without one, help is shown."""
        return super().run(argv if argv and argv != ["help"] else ["--help"])

    def print_help_if_requested(self) -> None:
        """Print the options and the table of commands; cliff's own help imports every command."""
        if not self.options.deferred_help:
            return
        width = max(map(len, COMMANDS))
        lines = [self.parser.format_help(), "commands:"]
        lines += [f"  {name:<{width}}  {entry.help}" for name, entry in COMMANDS.items()]
        lines += [f"  {'complete':<{width}}  print the completion for bash", "", "volmgr help COMMAND says more."]
        self.stdout.write("\n".join(lines) + "\n")
        raise cliff_help.HelpExit(DONE)

    def run_subcommand(self, argv: list[str]) -> int:
        """Run a command and turn its errors into a message, a hint and an exit code."""
        wants_help = argv[0] == "help"
        try:
            factory, name, arguments = self.command_manager.find_command(argv[wants_help:])
        except ValueError:
            return self._unknown(argv[wants_help:])
        made: command.Command = factory(self, self.options, cmd_name=name)
        parser = made.get_parser(f"{self.NAME} {name}")
        if wants_help:
            self.stdout.write(parser.format_help())
            return DONE
        parsed = parser.parse_args(arguments)
        try:
            return made.run(parsed)
        except BrokenPipeError:
            raise
        except exception.VolmgrError as error:
            self.complain(error)
        except Exception as error:
            if self.options.debug:
                raise
            self.complain(_foreign(error))
        return FAILED

    def complain(self, error: exception.VolmgrError) -> None:
        """Print an error and what to do about it on stderr."""
        if self.options.debug:
            logging.getLogger(self.NAME).error("", exc_info=error)
        self.stderr.write(f"volmgr: {error.message}\n")
        if error.hint:
            self.stderr.write(f"hint: {error.hint}\n")

    def _unknown(self, argv: list[str]) -> int:
        words = " ".join(word for word in argv[:2] if not word.startswith("-"))
        near = [name for name in COMMANDS if name.split()[0] == words.split(" ")[0]] or self.get_fuzzy_matches(words)
        self.stderr.write(f"volmgr: there is no command {words!r}\n")
        if near:
            self.stderr.write(f"hint: {', '.join(near)}; or: volmgr --help\n")
        return USAGE


def _foreign(error: Exception) -> exception.VolmgrError:
    """Return an error of a library as one of ours."""
    name = type(error).__name__
    if name == "MessagingTimeout":
        return exception.Timeout(
            "volmgr-volume did not answer in time", hint="Look at: volmgr doctor, volmgr operation list"
        )
    return exception.VolmgrError(f"{name}: {error}", hint="Run it again with --debug for the traceback")


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    concurrency.setup("threading")
    return VolmgrApp().run(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""What every command shares: the session, ``--wait``, key=value options, and how values are shown.

cliff looks for hooks and distribution names among all installed packages at each command; these classes do not. This
module knows no noun.
"""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from cliff import columns, command, lister, show

from volmgr import exception, names
from volmgr.cli import waiting
from volmgr.cli.commands import COMMANDS

if TYPE_CHECKING:
    from volmgr.cli.session import Session


class Common(command.Command):
    """The session, and a command line that is read quickly."""

    app: Any

    def _load_hooks(self) -> None:
        self._hooks = []

    def get_epilog(self) -> str:
        return self._epilog or ""

    def get_description(self) -> str:
        entry = COMMANDS.get(self.cmd_name or "")
        own = type(self).__doc__ or ""
        return own if entry is None else f"{entry.help[0].upper()}{entry.help[1:]}."

    @property
    def session(self) -> Session:
        """The connection to the daemon."""
        session: Session = self.app.session
        return session

    def say(self, text: str) -> None:
        """Print one line for people, on stderr; -q leaves it out."""
        if self.app.options.verbose_level:
            self.app.stderr.write(f"{text}\n")


class Waiter(Common):
    """A command whose verb is an operation: ``--wait`` stays until it has ended."""

    wait_default: ClassVar[bool] = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--wait", action="store_true", default=self.wait_default, help="wait until it is done")
        add_timeout(parser)
        return parser

    def submit(self, parsed: argparse.Namespace, verb: str, **arguments: Any) -> dict[str, Any]:
        """Send a changing verb and, with ``--wait``, wait for its operation; returns the answer.

        :raises VolmgrError: it was refused, or it failed while it was waited for.
        """
        answer: dict[str, Any] = self.session.call(verb, **arguments)
        operation_id = answer.get("operation_id")
        if operation_id and parsed.wait:
            return waiting.wait(self.session, operation_id, parsed.timeout, self.app.stderr)
        if answer.get("state") == "failed" and answer.get("error"):
            raise exception.from_primitive(answer["error"])
        if operation_id:
            self.say(f"operation {operation_id} is {answer['state']}")
        return answer


class Remover(Common):
    """A command that takes several resources away; it goes on after an error and tells all of them."""

    noun: ClassVar[str]

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(self.noun, nargs="+", help=f"name or id of a {self.noun}; several may be given")
        return parser

    def remove(self, parsed: argparse.Namespace, given: str) -> None:
        """Take one resource away."""
        raise NotImplementedError

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        failed = 0
        for given in getattr(parsed_args, self.noun):
            try:
                self.remove(parsed_args, given)
            except exception.VolmgrError as error:
                self.app.complain(error)
                failed += 1
        return 1 if failed else 0


class Deleter(Remover, Waiter):
    """The same by an operation for each."""

    def delete(self, parsed: argparse.Namespace, given: str) -> None:
        """Take one resource away."""
        raise NotImplementedError

    def remove(self, parsed: argparse.Namespace, given: str) -> None:
        self.delete(parsed, given)


class Lister(Common, lister.Lister):
    """A command that prints a table of resources."""

    shown: ClassVar[tuple[str, ...]]
    #: what the daemon calls a column that is shown under another name.
    renamed: ClassVar[dict[str, str]] = {}

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--long", action="store_true", help="every column")
        return parser

    def table(self, parsed: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> tuple[Sequence[str], list[Any]]:
        """Return rows as cliff wants them: the columns of :attr:`shown`, with ``--long`` or ``-c`` all of them."""
        wanted: Sequence[str] = self.shown
        if rows and (parsed.long or parsed.columns):
            wanted = [*self.shown, *(key for key in rows[0] if key not in self.shown)]
        return wanted, [tuple(cell(row.get(key)) for key in wanted) for row in rows]


class Pages(Lister):
    """A list that the daemon filters, sorts and cuts into pages.

    :cvar noun: its name in the verb. :cvar filters: options that are filters, all of one value.
    """

    noun: ClassVar[str]
    filters: ClassVar[tuple[str, ...]] = ()

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--limit", type=positive, metavar="N", help="at most so many rows")
        parser.add_argument("--marker", metavar="ID", help="start behind this id, the last one of the page before")
        parser.add_argument(
            "--sort",
            metavar="KEY[:asc|:desc]",
            action="append",
            type=sort_key,
            help="sort by this key in the daemon; may be repeated",
        )
        return parser

    def page(self, parsed: argparse.Namespace, **filters: Any) -> tuple[Sequence[str], list[Any]]:
        """Ask for a page and return it as cliff wants it.

        :param filters: by the daemon's names, beside those of :attr:`filters`.
        """
        chosen = {self.renamed.get(key, key): getattr(parsed, key) for key in self.filters} | filters
        keys = parsed.sort or []
        rows = self.session.listing(
            self.noun,
            filters={key: value for key, value in chosen.items() if value is not None},
            limit=parsed.limit,
            marker=parsed.marker,
            sort_keys=[self.renamed.get(key, key) for key, _direction in keys] or None,
            sort_dirs=[direction for _key, direction in keys] or None,
        )
        return self.table(parsed, rows)


class Show(Common, show.ShowOne):
    """A command that prints one resource."""

    @staticmethod
    def fields(row: dict[str, Any]) -> tuple[Sequence[str], Iterable[Any]]:
        """Return one resource as cliff wants it."""
        return tuple(row), tuple(cell(value) for value in row.values())


class WaitShow(Waiter, Show):
    """A command that changes a resource and prints it as it is then."""


class Nested(columns.FormattableColumn[Any]):
    """A list or a mapping: itself for machines, ``key=value`` lines for people."""

    def human_readable(self) -> str:
        value = self.machine_readable()
        if isinstance(value, dict):
            return "\n".join(f"{key}={_flat(item)}" for key, item in value.items())
        return "\n".join(_flat(item) for item in value)


class Nothing(columns.FormattableColumn[None]):
    """No value: null for machines, empty for people."""

    def human_readable(self) -> str:
        return ""


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={_flat(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list):
        return ",".join(_flat(item) for item in value)
    return str(value)


def cell(value: Any) -> Any:
    """Return a value in the form that cliff's formatters show well."""
    if value is None:
        return Nothing(None)
    if isinstance(value, dict | list):
        return Nested(value)
    return value


# --- values of options ---------------------------------------------------------------------------------------------


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """Add ``--timeout``, in seconds."""
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="S",
        default=waiting.DEFAULT_TIMEOUT,
        help="seconds to wait at most (default: %(default)g)",
    )


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return value


def seconds(text: str) -> float:
    """A number of seconds of at most a day."""
    value = float(text)
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError("it must be from 0 to 86400 seconds")
    return value


def pair(text: str) -> tuple[str, str]:
    """``key=value``."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value")
    return key, value


def sort_key(text: str) -> tuple[str, str]:
    """``key``, ``key:asc`` or ``key:desc``."""
    key, _colon, direction = text.partition(":")
    if not key or direction not in ("", "asc", "desc"):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key, key:asc or key:desc")
    return key, direction or "asc"


def an_id(text: str) -> str:
    """A UUID in lower case with hyphens."""
    if not names.is_uuid(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a UUID in lower case with hyphens")
    return text


def new_id(given: str | None) -> str:
    """Return the id that the user chose, else a new random one."""
    return given or str(uuid.uuid4())

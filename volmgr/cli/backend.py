# SPDX-License-Identifier: Apache-2.0
"""Why a volume would go to one backend and not to another."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, ClassVar

from volmgr.cli import base


def rows(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return one row for each check of each backend, and one for its goodness."""
    for backend in answer["backends"]:
        of = {"backend": backend["host"], "rank": backend["rank"]}
        for item in backend["checks"]:
            numbers = ", ".join(f"{key} {_short(value)}" for key, value in item["numbers"].items())
            verdict = "passed" if item["passed"] else "refused"
            yield {**of, "check": item["check"], "verdict": verdict, "why": item["why"] or numbers}
        yield {**of, "check": "goodness", "verdict": _short(backend["goodness"]), "why": backend["goodness_why"]}


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


class Explain(base.Lister):
    """Say where a volume would be placed, and what every check says of every backend."""

    shown: ClassVar[tuple[str, ...]] = ("backend", "rank", "check", "verdict", "why")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--size", type=base.positive, metavar="GIB", required=True, help="the volume's size")
        parser.add_argument("--type", metavar="TYPE", help="name or id of its type")
        parser.add_argument("--zone", metavar="ZONE", help="availability zone")
        parser.add_argument("--host", metavar="HOST", help="host@backend or host@backend#pool")
        parser.add_argument("--same-host", metavar="VOLUME", action="append", help="on the backend of this volume")
        parser.add_argument("--different-host", metavar="VOLUME", action="append", help="not on this one's")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given = parsed_args
        hints = {
            key: [self.session.find("volume", item) for item in named]
            for key, named in (("same_host", given.same_host), ("different_host", given.different_host))
            if named
        }
        wanted = {
            "size": given.size,
            "volume_type": given.type,
            "availability_zone": given.zone,
            "host": given.host,
            "scheduler_hints": hints or None,
        }
        request = {key: value for key, value in wanted.items() if value is not None}
        answer = self.session.call("explain_placement", request=request)
        self.say(f"it would go to {answer['host']}" if answer["host"] else "it would go nowhere")
        return self.table(given, list(rows(answer)))

# SPDX-License-Identifier: Apache-2.0
"""The commands of volmgr-manage that a running daemon answers: audit, and reset-status.

This module decides nothing. Messaging is imported by the command that needs it, after the threads have been chosen.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volmgr.rpc.client import VolumeAPI

#: exit codes: all is well; something could not be done or looked at; (2: bad usage); findings are left.
DONE, FAILED, FOUND = 0, 1, 3
TIMEOUT = 600.0


def add_parsers(nouns: Any) -> None:
    """Add these commands to the grammar of volmgr-manage."""
    audit = nouns.add_parser(
        "audit",
        help="compare SQL, storage and targets",
        description="Compare SQL, storage and targets of every worker that is up. Nothing is changed without --fix. "
        "Exit status: 0 nothing is left, 1 something could not be looked at, 3 findings are left.",
    )
    audit.add_argument("--fix", action="store_true", help="mend what is provably ours and safe to mend")
    audit.add_argument(
        "--finding", action="append", default=[], metavar="ID",
        help="with --fix: mend exactly this finding, also where nothing proves that it is safe; may be repeated",
    )
    audit.add_argument("--host", metavar="HOST@BACKEND", help="only this worker")
    audit.add_argument("--json", action="store_true", help="everything, as JSON")
    audit.set_defaults(run=run_audit)
    for noun in ("volume", "snapshot", "group", "cgsnapshot", "backup"):
        verbs = nouns.add_parser(noun, help=f"a {noun}'s status").add_subparsers(
            dest="verb", required=True, metavar="reset-status"
        )
        reset = verbs.add_parser(
            "reset-status",
            help="give it another status by hand",
            description="Say what another status would break; with --yes set it, record that, and audit.",
        )
        reset.add_argument("id", help=f"id of the {noun}")
        reset.add_argument("status")
        reset.add_argument("--yes", action="store_true", help="do it")
        reset.set_defaults(run=run_reset)


def _client(conf: Any) -> VolumeAPI:
    from volmgr.rpc.client import VolumeAPI

    return VolumeAPI(conf=conf)


def run_audit(conf: Any, arguments: argparse.Namespace) -> int:
    """Audit; returns the exit status."""
    api = _client(conf)
    try:
        reports: list[dict[str, Any]] = [
            _audit(api, host, arguments) if up else {"host": host, "findings": [], "unseen": {"worker": "it is not up"}}
            for host, up in _workers(api, arguments.host)
        ]
    finally:
        api.close()
    if arguments.json:
        print(json.dumps(reports, indent=2))
    else:
        for report in reports:
            _print(report)
    if any(report["unseen"] for report in reports):
        return FAILED
    return FOUND if any(not item["done"] for report in reports for item in report["findings"]) else DONE


def _workers(api: VolumeAPI, host: str | None) -> list[tuple[str, bool]]:
    from volmgr import context, exception

    found = [(item["host"], bool(item["up"])) for item in api.list_services(context.admin())]
    if host is None:
        return found
    if host not in dict(found):
        raise exception.NotFound(
            f"No worker {host!r} was ever here", hint="Run: volmgr service list", resource="service", id=host
        )
    return [item for item in found if item[0] == host]


def _audit(api: VolumeAPI, host: str, arguments: argparse.Namespace) -> dict[str, Any]:
    from volmgr import context, exception

    try:
        return api.audit(
            context.admin(), arguments.fix, arguments.finding or None, host=host, rpc_timeout=TIMEOUT
        )
    except exception.BackendDown as error:
        return {"host": host, "findings": [], "unseen": {"worker": str(error)}}


def _print(report: dict[str, Any]) -> None:
    for item in report["findings"]:
        print(f"{item['kind']}: {item['resource']} {item['resource_id']} on {report['host']}, for {item['age']:.0f} s")
        print(f"    {item['reason']}")
        print(f"    {_proposal(item)}")
    for side, why in report["unseen"].items():
        print(f"{report['host']}: the {side} could not be looked at: {why}", file=sys.stderr)
    print(f"{report['host']}: {len(report['findings'])} findings")


def _proposal(item: dict[str, Any]) -> str:
    if item["done"]:
        return f"{item['repair']}: {item['done']}"
    if item["error"]:
        return f"{item['repair']}: not done: {item['error']}"
    if item["repair"] == "operator":
        return "an operator has to decide"
    return f"{item['repair']} by: --fix" + ("" if item["safe"] else f" --finding {item['id']}")


def run_reset(conf: Any, arguments: argparse.Namespace) -> int:
    """Reset a status, or say what that would break; returns the exit status."""
    from volmgr import context

    api = _client(conf)
    try:
        answer = api.reset_status(
            context.admin(), arguments.noun, arguments.id, arguments.status, dry=not arguments.yes
        )
    finally:
        api.close()
    tense = "breaks" if arguments.yes else "would break"
    print(f"{arguments.noun} {arguments.id}: from {answer['from']} to {answer['to']}")
    for line in answer["breaks"]:
        print(f"    {tense}: {line}")
    if not arguments.yes:
        print("nothing was changed; to do it: --yes")
        return FAILED
    for item in answer["findings"]:
        print(f"    now found: {item['kind']}: {item['reason']}")
    return FOUND if answer["findings"] else DONE

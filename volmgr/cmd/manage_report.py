# SPDX-License-Identifier: Apache-2.0
"""volmgr-manage report: a support bundle of this host, without a secret in it; nothing needs to run."""

from __future__ import annotations

import argparse
import datetime
import socket
import sys
from pathlib import Path
from typing import Any

LINES = 5000


def add_parser(nouns: Any) -> None:
    """Add this command to the grammar of volmgr-manage."""
    report = nouns.add_parser(
        "report",
        help="a support bundle, without secrets",
        description="Write a tar with versions, configuration, the state of database and operations, findings, what "
        "the daemons are at, and the end of the log. Secrets are left out; look through it before it leaves the house "
        "all the same.",
    )
    report.add_argument("--output", metavar="FILE", type=Path, help="where to (default: a new file in this folder)")
    report.add_argument("--lines", metavar="N", type=int, default=LINES, help="log lines (default: %(default)d)")
    report.add_argument("--no-daemon", action="store_true", help="do not ask the daemons what they are at")
    report.set_defaults(run=run)


def run(conf: Any, arguments: argparse.Namespace) -> int:
    """Write the bundle and print its name; returns the exit status."""
    from volmgr.support import bundle

    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    path = arguments.output or Path(f"volmgr-report-{socket.gethostname().partition('.')[0]}-{stamp}.tar.gz")
    made = bundle.make(conf, lines=max(0, arguments.lines), ask_daemon=not arguments.no_daemon)
    made.write(path)
    for name, reason in made.missing.items():
        print(f"without {name}: {reason}", file=sys.stderr)
    print(path)
    return 0

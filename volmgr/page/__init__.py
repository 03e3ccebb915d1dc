# SPDX-License-Identifier: Apache-2.0
"""The status page: one HTML file that shows one JSON document, both only to be read; no step makes either of them.

The page builds its text from text nodes, so a name is a name whatever it spells, and its policy forbids every script
but its own. Only a browser that asked for this host by an address or by its own name is answered: a foreign site whose
name was pointed at the loopback has another.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import ipaddress
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volmgr import __version__
from volmgr.db import overview, records

if TYPE_CHECKING:
    from volmgr.service import Worker

FILE = Path(__file__).with_name("status.html")
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@functools.cache
def html() -> bytes:
    """Return the page."""
    return FILE.read_bytes()


@functools.cache
def policy() -> str:
    """Return the Content-Security-Policy under which the page is shown: its own script and style, and this server."""
    hashes = {
        tag: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for tag, text in _INLINE.findall(html().decode())
    }
    return (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def is_own(host: str | None) -> bool:
    """Return whether the header ``Host`` of a request names this host: an address, localhost, or its own name."""
    name = (host or "").strip().lower()
    name = name.partition("]")[0].lstrip("[") if name.startswith("[") else name.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in ("localhost", socket.gethostname().lower(), socket.getfqdn().lower())
    return True


def document(worker: Worker) -> dict[str, Any]:
    """Return what the page shows: all workers of the deployment, as SQL knows them."""
    now = worker.clock.now()
    made = {"made_at": records.moment(now), "version": __version__, "host": worker.host}
    try:
        with worker.database.reader() as conn:
            return {**made, "trouble": None, **overview.everything(conn, worker.conf.service_down_time, now)}
    except Exception as error:
        return {**made, "trouble": f"the database does not answer: {error}"}

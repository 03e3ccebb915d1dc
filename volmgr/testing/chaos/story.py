# SPDX-License-Identifier: Apache-2.0
"""What a story of the kill runs is made of: requests, faults, and names for ids that are new for each telling.

Names that begin with ``@`` stand for ids. The stories themselves are in :mod:`volmgr.testing.chaos.scenarios`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_ROLE = re.compile(r"@[vscghkb]\b")
INITIATOR = "iqn.1993-08.org.debian:01:chaos"
CONNECTOR = {"initiator": INITIATOR, "ip": "127.0.0.1", "host": "compute"}
#: a text that a volume's first block gets, so that copies can be told.
MARK = "mark"
#: a file that is put into the storage, or gets another name there, behind the daemon's back.
PUT, RENAME = "put", "rename"
#: an image that is put into the store.
IMAGE = "image"
#: an audit, and then the mending of what it found of this story's.
MEND = "mend"


@dataclass(frozen=True)
class Call:
    """A request, or one of :data:`MARK`, :data:`PUT`, :data:`RENAME`, :data:`IMAGE` and :data:`MEND`."""

    method: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """One story.

    :param verb: whose kill points are struck. :param before: what is done first, each request to its end.
    :param beside: a request that is sent and not waited for, so that the next one must wait for it.
    :param call: the request that is killed; the last of ``before`` is repeated where there is none.
    :param faults: of the simulator, while ``call`` runs; ``match`` may be an id.
    :param inside: (driver verb, when) at which the simulator dies in the middle of a step.
    :param since: the point from which on it is struck; what comes before is another story's.
    :param options: of the backend. :param lean: strike only at its steps; what every operation passes is the same code.
    :param pair: there are two workers; either is struck. :param extended: left out of a brief run, for its length.
    """

    name: str
    verb: str
    before: tuple[Call, ...]
    call: Call
    beside: Call | None = None
    faults: tuple[dict[str, Any], ...] = ()
    inside: tuple[tuple[str, str], ...] = ()
    since: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    lean: bool = False
    pair: bool = False
    extended: bool = False


def create(role: str, **properties: Any) -> Call:
    return Call("create_volume", {"volume_id": role, **properties})


def fails(verb: str, role: str, when: str = "after", error: str = "volmgr.inconsistent") -> dict[str, Any]:
    return {"verb": verb, "action": "fail", "when": when, "match": role, "error": error, "message": "ordered"}


VOLUME = create("@v", size=1)
MARKED = (VOLUME, Call(MARK, {"volume": "@v", "text": "first"}))
SNAPSHOT = Call("create_snapshot", {"volume_id": "@v", "snapshot_id": "@s"})
WITH_SNAPSHOT = (*MARKED, SNAPSHOT, Call(MARK, {"volume": "@v", "text": "second"}))
CONNECTED = Call("initialize_connection", {"volume_id": "@v", "connector": CONNECTOR})


def told(value: Any, ids: dict[str, str]) -> Any:
    """Return a value with its roles exchanged for ids."""
    if isinstance(value, str):
        return _ROLE.sub(lambda match: ids[match[0]], value)
    if isinstance(value, dict):
        return {key: told(item, ids) for key, item in value.items()}
    if isinstance(value, list):
        return [told(item, ids) for item in value]
    return value

# SPDX-License-Identifier: Apache-2.0
"""The two sides that an audit compares: what SQL says, and what is there. Plain data, made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from volmgr.db.audit_rows import (
    AttachmentRow,
    ExportRow,
    GrantRow,
    ObjectRow,
    OperationRow,
    PastRow,
    QuotaRow,
    ResourceRow,
)
from volmgr.types import ObservedExport, ObservedObject


class Process(NamedTuple):
    """A process that holds the worker's lock and is none of its children."""

    pid: int
    command: str


@dataclass(frozen=True)
class Recorded:
    """What SQL says of one worker's things.

    :param service: the worker, ``host@backend``. :param prefix: what its targets' names begin with.
    :param elsewhere: ids, of what was observed, that are another worker's.
    :param past: by id, of what was observed and no row knows, the last operation about it.
    :param helpers: by the id of an object that only stands between two others: the id of what is made through it.
    :param paths: by resource id, what the target should serve.
    :param active: the replication target that the backend works on after a failover, None before one.
    """

    service: str
    prefix: str
    resources: Mapping[str, ResourceRow] = field(default_factory=dict)
    objects: Mapping[str, ObjectRow] = field(default_factory=dict)
    exports: Mapping[str, ExportRow] = field(default_factory=dict)
    grants: Mapping[str, Sequence[GrantRow]] = field(default_factory=dict)
    attachments: Sequence[AttachmentRow] = ()
    operations: Sequence[OperationRow] = ()
    quotas: Sequence[QuotaRow] = ()
    elsewhere: frozenset[str] = frozenset()
    past: Mapping[str, PastRow] = field(default_factory=dict)
    helpers: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    active: str | None = None


@dataclass(frozen=True)
class World:
    """What is there; None for a side that could not be looked at.

    :param ungranted: whether the target has exports that nobody is let in to.
    """

    objects: Sequence[ObservedObject] | None = None
    exports: Sequence[ObservedExport] | None = None
    processes: Sequence[Process] = ()
    ungranted: bool = True

# SPDX-License-Identifier: Apache-2.0
"""The rows that an audit reads, narrow and plain: :mod:`volmgr.db.audit` makes them, the comparison knows no SQL."""

from __future__ import annotations

from typing import NamedTuple

from volmgr.types import GiB


class ResourceRow(NamedTuple):
    """A volume or snapshot. ``settled`` is the status that follows from its attachments; ``size`` is in GiB."""

    kind: str
    id: str
    status: str
    settled: str
    object_id: str | None
    operation_id: str | None
    use_count: int
    size: int
    project_id: str | None

    @property
    def name_id(self) -> str:
        return self.object_id or self.id

    @property
    def size_bytes(self) -> int:
        return self.size * GiB


class ObjectRow(NamedTuple):
    """A piece of storage as SQL has it."""

    id: str
    kind: str
    resource_id: str
    role: str
    serial: str
    size_bytes: int


class ExportRow(NamedTuple):
    """A resource that should be exported."""

    resource_id: str
    kind: str
    target_name: str


class GrantRow(NamedTuple):
    """Who may connect; ``orphan`` says that it belongs to an attachment that is gone."""

    id: str
    resource_id: str
    peers: frozenset[str]
    attachment_id: str
    orphan: bool


class AttachmentRow(NamedTuple):
    """An attachment whose volume is gone."""

    id: str
    volume_id: str


class OperationRow(NamedTuple):
    """An operation that has not ended, or has ended lately. ``ids`` are all ids that it names anywhere."""

    id: str
    verb: str
    resource_id: str
    state: str
    parked_for: str | None
    why: str
    shared: frozenset[str]
    ids: frozenset[str]


class QuotaRow(NamedTuple):
    """A usage that is not what the rows say; both as (volumes, snapshots, gigabytes)."""

    project_id: str
    volume_type_id: str
    counted: tuple[int, int, int]
    used: tuple[int, int, int]


class PastRow(NamedTuple):
    """The last operation that the journal has about an id."""

    verb: str
    state: str

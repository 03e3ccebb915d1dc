# SPDX-License-Identifier: Apache-2.0
"""What an audit says of groups and cgsnapshots, which have no storage of their own."""

from __future__ import annotations

import pytest

from volmgr.db.audit_rows import WholeRow
from volmgr.reconcile.diff_rows import rows
from volmgr.reconcile.findings import Kind
from volmgr.reconcile.world import Recorded


@pytest.mark.parametrize(
    ("status", "operation_id", "use_count", "kind"),
    [
        ("available", None, 0, None),
        ("error", None, 0, None),
        ("deleting", None, 0, Kind.STATUS_STUCK),
        ("available", "gone", 0, Kind.HOLD_STALE),
        ("available", None, 1, Kind.HOLD_STALE),
    ],
)
@pytest.mark.parametrize("noun", ["group", "cgsnapshot"])
def test_what_nobody_holds_is_found(
    noun: str, status: str, operation_id: str | None, use_count: int, kind: Kind | None
) -> None:
    row = WholeRow(noun, "g", status, operation_id, use_count)
    found = list(rows(Recorded("host@b", "iqn.", wholes={"g": row})))
    assert [(item.kind, item.resource, item.safe) for item in found] == ([(kind, noun, True)] if kind else [])

# SPDX-License-Identifier: Apache-2.0
"""Which way a worker takes to attach what another host exports."""

from __future__ import annotations

from typing import Any

import pytest

from volmgr import exception
from volmgr.initiator.writing import KERNEL, USER, Initiators
from volmgr.testing.initiator import FolderInitiator

MADE_WITH: dict[str, Any] = {
    "host": "node", "ip": "127.0.0.1", "state_path": "/nowhere", "prefix": "iqn.2010-10.org.openstack:",
}
MISSING = exception.ToolMissing(tool="qemu-nbd")
NEVER = exception.Unsupported(verb="attach")
NOT_ROOT = exception.BackendDown("not root")


class Way(FolderInitiator):
    """Can attach, or says why not."""

    failure: exception.VolmgrError | None = None

    def require(self, protocol: str) -> None:
        if self.failure is not None:
            raise self.failure


@pytest.mark.parametrize(
    ("user", "kernel", "chosen"),
    [
        (None, None, USER), (None, NOT_ROOT, USER), (NEVER, None, KERNEL), (MISSING, None, KERNEL),
        (NEVER, NOT_ROOT, NOT_ROOT), (MISSING, NOT_ROOT, MISSING),
    ],
)
def test_what_is_chosen_and_what_is_told(
    user: exception.VolmgrError | None, kernel: exception.VolmgrError | None, chosen: str | exception.VolmgrError
) -> None:
    ways = Initiators(**MADE_WITH)
    for name, failure in ((USER, user), (KERNEL, kernel)):
        way = Way(**MADE_WITH)
        way.failure = failure
        ways.known[name] = way
    if isinstance(chosen, str):
        assert ways.choose("iscsi") == chosen
        return
    with pytest.raises(type(chosen)) as caught:
        ways.choose("iscsi")
    assert caught.value is chosen


def test_a_name_that_means_nothing_is_refused() -> None:
    for name in ("nothing", "volmgr.names.no_such", "volmgr.names.parse_host"):
        with pytest.raises(exception.InvalidConfiguration):
            Initiators(name, **MADE_WITH).choose("iscsi")
    path = "volmgr.testing.initiator.FolderInitiator"
    assert Initiators(path, **MADE_WITH).choose("iscsi") == path

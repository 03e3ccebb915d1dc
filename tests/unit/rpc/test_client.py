# SPDX-License-Identifier: Apache-2.0
"""Whom the client addresses by ``host``, and to whom it is an argument."""

from __future__ import annotations

import inspect

from volmgr.manager import VolumeManager
from volmgr.operations.registry import find
from volmgr.rpc.client import ABOUT_HOSTS, ANYWHERE


def test_each_verb_with_an_argument_host_is_known() -> None:
    found = set()
    for name in dir(VolumeManager):
        function = getattr(VolumeManager, name)
        if not getattr(function, "exposed", False):
            continue
        operation = find(name, 1)
        fields = set(operation.args.__dataclass_fields__) if operation is not None else set()
        if "host" in fields | set(inspect.signature(function).parameters):
            found.add(name)
    assert found == ABOUT_HOSTS
    assert ANYWHERE < ABOUT_HOSTS

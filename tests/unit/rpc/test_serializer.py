# SPDX-License-Identifier: Apache-2.0
"""Who asks is decided by the process at the other end; a message may only narrow it."""

from __future__ import annotations

import os

from volmgr.context import RequestContext
from volmgr.rpc.serializer import Serializer

KEY = "5b7a8a52-4f0c-4c43-8a4e-6b1a52a2a7de"
ADMIN = RequestContext(is_admin=True, roles=["admin"], project_id="p", request_key=KEY, overwrite=False)


def test_root_and_the_daemons_user_are_administrators() -> None:
    for uid in (0, os.geteuid()):
        sent = {**Serializer().serialize_context(ADMIN), "_peer": {"uid": uid, "gid": 0, "pid": 1}}
        found = Serializer().deserialize_context(sent)
        assert found.is_admin
        assert found.scope is None
        assert (found.project_id, found.request_key) == ("p", KEY)


def test_another_user_is_confined_to_its_project_whatever_it_says() -> None:
    sent = {**Serializer().serialize_context(ADMIN), "_peer": {"uid": 12345, "gid": 0, "pid": 1}}
    found = Serializer().deserialize_context(sent)
    assert not found.is_admin
    assert found.scope == "p"


def test_a_message_may_narrow() -> None:
    member = RequestContext(project_id="p", overwrite=False)
    sent = {**Serializer().serialize_context(member), "_peer": {"uid": 0, "gid": 0, "pid": 1}}
    assert Serializer().deserialize_context(sent).scope == "p"


def test_the_token_does_not_travel() -> None:
    secret = RequestContext(auth_token="very-secret", project_id="p", overwrite=False)
    assert "very-secret" not in str(Serializer().serialize_context(secret))

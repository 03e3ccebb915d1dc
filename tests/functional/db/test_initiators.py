# SPDX-License-Identifier: Apache-2.0
"""What drivers remember of initiators, on every database."""

from __future__ import annotations

from typing import Any

from volmgr.crypto import Cipher
from volmgr.db import initiators
from volmgr.db.engine import Database

PEER = "iqn:iqn.1993-08.org.debian:01:a"


def test_values_are_set_changed_and_removed(database: Database) -> None:
    cipher = Cipher.generate()

    def save(**updates: Any) -> dict[str, str]:
        with database.writer() as conn:
            initiators.save(conn, cipher, PEER, "backend", updates)
        with database.reader() as conn:
            return initiators.get(conn, cipher, PEER, "backend")

    assert save(set_values={"user": "a", "secret": "b" * 2000}) == {"user": "a", "secret": "b" * 2000}
    assert save(set_values={"user": "a"}) == {"user": "a", "secret": "b" * 2000}
    assert save(set_values={"user": "c"}, remove_values=["secret", "secret"]) == {"user": "c"}
    assert save(remove_values=None, set_values=None) == {"user": "c"}
    with database.reader() as conn:
        assert initiators.get(conn, cipher, PEER, "other") == initiators.get(conn, cipher, "host:x", "backend") == {}

# SPDX-License-Identifier: Apache-2.0
"""The machine's randomness, drawn from a seed for a while: UUIDs, serials, secrets, addresses and pauses.

The same plan must give the same ids in every process, because rows are sorted by them. Nothing goes to a native thread
meanwhile: what would is a plain call, as it is where threads are native.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import uuid
from collections.abc import Iterator
from typing import Any
from unittest import mock

from volmgr import concurrency
from volmgr.db import luns, shelves


@contextlib.contextmanager
def seeded(seed: str) -> Iterator[None]:
    """Draw everything from ``seed`` inside the ``with``."""
    source = random.Random(seed)

    def token_bytes(count: int | None = None) -> bytes:
        return source.randbytes(32 if count is None else count)

    def token_hex(count: int | None = None) -> str:
        return token_bytes(count).hex()

    def uuid4() -> uuid.UUID:
        return uuid.UUID(bytes=source.randbytes(16), version=4)

    def here(function: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    state = random.getstate()
    random.seed(seed)
    try:
        with (
            mock.patch.object(uuid, "uuid4", uuid4),
            mock.patch.object(secrets, "token_bytes", token_bytes),
            mock.patch.object(secrets, "token_hex", token_hex),
            mock.patch.object(luns, "_random", source),
            mock.patch.object(shelves, "_random", source),
            mock.patch.object(concurrency, "offload", here),
        ):
            yield
    finally:
        random.setstate(state)

# SPDX-License-Identifier: Apache-2.0
"""Counts the programs that a machine runs, by the kernel's process accounting: for a guest of the lab.

It counts whatever ends while it counts, so only what is measured may run. It needs root.
Source: acct(2), acct(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field

_RECORD = 64  # struct acct_v3
_NAME = slice(48, 64)
_FORKED_ONLY = 0x01  # AFORK: it executed nothing


@dataclass
class Programs:
    """The names of the programs that have ended, in order; complete after the block."""

    names: list[str] = field(default_factory=list)


@contextlib.contextmanager
def counted() -> Iterator[Programs]:
    """Count the programs that end while the block runs.

    :raises OSError: the kernel does not keep accounts.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    found = Programs()
    with tempfile.NamedTemporaryFile() as file:
        if libc.acct(file.name.encode()):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "acct")
        try:
            yield found
        finally:
            libc.acct(None)
        data = file.read()
    for (record,) in struct.iter_unpack(f"{_RECORD}s", data):
        if not record[0] & _FORKED_ONLY:
            found.names.append(record[_NAME].split(b"\0")[0].decode(errors="replace"))

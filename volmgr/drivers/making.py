# SPDX-License-Identifier: Apache-2.0
"""Whose work an object is: the mark that a piece of work leaves on what it makes, and finds again after a crash.

A name says which object something is, not who has made it. What bears the name of an object that is yet to be made may
be a left-over of an earlier life, of another program, or of a database that was restored, with an earlier tenant's
bytes in it. So the caller says which piece of work it does, the driver puts that mark on what it makes, in the same
act, and a create that finds its name taken goes on only over its own mark. Without a caller that says so each call is
a work of its own: it then never takes what it finds. This module knows no storage.
"""

from __future__ import annotations

import contextlib
import contextvars
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from volmgr import exception

#: What a driver says of an object in a place that keeps no marks.
UNKNOWN = "unknown"


@dataclass(frozen=True)
class _Work:
    mark: str
    again: bool
    undoing: bool


_work: contextvars.ContextVar[_Work | None] = contextvars.ContextVar("work", default=None)


@contextlib.contextmanager
def making(mark: str, *, again: bool, undoing: bool = False) -> Iterator[None]:
    """Let drivers that are called inside, in this thread (or green thread), work under a mark.

    :param mark: unique to the work, the same in all its runs: letters, digits, hyphens.
    :param again: whether an earlier run may have begun it. :param undoing: what is called takes the work back, so it
        ends no object of others' making.
    """
    token = _work.set(_Work(mark, again, undoing))
    try:
        yield
    finally:
        _work.reset(token)


def mark() -> str:
    """Return what an object that is made now is to be marked with."""
    work = _work.get()
    return work.mark if work is not None else str(uuid.uuid4())


def first() -> bool:
    """Return whether this is known to be the first run of its work: nothing that is there can be of its doing."""
    work = _work.get()
    return work is not None and not work.again


def undoing() -> bool:
    """Return whether the present work is being taken back: a driver then asks :func:`spared` before it deletes."""
    work = _work.get()
    return work is not None and work.undoing


def spared(found: str | None) -> bool:
    """Return whether an object is to be left where it is, as this work is being taken back and has not made it.

    :param found: its mark, None for none, :data:`UNKNOWN` where no marks are kept.
    """
    work = _work.get()
    return work is not None and work.undoing and found not in (work.mark, UNKNOWN)


def expect(name: str, found: str | None, wanted: str) -> None:
    """Return if an object that bears the name of one that is to be made is this work's own.

    :param name: the backend's name of it, for the message. :param found: the mark that it has, None for none,
        :data:`UNKNOWN` where no marks are kept: then an earlier run of this work has to do for a proof.
    :param wanted: the mark of this work. :raises ObjectExists: it is not.
    """
    work = _work.get()
    if found != wanted and not (found == UNKNOWN and work is not None and work.again):
        raise exception.ObjectExists(id=name)

# SPDX-License-Identifier: Apache-2.0
"""Drivers and the manager exactly as they are, whose methods also write their names into a file when they are entered.

For the tests that prove that a promised name is reached: a daemon is configured with ``volume_driver =
volmgr.testing.recording.FileDriver`` and ``volume_manager = volmgr.testing.recording.VolumeManager``, and
:data:`RECORD` names the file in its environment. Production loads nothing of this module and pays nothing.

A line is ``LOADED DEFINER.NAME``: the class that the configuration named, and the class whose body was entered. A
verb of the manager is written once it has been answered without an error. Each name is written once per process.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: the environment variable with the path of the file.
RECORD = "VOLMGR_SURFACE_RECORD"
MANAGER = "VolumeManager"
#: what can be named, and where it is.
PLACES = {
    MANAGER: "volmgr.manager",
    "FileDriver": "volmgr.drivers.file",
    "SimDriver": "volmgr.drivers.sim",
    "LVMVolumeDriver": "volmgr.drivers.lvm",
    "StorPoolDriver": "volmgr.drivers.storpool",
    "FakeISCSIDriver": "volmgr.drivers.fake",
    "FakeISERDriver": "volmgr.drivers.fake",
    "ArrayDriver": "volmgr.testing.array",
    "FibreChannelArray": "volmgr.testing.array",
    "ProxiedArray": "volmgr.testing.array",
    "PolledReplicaDriver": "volmgr.testing.array",
}
#: begins the names that are promised although they are not public.
PRIVATE = "_get_"
_MARK = "_volmgr_recorded"


@dataclass(frozen=True, order=True)
class Entry:
    """A body that was entered.

    :ivar loaded: the class of the object, as the configuration named it. :ivar definer: the class that has the body.
    """

    loaded: str
    definer: str
    name: str


def read(path: Path) -> set[Entry]:
    """Return what a file tells; a file that is not there tells nothing."""
    found = set()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        loaded, _, body = line.partition(" ")
        definer, _, name = body.partition(".")
        found.add(Entry(loaded, definer, name))
    return found


class _Recorder:
    """Writes each name once."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._seen: set[str] = set()

    def note(self, loaded: str, definer: str, name: str) -> None:
        line = f"{loaded} {definer}.{name}\n"
        if line not in self._seen:
            self._seen.add(line)
            os.write(self._fd, line.encode())  # one write: the workers of all backends share the file


@functools.cache
def _recorder() -> _Recorder:
    return _Recorder(os.environ[RECORD])


def __getattr__(name: str) -> Any:
    """Return a class of :data:`PLACES`, each of whose methods is recorded from now on."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    cls = getattr(importlib.import_module(PLACES[name]), name)
    _watch(cls, name)
    if (behind := getattr(cls, "behind", None)) is not None:  # of a driver that only passes on
        _watch(behind, behind.__name__)
    return cls


@functools.cache
def _watch(cls: type, loaded: str) -> None:
    for base in cls.__mro__:
        if not base.__module__.startswith("volmgr."):
            continue
        for name, found in list(vars(base).items()):
            if not name.startswith("_") or name.startswith(PRIVATE):
                made = _wrapped(found, base.__name__, loaded)
                if made is not None:
                    setattr(base, name, made)


def _wrapped(found: Any, definer: str, loaded: str) -> Any:
    """Return what records and then does the same, None for what is no method or is recorded already."""
    static = isinstance(found, staticmethod)
    body = found.__func__ if static else found.fget if isinstance(found, property) else found
    if not inspect.isfunction(body) or hasattr(body, _MARK):
        return None
    if loaded == MANAGER:
        return _answering(body) if getattr(body, "exposed", False) else None
    made = _entering(body, definer, loaded if static else None)
    setattr(made, _MARK, True)
    if static:
        return staticmethod(made)
    if isinstance(found, property):
        return property(made, found.fset, found.fdel, found.__doc__)
    return made


def _entering(body: Callable[..., Any], definer: str, loaded: str | None) -> Callable[..., Any]:
    @functools.wraps(body)
    def entered(*args: Any, **kwargs: Any) -> Any:
        _recorder().note(loaded or type(args[0]).__name__, definer, body.__name__)
        return body(*args, **kwargs)

    return entered


def _answering(body: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(body)
    def answered(*args: Any, **kwargs: Any) -> Any:
        answer = body(*args, **kwargs)
        _recorder().note(MANAGER, MANAGER, body.__name__)
        return answer

    return answered

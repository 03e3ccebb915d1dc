# SPDX-License-Identifier: Apache-2.0
"""A backup store in a folder: of this host, or of a file system that every host mounts at the same place."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from volmgr import exception
from volmgr.backups.store import BackupStore, Stored, check_name
from volmgr.concurrency import offload

#: what an unfinished object's file begins with; no object's name can.
_UNFINISHED = ".part-"


class DirectoryStore(BackupStore):
    """Objects as files below ``path``, which must exist: a file system that is not mounted must not be written to."""

    def __init__(self, path: str) -> None:
        self.path = path

    def put(self, name: str, data: bytes) -> None:
        with self._typed(f"Writing {name}"):
            offload(self._put, self._file(name), data)

    def get(self, name: str) -> bytes:
        with self._typed(f"Reading {name}"):
            try:
                found: bytes = offload(_read, self._file(name))
            except FileNotFoundError:
                raise exception.NotFound(resource="object", id=name) from None
            return found

    def list_objects(self, folder: str) -> Iterator[Stored]:
        top = self._file(folder)
        with self._typed(f"Listing {folder}"):
            found: list[Stored] = offload(_walk, top, folder)
        yield from found

    def folders(self) -> list[str]:
        with self._typed("Listing"):
            return sorted(offload(_folders, self.path))

    def delete(self, names: Iterable[str]) -> None:
        with self._typed("Deleting"):
            offload(self._delete, [self._file(name) for name in names])

    def sweep(self, folder: str) -> int:
        with self._typed(f"Cleaning {folder}"):
            return int(offload(_sweep, self._file(folder)))

    # --- on a native thread -------------------------------------------------------------------------------------

    def _file(self, name: str) -> str:
        return os.path.join(self.path, check_name(name))

    def _put(self, path: str, data: bytes) -> None:
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            self._make(folder)
        unfinished = os.path.join(folder, f"{_UNFINISHED}{uuid.uuid4()}")
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
            os.rename(unfinished, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)
            raise
        finally:
            os.close(fd)
        _sync(folder)

    def _make(self, folder: str) -> None:
        """Make a folder and those above it, but never the store's own."""
        if folder == self.path:
            raise FileNotFoundError(2, "the folder of the store is not there", folder)
        parent = os.path.dirname(folder)
        if not os.path.isdir(parent):
            self._make(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        _sync(parent)

    def _delete(self, paths: list[str]) -> None:
        folders = set()
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            folders.add(os.path.dirname(path))
        while folders:
            folder = max(folders, key=len)
            folders.discard(folder)
            if folder != self.path and _remove_empty(folder):
                folders.add(os.path.dirname(folder))

    @contextlib.contextmanager
    def _typed(self, what: str) -> Iterator[Any]:
        try:
            yield
        except OSError as error:
            raise exception.BackendDown(
                f"{what} in the backup store {self.path} failed: {error.strerror or error}",
                hint=f"Look at: df {self.path}; ls -ld {self.path}",
            ) from error


def _read(path: str) -> bytes:
    with open(path, "rb") as source:
        return source.read()


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _walk(top: str, name: str) -> list[Stored]:
    found = []
    for folder, _inner, files in os.walk(top):
        inside = os.path.relpath(folder, top)
        prefix = name if inside == "." else f"{name}/{inside}"
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # removed since the folder was read
                found.append(Stored(f"{prefix}/{file}", os.stat(os.path.join(folder, file)).st_size))
    # What a write that was broken off has left can be deleted under its name, and is nobody's object.
    return [item for item in found if not os.path.basename(item.name).startswith(_UNFINISHED)]


def _sweep(top: str) -> int:
    left = [os.path.join(folder, file) for folder, _inner, files in os.walk(top) for file in files]
    left = [path for path in left if os.path.basename(path).startswith(_UNFINISHED)]
    for path in left:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return len(left)


def _folders(top: str) -> list[str]:
    with os.scandir(top) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _remove_empty(folder: str) -> bool:
    """Remove a folder that has no object in it, with what broken-off writes have left; returns whether it is gone."""
    try:
        names = os.listdir(folder)
        if any(not name.startswith(_UNFINISHED) for name in names):
            return False
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False  # somebody is writing into it at this moment
    return True

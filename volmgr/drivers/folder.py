# SPDX-License-Identifier: Apache-2.0
"""Raw files in one folder: sparse, never through a symbolic link, durable when a name appears.

Every file is reached by its bare name relative to an open directory, with O_NOFOLLOW, so nothing that somebody places
in the folder can lead out of it. Errors of the operating system become typed ones here. This module knows no volumes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from volmgr import exception
from volmgr.drivers.making import UNKNOWN
from volmgr.types import MiB

if TYPE_CHECKING:
    from collections.abc import Callable

# ioctl_ficlone(2): _IOW(0x94, 9, int)
FICLONE = 0x40049409
CHUNK = 16 * MiB
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_REFLINK = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EBADF, errno.EISDIR}
_NO_RANGE_COPY = {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NO_MARKS = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM}
_PROBE = ".reflink-probe"
#: the extended attribute that says by which work a file was made, see volmgr.drivers.making.
MARK = "user.volmgr.work"


@contextlib.contextmanager
def typed_errors(action: str) -> Iterator[None]:
    """Turn an OSError inside into a typed error that says what was being done.

    :raises NotFound: there is no such file. :raises NoSpace: the file system is full.
    :raises Inconsistent: a symbolic link or something else stands where a file should. :raises BackendDown: all else.
    """
    try:
        yield
    except OSError as error:
        text = f"{action}: {error.strerror}"
        if error.errno == errno.ENOENT:
            raise exception.NotFound(text, resource="file") from error
        if error.errno in _FULL:
            raise exception.NoSpace(text, hint="Free space, or wipe the trash", errno=error.errno) from error
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO):
            raise exception.Inconsistent(
                text, hint="Remove what stands in the place of the file", errno=error.errno
            ) from error
        raise exception.BackendDown(text, hint="Check the file system with: dmesg", errno=error.errno) from error


class Folder:
    """One folder of raw files. Its methods block; the caller decides in which thread.

    :param path: absolute path; it is made with mode 0700 if it is not there.
    :param durable: whether a file and its name are on the disk when a call returns; False only where a crash of the
        machine does not matter.
    :param parent: the folder that it lies in; it is then reached through that one and may be no symbolic link.
    """

    def __init__(self, path: str, *, durable: bool = True, parent: Folder | None = None) -> None:
        self.path = path
        self.durable = durable
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        with typed_errors(f"Opening the folder {path}"):
            if parent is None:
                os.makedirs(path, mode=0o700, exist_ok=True)
                self._fd = os.open(path, flags)
            else:
                name = os.path.basename(path)
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=parent._fd)
                    parent.sync()
                self._fd = os.open(name, flags | os.O_NOFOLLOW, dir_fd=parent._fd)

    def folder(self, name: str) -> Folder:
        """Return a folder in this one; it is made if it is not there."""
        return Folder(self.path_of(name), durable=self.durable, parent=self)

    def __del__(self) -> None:
        fd, self._fd = getattr(self, "_fd", -1), -1
        if fd >= 0:
            os.close(fd)

    def in_place(self) -> bool:
        """Return whether the path still leads to this folder: it was not removed and nothing is mounted over it."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except OSError:
            return False

    def path_of(self, name: str) -> str:
        """Return the absolute path of a file."""
        return os.path.join(self.path, name)

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, None if it is not there.

        :raises Inconsistent: it is no plain file.
        """
        with typed_errors(f"Looking at {self.path_of(name)}"):
            try:
                status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            except FileNotFoundError:
                return None
        if not stat.S_ISREG(status.st_mode):
            raise exception.Inconsistent(
                f"{self.path_of(name)} is not a plain file", hint="Remove what stands in the place of the file"
            )
        return status.st_size

    @contextlib.contextmanager
    def opened(self, name: str, flags: int = os.O_RDWR) -> Iterator[int]:
        """Open a file for the length of a block."""
        with typed_errors(f"Using {self.path_of(name)}"):
            fd = os.open(name, flags | _FLAGS, 0o600, dir_fd=self._fd)
            try:
                yield fd
            finally:
                os.close(fd)

    def create(self, name: str, size_bytes: int) -> None:
        """Make a sparse file that reads as zeros; whatever bore its name is removed first."""
        self.remove(name)
        with self.opened(name, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
            os.ftruncate(fd, size_bytes)

    def mark(self, name: str, text: str) -> None:
        """Write a mark on a file, where the file system keeps marks (xattr(7))."""
        with self.opened(name) as fd:
            try:
                os.setxattr(fd, MARK, text.encode())
            except OSError as error:
                if error.errno not in _NO_MARKS:
                    raise

    def mark_of(self, name: str) -> str | None:
        """Return the mark of a file, None if it has none or is not there, UNKNOWN where no marks are kept."""
        if self.size(name) is None:
            return None
        with self.opened(name, os.O_RDONLY) as fd:
            try:
                return os.getxattr(fd, MARK).decode(errors="replace")
            except OSError as error:
                if error.errno == errno.ENODATA:
                    return None
                if error.errno in _NO_MARKS:
                    return UNKNOWN
                raise

    def resize(self, name: str, size_bytes: int) -> None:
        """Set the size of a file; what it gains reads as zeros."""
        with self.opened(name) as fd:
            os.ftruncate(fd, size_bytes)
            if self.durable:
                os.fsync(fd)

    def flush(self, name: str) -> None:
        """Put the bytes of a file on the disk."""
        if self.durable:
            with self.opened(name) as fd:
                os.fsync(fd)

    def rename(self, name: str, new_name: str, to: Folder | None = None) -> bool:
        """Give a file another name at one instant, in this folder or another of the same file system.

        :returns: False if there was no such file.
        """
        destination = to or self
        with typed_errors(f"Renaming {self.path_of(name)} to {destination.path_of(new_name)}"):
            try:
                os.rename(name, new_name, src_dir_fd=self._fd, dst_dir_fd=destination._fd)
            except FileNotFoundError:
                return False
        destination.sync()
        if destination is not self:
            self.sync()
        return True

    def remove(self, name: str) -> bool:
        """Remove a file; returns False if there was none."""
        with typed_errors(f"Removing {self.path_of(name)}"):
            try:
                os.unlink(name, dir_fd=self._fd)
            except FileNotFoundError:
                return False
        self.sync()
        return True

    def sync(self) -> None:
        """Put the names in the folder on the disk."""
        if self.durable:
            with typed_errors(f"Flushing the folder {self.path}"):
                os.fsync(self._fd)

    def entries(self) -> list[tuple[str, os.stat_result]]:
        """Return (name, status) of every plain file, links not followed."""
        found = []
        with typed_errors(f"Listing {self.path}"):
            # A descriptor of its own: two listings over one would share its position, and btrfs shows a descriptor
            # only the names that were there when it was opened.
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd)
            try:
                with os.scandir(fd) as listing:
                    for entry in listing:
                        with contextlib.suppress(FileNotFoundError):  # removed since the folder was read
                            if entry.is_file(follow_symlinks=False):
                                found.append((entry.name, entry.stat(follow_symlinks=False)))
            finally:
                os.close(fd)
        return found

    def space(self) -> os.statvfs_result:
        """Return what statvfs says of the folder's file system."""
        with typed_errors(f"Asking for the space of {self.path}"):
            return os.fstatvfs(self._fd)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return bytes of a file."""
        with self.opened(name, os.O_RDONLY) as fd:
            return os.pread(fd, length, offset)

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write bytes into a file."""
        with self.opened(name) as fd:
            _write_all(fd, data, offset)

    # --- copies -------------------------------------------------------------------------------------------------

    def can_reflink(self) -> bool:
        """Try whether the file system shares blocks between files; leaves nothing behind."""
        source, copy = f"{_PROBE}.1", f"{_PROBE}.2"
        try:
            self.create(source, 0)
            self.write(source, 0, b"probe".ljust(4096, b"\0"))
            return self.reflink(source, copy)
        finally:
            self.remove(source)
            self.remove(copy)

    def reflink(self, source: str, name: str) -> bool:
        """Make ``name`` share all blocks of ``source`` as they are at one instant (ioctl_ficlone(2)).

        :returns: False if the file system cannot; nothing is left then.
        """
        with self.opened(source, os.O_RDONLY) as source_fd:
            self.create(name, 0)
            with self.opened(name) as fd:
                try:
                    fcntl.ioctl(fd, FICLONE, source_fd)
                except OSError as error:
                    if error.errno not in _NO_REFLINK:
                        raise
                else:
                    return True
        self.remove(name)
        return False

    def copy_sparse(
        self,
        source: str,
        name: str,
        size_bytes: int,
        progress: Callable[[float], None] | None = None,
        offload: Callable[..., int] | None = None,
    ) -> None:
        """Copy the bytes of ``source`` to a new file of ``size_bytes``; its holes stay holes.

        :param progress: called between chunks with the fraction that is done; what it raises stops the copy.
        :param offload: runs a chunk elsewhere, ``offload(function, *args)``; ``progress`` is called in this thread.
        """
        with self.opened(source, os.O_RDONLY) as source_fd:
            self.create(name, size_bytes)
            with self.opened(name) as fd:
                end = os.fstat(source_fd).st_size
                position = 0
                while position < end:
                    position = (offload or _call)(_copy_chunk, source_fd, fd, position, end)
                    if progress is not None:
                        progress(position / end)


def _call(function: Callable[..., int], *args: int) -> int:
    return function(*args)


def _copy_chunk(source_fd: int, fd: int, position: int, end: int) -> int:
    """Copy at most one chunk of data at or after ``position``; returns where to go on."""
    try:
        start = os.lseek(source_fd, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole is left
            return end
        raise
    stop = min(os.lseek(source_fd, start, os.SEEK_HOLE), start + CHUNK, end)
    position = start
    while position < stop:
        try:
            copied = os.copy_file_range(source_fd, fd, stop - position, position, position)
        except OSError as error:
            if error.errno not in _NO_RANGE_COPY:
                raise
            copied = _copy_by_hand(source_fd, fd, position, stop - position)
        if copied == 0:
            break
        position += copied
    return max(position, stop)


def _copy_by_hand(source_fd: int, fd: int, offset: int, length: int) -> int:
    data = os.pread(source_fd, min(length, MiB), offset)
    _write_all(fd, data, offset)
    return len(data)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written

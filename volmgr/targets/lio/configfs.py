# SPDX-License-Identifier: Apache-2.0
"""The few file operations that configfs knows, below one root, and the execution of a planned step by them.

Everything happens in this process: no program is started and no library caches the tree. It must not know what the
folders mean.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Protocol

from volmgr.targets.lio.tree import Link, Make, Offer, Remove, Step, Unlink, Write
from volmgr.types import Secret

ROOT = "/sys/kernel/config/target"
#: An attribute is read whole at once and is never longer.
_PAGE = 4096
#: The most blocks that one UNMAP may free, 512 MiB of 512 bytes; libiscsi's suite takes more for a fault.
MAX_UNMAP_BLOCKS = 1 << 20


class Reader(Protocol):
    """What can be seen of a tree; all paths are relative to its root."""

    def exists(self, path: str) -> bool:
        """Return whether there is a folder."""

    def folders(self, path: str) -> tuple[str, ...]:
        """Return the names of the folders in a folder, none if it is missing."""

    def links(self, path: str) -> dict[str, str]:
        """Return the symbolic links in a folder and what they point to; none if it is missing."""

    def read(self, path: str) -> str:
        """Return an attribute's value without the white space around it; empty if it is missing."""


class Tree(Reader, Protocol):
    """A tree that can be changed; everything raises ``OSError`` as the system call of its name does."""

    def mkdir(self, path: str) -> None: ...

    def rmdir(self, path: str) -> None: ...

    def symlink(self, path: str, to: str) -> None: ...

    def unlink(self, path: str) -> None: ...

    def write(self, path: str, value: str) -> None: ...


class Configfs:
    """The kernel's.

    :param root: where the target core's folder is.
    """

    def __init__(self, root: str = ROOT) -> None:
        self.root = root

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}"

    def exists(self, path: str) -> bool:
        """Return whether there is a folder."""
        return os.path.isdir(self._at(path))

    def folders(self, path: str) -> tuple[str, ...]:
        """Return the names of the folders in a folder, none if it is missing."""
        try:
            with os.scandir(self._at(path)) as entries:
                return tuple(sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False)))
        except FileNotFoundError:
            return ()

    def links(self, path: str) -> dict[str, str]:
        """Return the symbolic links in a folder and what they point to; none if it is missing."""
        folder = self._at(path)
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_symlink())
            found = {name: os.path.normpath(os.path.join(folder, os.readlink(f"{folder}/{name}"))) for name in names}
        except FileNotFoundError:
            return {}
        return {name: to.removeprefix(f"{self.root}/") for name, to in found.items()}

    def read(self, path: str) -> str:
        """Return an attribute's value without the white space around it; empty if it is missing."""
        try:
            descriptor = os.open(self._at(path), os.O_RDONLY)
        except FileNotFoundError:
            return ""
        try:
            return os.read(descriptor, _PAGE).decode(errors="replace").strip(" \t\r\n\0")
        finally:
            os.close(descriptor)

    def mkdir(self, path: str) -> None:
        """Make a folder; the kernel fills it."""
        os.mkdir(self._at(path))

    def rmdir(self, path: str) -> None:
        """Remove a folder in which nothing was made."""
        os.rmdir(self._at(path))

    def symlink(self, path: str, to: str) -> None:
        """Link ``path`` to the folder ``to``."""
        # The kernel resolves it at once, from the process's working folder: it must be absolute.
        os.symlink(self._at(to), self._at(path))

    def unlink(self, path: str) -> None:
        """Remove a link."""
        os.unlink(self._at(path))

    def write(self, path: str, value: str) -> None:
        """Write an attribute by one system call, which is what makes it one change."""
        descriptor = os.open(self._at(path), os.O_WRONLY)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)


def apply(tree: Tree, step: Step) -> None:
    """Do one step.

    :raises OSError: the kernel refused it.
    """
    match step:
        case Make(path, shared):
            # Another export, or another process, may have made what is shared.
            with contextlib.suppress(*((FileExistsError,) if shared else ())):
                tree.mkdir(path)
        case Remove(path, shared):
            _remove(tree, path, shared)
        case Link(path, to):
            tree.symlink(path, to)
        case Unlink(path):
            tree.unlink(path)
        case Write(path, value):
            tree.write(path, value.reveal() if isinstance(value, Secret) else value)
        case Offer(backstore, on):
            if not on or tree.read(f"{backstore}/attrib/max_unmap_block_desc_count") not in ("", "0"):
                if on:
                    _bound_unmap(tree, f"{backstore}/attrib/max_unmap_lba_count")
                tree.write(f"{backstore}/attrib/emulate_tpu", str(int(on)))


def _bound_unmap(tree: Tree, attribute: str) -> None:
    """Let no single command of an initiator free more than a bounded piece: a disk may say that it takes any."""
    count = tree.read(attribute)
    if count.isdecimal() and int(count) > MAX_UNMAP_BLOCKS:
        tree.write(attribute, str(MAX_UNMAP_BLOCKS))


def _remove(tree: Tree, path: str, shared: bool) -> None:
    try:
        tree.rmdir(path)
    except OSError as error:
        if not shared or error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY):
            raise

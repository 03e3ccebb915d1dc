# SPDX-License-Identifier: Apache-2.0
"""Which servers there are: names, locks and descriptions in the directory of ``unix://``.

A server has three files of one short name, a hash of its address, because a socket's path has room for about 108 bytes
(unix(7)): ``.sock``, ``.json`` (its address in clear, which makes it findable by topic) and ``.lock``. The server
holds a flock(2) on the last one for as long as it listens: who gets that lock knows that the server is dead and may
remove its files, and a living server's files are never removed. This module sends no messages.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import os
import pwd
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from volmgr import exception
from volmgr.rpc.unix import errors

LOG = logging.getLogger(__name__)

RPC = "rpc"
NOTIFY = "notify"
SUN_PATH_BYTES = 107
LOCK_WAIT = 2.0
"""Seconds that a starting server waits for a client that holds the lock for a moment to clear a dead one away."""
SETTLED_NS = 50_000_000
"""A directory changed less than this (ns) before it was read is read again: its time stamp may be too coarse."""


@dataclass(frozen=True)
class Address:
    """What a server listens to.

    :param kind: :data:`RPC` or :data:`NOTIFY`; a message of one kind never reaches a server of the other.
    :param topics: pairs of exchange and topic.
    :param server: its name, unique within the topics.
    :param pool: of a notification listener: each pool gets one copy.
    """

    kind: str
    topics: tuple[tuple[str, str], ...]
    server: str
    pool: str | None = None

    @property
    def name(self) -> str:
        """The short name of its files."""
        clear = json.dumps([self.kind, self.topics, self.server])
        return hashlib.sha256(clear.encode()).hexdigest()[:20]

    def __str__(self) -> str:
        topics = ", ".join(topic for _exchange, topic in self.topics)
        return f"{topics} on {self.server}" if self.server else topics


def rpc_address(exchange: str, topic: str, server: str) -> Address:
    """Return the address of an RPC server."""
    return Address(RPC, ((exchange, topic),), server)


@contextlib.contextmanager
def socket_path(directory: str, name: str) -> Iterator[str]:
    """Give a path of the socket that fits ``sun_path``, by way of ``/proc/self/fd`` when the directory's is long."""
    path = os.path.join(directory, name + ".sock")
    if len(os.fsencode(path)) <= SUN_PATH_BYTES:
        yield path
        return
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}.sock"
    finally:
        os.close(descriptor)


def prepare(directory: str, group: int | None) -> None:
    """Make the directory (0700, with a group 0750) if it is missing, and refuse one that others could tamper with.

    :raises volmgr.exception.InvalidConfiguration: it belongs to another user, or others may write in it.
    """
    made = False
    with contextlib.suppress(FileExistsError):  # of another server, or made by systemd's RuntimeDirectory
        os.makedirs(directory, mode=0o700)
        made = True
    if made and group is not None:
        os.chown(directory, -1, group)
        os.chmod(directory, 0o750)  # noqa: S103  the group that the operator named, and nobody else
    status = os.stat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise exception.InvalidConfiguration(reason=f"{directory} is not a directory")
    if status.st_uid not in (0, os.geteuid()):
        owner = str(status.st_uid)
        with contextlib.suppress(KeyError):  # a number without a name is shown as the number
            owner = pwd.getpwuid(status.st_uid).pw_name
        raise exception.InvalidConfiguration(reason=f"{directory} belongs to {owner}, not to this user")
    if status.st_mode & stat.S_IWOTH:
        raise exception.InvalidConfiguration(reason=f"others may write in {directory}")


class Claim:
    """A server's hold on its name, from before its socket exists until its files are removed.

    :param directory: of the sockets.
    :param address: what the server listens to.
    """

    def __init__(self, directory: str, address: Address) -> None:
        self._directory = directory
        self._base = os.path.join(directory, address.name)
        self._lock = _lock(self._base + ".lock", address, directory)
        with contextlib.suppress(FileNotFoundError):  # there is one only after a crash
            os.unlink(self._base + ".sock")
        self._address = address

    def announce(self) -> None:
        """Write the description, whole or not at all; clients find the server by its topics from now on."""
        address = self._address
        clear = {"kind": address.kind, "topics": address.topics, "server": address.server, "pool": address.pool}
        temporary = f"{self._base}.{os.getpid()}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(clear, file)
        status = os.stat(self._directory)
        os.chown(temporary, -1, status.st_gid)
        os.chmod(temporary, 0o640)
        os.replace(temporary, self._base + ".json")

    def release(self) -> None:
        """Remove the server's files and give the name up; a second time changes nothing."""
        if self._lock < 0:
            return
        _remove(self._base)
        os.close(self._lock)
        self._lock = -1


def _lock(path: str, address: Address, directory: str) -> int:
    """Return a descriptor that holds the lock file exclusively."""
    deadline = time.monotonic() + LOCK_WAIT
    pause = threading.Event()
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same_file(descriptor, path):
                return descriptor
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise errors.AddressInUse(address=str(address), directory=directory) from error
            pause.wait(0.02)
        os.close(descriptor)


def _same_file(descriptor: int, path: str) -> bool:
    """Return whether the locked file is still the one at ``path``, and not one that was just removed."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _remove(base: str) -> None:
    for suffix in (".json", ".sock", ".lock"):
        with contextlib.suppress(FileNotFoundError):  # the server died before it had made this one
            os.unlink(base + suffix)


def sweep(directory: str, name: str) -> bool:
    """Remove the files of a server that is dead for certain; return whether they were removed.

    A client that may not write in the directory leaves them to one that may.
    """
    base = os.path.join(directory, name)
    try:
        descriptor = os.open(base + ".lock", os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _same_file(descriptor, base + ".lock"):
            return False
        _remove(base)
        LOG.info("Removed the socket of a dead server, %s in %s", name, directory)
        return True
    except (BlockingIOError, PermissionError):
        return False
    finally:
        os.close(descriptor)


@dataclass
class Registry:
    """A client's view of the servers in a directory, read again only when the directory has changed.

    :param directory: of the sockets; it need not exist.
    """

    directory: str
    _servers: dict[str, Address] = field(default_factory=dict)
    _stamp: int = -1
    _settled: bool = False
    _turn: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, kind: str, exchange: str, topic: str) -> list[Address]:
        """Return the servers of a topic; each time another one comes first."""
        self._refresh()
        wanted = (exchange, topic)
        # One reference: another thread may put a newer dictionary in its place meanwhile.
        found = [server for server in self._servers.values() if server.kind == kind and wanted in server.topics]
        if len(found) > 1:
            first = next(self._turn) % len(found)
            found = found[first:] + found[:first]
        return found

    def _refresh(self) -> None:
        try:
            stamp = os.stat(self.directory).st_mtime_ns
        except FileNotFoundError:
            self._servers, self._stamp = {}, -1
            return
        if stamp == self._stamp and self._settled:
            return
        with self._lock:
            self._settled = time.time_ns() - stamp > SETTLED_NS
            names = sorted(file[:-5] for file in os.listdir(self.directory) if file.endswith(".json"))
            known = self._servers
            servers = {name: known.get(name) or self._read(name) for name in names}
            self._servers = {name: server for name, server in servers.items() if server is not None}
            self._stamp = stamp

    def _read(self, name: str) -> Address | None:
        path = os.path.join(self.directory, name + ".json")
        try:
            with open(path, encoding="utf-8") as file:
                clear = json.load(file)
            topics = tuple((str(exchange), str(topic)) for exchange, topic in clear["topics"])
            address = Address(clear["kind"], topics, clear["server"], clear["pool"])
        except FileNotFoundError:
            return None  # it stopped between the listing and now
        except (OSError, ValueError, KeyError, TypeError) as error:
            LOG.warning("Cannot read %s: %s", path, error)
            return None
        return address if address.name == name else None

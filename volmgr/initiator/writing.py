# SPDX-License-Identifier: Apache-2.0
"""How a worker writes into a volume that another host exports: as a client of that host, like a compute service.

``kernel`` attaches it by os-brick, the way of ``volmgr attach``, which takes root and the kernel's initiator; ``user``
has qemu-nbd speak iSCSI, which takes no rights. Whoever has attached something and dies leaves it; :meth:`forget` ends
that. ``auto`` prefers ``user``, of which nothing is left when a worker dies. This module knows no journal and no
database.
"""

from __future__ import annotations

import abc
import contextlib
import importlib
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from volmgr import exception, killpoints
from volmgr.concurrency import offload
from volmgr.connector import HostConnector, require_kernel
from volmgr.tools.blockcopy import Disk
from volmgr.tools.nbd import NbdDisk
from volmgr.tools.process import PATH

LOG = logging.getLogger(__name__)

AUTO, KERNEL, USER = "auto", "kernel", "user"
Info = Mapping[str, Any]
#: Seconds in which qemu-nbd has logged in, or says why not.
LOGIN_SECONDS = 60.0
#: Seconds in which it has logged out, once nobody is connected to it any more.
LOGOUT_SECONDS = 10.0
_LOOK_SECONDS = 0.02


class Initiator(abc.ABC):
    """One way to attach.

    :param host: this host's name, as workers have it. :param ip: its address. :param state_path: where it keeps locks.
    :param prefix: what a name that is made for it begins with.
    :param lock_fd: a descriptor that every program which works for it holds open.
    """

    def __init__(self, *, host: str, ip: str, state_path: str, prefix: str, lock_fd: int | None = None) -> None:
        self.host = host
        self.ip = ip
        self.state_path = state_path
        self.prefix = prefix
        self.lock_fd = lock_fd

    @abc.abstractmethod
    def require(self, protocol: str) -> None:
        """Return if this host can attach by a protocol, which is connection_info's ``driver_volume_type``.

        :raises Unsupported: it never can. :raises BackendDown: it lacks something that can be installed.
        """

    @abc.abstractmethod
    def properties(self) -> dict[str, Any]:
        """Return the connector of this host."""

    @abc.abstractmethod
    def attached(self, info: Info) -> contextlib.AbstractContextManager[str | Disk]:
        """Attach for as long as the ``with`` lasts; gives the device's path, or the bytes themselves.

        What is attached already, by an earlier life, is used. Leaving it flushes, and detaches.

        :raises BackendDown: it cannot be attached or detached now.
        """

    def reach(self, moment: str) -> None:
        """Pass a moment at which tests may end the process."""
        killpoints.reach(f"initiator/-/{moment}")

    @abc.abstractmethod
    def forget(self, info: Info) -> None:
        """End what an earlier life has left attached, whatever becomes of the bytes; nothing is success.

        :raises BackendDown: it cannot be ended now.
        """


class KernelInitiator(Initiator):
    """The kernel's initiator, through os-brick."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._host = HostConnector(os.path.join(self.state_path, "locks"))

    def require(self, protocol: str) -> None:
        if os.geteuid() != 0:
            raise exception.BackendDown(
                "Only root attaches block devices, and this daemon is not root",
                hint="volume_copy_initiator = user attaches iSCSI without root",
            )
        require_kernel(protocol)

    def properties(self) -> dict[str, Any]:
        return {**self._host.properties(), "host": self.host}

    @contextlib.contextmanager
    def attached(self, info: Info) -> Iterator[str | Disk]:
        path = self._host.connect(info)
        self.reach("attached")
        try:
            yield path
        except Exception:
            with _said("detached at once"):
                self._host.disconnect(info)
            raise
        self._host.disconnect(info)
        self.reach("detached")

    def forget(self, info: Info) -> None:
        self._host.disconnect(info, force=True)


class UserInitiator(Initiator):
    """iSCSI in user space: qemu-nbd logs in, and gives the bytes on a socket; it ends with the connection to it."""

    def require(self, protocol: str) -> None:
        if protocol != "iscsi":
            raise exception.Unsupported(
                f"In user space nothing attaches by {protocol}", hint="volume_copy_initiator = kernel", verb="attach",
                protocol=protocol,
            )
        if shutil.which("qemu-nbd", path=PATH) is None:
            raise exception.ToolMissing(tool="qemu-nbd", hint="apt-get install qemu-utils qemu-block-extra")

    def properties(self) -> dict[str, Any]:
        name = "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in self.host.lower())
        return {"initiator": f"{self.prefix}host-{name}", "ip": self.ip, "host": self.host, "multipath": False}

    @contextlib.contextmanager
    def attached(self, info: Info) -> Iterator[str | Disk]:
        with contextlib.ExitStack() as stack:
            # What it says goes to a file in memory.
            said = os.memfd_create("said", os.MFD_CLOEXEC)
            stack.callback(os.close, said)
            # Once it is connected nobody needs the socket's name, so a worker that dies later leaves no folder.
            with tempfile.TemporaryDirectory(prefix="volmgr-") as folder:
                path = os.path.join(folder, "disk")
                process = self._serve(dict(info["data"]), path, said)
                stack.callback(_ended, process, LOGOUT_SECONDS)
                stack.callback(process.kill)
                opened = _opened(process, path, said)
            with opened as disk:
                self.reach("attached")
                yield disk
                offload(disk.flush)
            _ended(process, LOGOUT_SECONDS)
            self.reach("detached")

    def _serve(self, data: dict[str, Any], path: str, said: int) -> subprocess.Popen[bytes]:
        """Start qemu-nbd and return it. The secret goes by a file in memory."""
        values = {
            "driver": "iscsi", "transport": "tcp", "portal": data["target_portal"], "target": data["target_iqn"],
            "lun": data["target_lun"], "initiator-name": self.properties()["initiator"],
        }
        argv, fds = ["qemu-nbd", f"--socket={path}", "--cache=none", "--discard=ignore"], []
        with contextlib.ExitStack() as stack:
            if "auth_password" in data:
                secret = os.memfd_create("secret", os.MFD_CLOEXEC)
                stack.callback(os.close, secret)
                os.write(secret, str(data["auth_password"]).encode())
                fds.append(secret)
                argv += ["--object", f"secret,id=chap,file=/proc/self/fd/{secret}"]
                values |= {"user": data["auth_username"], "password-secret": "chap"}
            if self.lock_fd is not None:
                fds.append(self.lock_fd)
            options = ",".join(f"{key}={str(value).replace(',', ',,')}" for key, value in values.items())
            return subprocess.Popen(
                [*argv, "--image-opts", options], stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=fds,
                start_new_session=True, env={"PATH": PATH, "LC_ALL": "C"},
            )

    def forget(self, info: Info) -> None:
        """Do nothing: what a worker attached so has ended with it."""


def _opened(process: subprocess.Popen[bytes], path: str, said: int) -> NbdDisk:
    """Return the disk once qemu-nbd serves it.

    :raises BackendDown: it ends instead, or takes too long.
    """
    deadline = time.monotonic() + LOGIN_SECONDS
    while not _ended(process, _LOOK_SECONDS) and time.monotonic() < deadline:
        try:
            return offload(NbdDisk, path)
        except (FileNotFoundError, ConnectionRefusedError):
            LOG.debug("qemu-nbd is not ready yet")
    words = os.pread(said, 4096, 0).decode(errors="replace").strip().splitlines()
    raise exception.BackendDown(
        f"qemu-nbd does not reach the disk: {words[-1] if words else 'it says nothing'}",
        hint="Is the target's portal reached from this host? See: volmgr doctor",
    )


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Return whether a program has ended, or does so within a time."""
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    """Let an error of cleaning up not hide the one before it: the cleaning up is done again, with the undoing."""
    try:
        yield
    except exception.VolmgrError as error:
        LOG.warning("The volume that is copied to could not be %s: %s", what, error)


class Initiators:
    """The ways of one worker to attach.

    :param asked: option ``volume_copy_initiator``. :param made_with: what :class:`Initiator` is given.
    :ivar known: those that are made, by name.
    """

    def __init__(self, asked: str = AUTO, **made_with: Any) -> None:
        self._asked = asked
        self._made_with = made_with
        self.known: dict[str, Initiator] = {}

    def choose(self, protocol: str) -> str:
        """Return the name of the way to attach by a protocol; it is the same one until that is detached.

        :raises VolmgrError: there is none; it says why.
        """
        if self._asked != AUTO:
            self.get(self._asked).require(protocol)
            return self._asked
        try:
            self.get(USER).require(protocol)
        except exception.VolmgrError as error:
            try:
                self.get(KERNEL).require(protocol)
            except exception.VolmgrError:
                if isinstance(error, exception.Unsupported):
                    raise
                raise error from None
            return KERNEL
        return USER

    def get(self, name: str) -> Initiator:
        """Return a way by its name, or by the dotted path of its class.

        :raises InvalidConfiguration: there is no such thing.
        """
        if name not in self.known:
            self.known[name] = _load(name)(**self._made_with)
        return self.known[name]


def _load(name: str) -> type[Initiator]:
    known: dict[str, type[Initiator]] = {KERNEL: KernelInitiator, USER: UserInitiator}
    if name in known:
        return known[name]
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
        if issubclass(found, Initiator):
            return found  # type: ignore[no-any-return]
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        LOG.debug("The initiator %s cannot be loaded: %s", name, error)
    raise exception.InvalidConfiguration(
        reason=f"volume_copy_initiator {name!r} is no way to attach", hint=f"Use {AUTO}, {KERNEL} or {USER}", name=name
    )

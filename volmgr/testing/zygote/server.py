# SPDX-License-Identifier: Apache-2.0
"""``python -m volmgr.testing.zygote.server FD``: loads the daemon, then forks it for whoever asks on a socket.

One thread, and nothing of eventlet's that has begun: a fork copies no other thread, and a hub's epoll would be shared.
So what it waits with is taken before the choice of green threads replaces it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import struct
import sys
from collections.abc import Callable
from typing import Any

from volmgr import concurrency

POLLIN = 1
NUMBER = struct.Struct("!q")
LONGEST_REQUEST = 1 << 17
#: what a daemon loads when it is asked for: its endpoint, its transports, the drivers and targets that are killed here.
LAZY = (
    "volmgr.manager",
    "volmgr.rpc.server",
    "volmgr.rpc.unix_transport",
    "volmgr.drivers.sim",
    "volmgr.drivers.file",
    "volmgr.drivers.lvm",
    "volmgr.targets.fake",
    "volmgr.targets.lio",
    "volmgr.targets.tgt",
    "sqlalchemy.dialects.sqlite.pysqlite",
)


class Children:
    """The daemons that live.

    :param poll: makes an object of :class:`select.poll`'s kind.
    """

    def __init__(self, asked: Any, poll: Callable[[], Any]) -> None:
        self._asked = asked
        self._poll = poll()
        self._poll.register(asked.fileno(), POLLIN)
        #: by the socket that its end is told on: the process, and its pidfd while it lives.
        self._lives: dict[int, tuple[int, int]] = {}
        self._ends: dict[int, int] = {}

    def serve(self) -> list[str] | None:
        """Fork until nobody is left to ask; returns a daemon's arguments in the daemon, None in the zygote."""
        while True:
            for fd, _events in self._poll.poll():
                if fd in self._ends:
                    self._ended(fd)
                elif fd in self._lives:
                    self._let_go(fd)
                elif (request := self._request()) is None:
                    return None
                elif self._fork(*request):
                    return list(request[0]["arguments"])

    def _request(self) -> tuple[dict[str, Any], int, int] | None:
        message, ancillary, _flags, _address = self._asked.recvmsg(LONGEST_REQUEST, 64)
        if not message:
            return None
        told, log = struct.unpack("2i", ancillary[0][2])
        return json.loads(message), told, log

    def _fork(self, request: dict[str, Any], told: int, log: int) -> bool:
        """Return True in the new process."""
        pid = os.fork()
        if pid:
            os.close(log)
            pidfd = os.pidfd_open(pid)
            self._lives[told], self._ends[pidfd] = (pid, pidfd), told
            self._poll.register(pidfd, POLLIN)
            self._tell(told, pid)
            return False
        for fd in (told, self._asked.detach(), *self._lives, *self._ends):
            os.close(fd)
        _become(request, log)
        return True

    def _ended(self, pidfd: int) -> None:
        """Say how it ended. It stays a zombie until whoever asked has heard that, so its number is nobody else's."""
        told = self._ends.pop(pidfd)
        self._poll.unregister(pidfd)
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
        assert found is not None
        killed = found.si_code != os.CLD_EXITED
        self._tell(told, found.si_status if killed else found.si_status << 8)
        os.close(pidfd)
        self._poll.register(told, POLLIN)

    def _let_go(self, told: int) -> None:
        """Reap it; whoever asked has heard of its end, or is gone."""
        pid, _pidfd = self._lives.pop(told)
        self._poll.unregister(told)
        os.waitpid(pid, 0)
        os.close(told)

    def _tell(self, told: int, number: int) -> None:
        try:
            os.write(told, NUMBER.pack(number))
        except BrokenPipeError:
            return  # whoever asked has ended


def _become(request: dict[str, Any], log: int) -> None:
    """Be what the request asks for: what exec(2) would have taken from its caller."""
    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]
    from volmgr import killpoints

    killpoints.arm()


def main() -> int:
    """Serve; in a daemon that was forked, run it and return its exit status."""
    # Before they are replaced by green ones, whose hub must not begin here.
    from select import poll
    from socket import socket

    asked = socket(fileno=int(sys.argv[1]))
    asked.setblocking(True)
    os.set_inheritable(asked.fileno(), False)
    gc.disable()
    concurrency.setup()
    for name in ("volmgr.cmd.daemon", *LAZY):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is loaded stays, and is not written to by every copy's collections
    arguments = Children(asked, poll).serve()
    if arguments is None:
        return 0
    from volmgr.cmd.volume import main as daemon

    return daemon(arguments)


if __name__ == "__main__":
    sys.exit(main())

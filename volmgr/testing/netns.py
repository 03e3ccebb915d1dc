# SPDX-License-Identifier: Apache-2.0
"""A network namespace with a link of its own to each of several servers of this host, which can be cut and mended.

A cut link loses what is sent and says nothing, as a network does that is partitioned: connections stand, and go on or
break when it is mended. See ip-netns(8) and veth(4). Root is needed. This module knows no protocol.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from volmgr.testing.cutting_proxy import CuttingProxy

#: of the range for measurements of networks, RFC 2544: nobody is there but others of these.
_NETWORKS = tuple(f"198.{second}.{third}" for second in (18, 19) for third in range(256))


class NetworkNamespace:
    """See the module.

    :param servers: the ports of this host's loopback, by a name for the link to each; at most 64.
    :ivar under: what a command line begins with to run inside.
    :raises subprocess.CalledProcessError: the kernel or the user may not.
    """

    def __init__(self, servers: Mapping[str, int]) -> None:
        tag = secrets.token_hex(3)
        self.name = f"volmgr-{tag}"
        self.under = ("ip", "netns", "exec", self.name)
        self._links = {link: f"v{tag}{index}" for index, link in enumerate(servers)}
        network = _free_network()
        # Four addresses for each link: this host's is the second one, the other end's the third.
        self._near = {link: f"{network}.{4 * index + 1}" for index, link in enumerate(servers)}
        self._far = {link: f"{network}.{4 * index + 2}" for index, link in enumerate(servers)}
        self._servers = dict(servers)
        self._proxies: dict[str, CuttingProxy] = {}

    def __enter__(self) -> Self:
        _ip("netns", "add", self.name)
        try:
            self._inside("link", "set", "lo", "up")
            for link, port in self._servers.items():
                self._connect(link)
                self._proxies[link] = CuttingProxy(port, deliver=False, host=self._near[link])
        except BaseException:
            self.close()
            raise
        return self

    def _connect(self, link: str) -> None:
        near, inside = self._links[link], f"{self._links[link]}i"
        _ip("link", "add", near, "type", "veth", "peer", "name", inside, "netns", self.name)
        _ip("addr", "add", f"{self._near[link]}/30", "dev", near)
        self._inside("addr", "add", f"{self._far[link]}/30", "dev", inside)
        self._inside("link", "set", inside, "up")
        self.mend(link)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take links and namespace away; whoever runs inside is cut off for good."""
        for proxy in self._proxies.values():
            proxy.close()
        _ip("netns", "del", self.name)  # its end of each link goes with it, and so the other

    def address(self, link: str) -> tuple[str, int]:
        """Return the address and the port by which a server is reached from inside."""
        return self._near[link], self._proxies[link].port

    def cut(self, link: str) -> None:
        """Lose from now on what is sent over a link, in both directions."""
        _ip("link", "set", self._links[link], "down")

    def mend(self, link: str) -> None:
        """Let a link pass again what is sent."""
        _ip("link", "set", self._links[link], "up")

    def _inside(self, *words: str) -> None:
        _ip("-n", self.name, *words)


def _free_network() -> str:
    taken = _ip("-oneline", "addr", "show")
    free = [network for network in _NETWORKS if f" {network}." not in taken]
    return secrets.choice(free)


def _ip(*words: str) -> str:
    return subprocess.run(("ip", *words), check=True, capture_output=True, text=True, timeout=30).stdout

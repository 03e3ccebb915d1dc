# SPDX-License-Identifier: Apache-2.0
"""The contract between volmgr and whatever shows a block device or file to initiators.

A driver *has* a target. A target is told the whole of what an export should be and makes it so; it keeps nothing that
cannot be rebuilt from that. It knows no driver, no database and no RPC, only :mod:`volmgr.types`.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from volmgr import exception
from volmgr.types import ExportSpec, Grant, Json, ObservedExport, Portal


@dataclass(frozen=True)
class TargetConfig:
    """What every target is built with.

    :param prefix: what target names begin with; everything else is foreign and never touched.
    :param portals: where to listen, the first one is the primary portal.
    :param state_path: a private folder for sockets, logs and state files.
    :param timeout: seconds that a single request to the target's management may take.
    :param options: the backend's further options, by name.
    """

    prefix: str
    portals: tuple[Portal, ...]
    state_path: str
    timeout: float = 60.0
    options: dict[str, Any] = field(default_factory=dict)


class Target(abc.ABC):
    """One kind of target. All methods may be called from several threads; :meth:`sync` of one export never is."""

    #: ``iscsi``, ``iser``, ``fibre_channel``, ``aoe``: the ``driver_volume_type`` of its connection_info.
    protocol: ClassVar[str]
    #: whether an attached LUN can grow without an error that an initiator would not retry.
    grows_in_use: ClassVar[bool] = False
    #: whether a path may be a plain file, not only a block device.
    serves_files: ClassVar[bool] = True
    #: whether the target has an export that nobody is let in to; else nothing runs for it until somebody is.
    shows_ungranted: ClassVar[bool] = True
    #: whether several workers may sync the same exports: what one has made another one sees and changes.
    clustered: ClassVar[bool] = False
    #: WWPNs of the ports that all exports share, so that SQL numbers them for each initiator; none: a target for each.
    ports: tuple[str, ...] = ()

    def __init__(self, config: TargetConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def start(self) -> None:
        """Make the target ready: start or adopt its daemon, check its modules.

        :raises BackendDown: it cannot be had; the hint names the package, module or option.
        """

    @abc.abstractmethod
    def stop(self, *, and_exports: bool = False) -> None:
        """Let go of the target; with ``and_exports`` also end what it serves and the daemon that was started for it."""

    @abc.abstractmethod
    def check(self) -> None:
        """Return if the target answers now.

        :raises BackendDown: it does not.
        """

    @property
    def can_hold(self) -> bool:
        """Whether :meth:`hold` can."""
        return False

    @contextlib.contextmanager
    def hold(self, seconds: float) -> Iterator[None]:
        """Let every initiator wait for the length of a block: what was acknowledged before it is in the storage.

        :param seconds: after which everything goes on by itself. :raises Unsupported: this target cannot.
        :raises Timeout: the block took longer, so what was done in it is not of one instant.
        """
        raise exception.Unsupported(verb="hold", hint="Use tgtadm, with a tgtd of its own")
        yield

    @abc.abstractmethod
    def validate_connector(self, connector: dict[str, Any]) -> None:
        """Check that a connector has what this transport needs.

        :raises InvalidConnector: naming what is missing.
        """

    def admit(self, initiator: str) -> None:
        """Make an initiator known that attaches nothing yet, where one must be before it logs in.

        :raises Unsupported: this target needs no such thing.
        """
        raise exception.Unsupported(verb="initiator_add", hint="Only Fibre Channel needs it")

    @abc.abstractmethod
    def sync(self, spec: ExportSpec) -> bool:
        """Make the export exactly what ``spec`` says, from whatever is there now.

        Complete before visible: LUN, serial and account first, the access list last. A revoked grant loses its access
        and its sessions before this returns. Nothing that is not named by ``spec`` changes.

        :returns: whether anything had to be changed.
        :raises BackendDown: the target does not answer. :raises NoSpace: it has no number left.
        """

    @abc.abstractmethod
    def connection(self, spec: ExportSpec, grant: Grant) -> dict[str, Json]:
        """Return the ``data`` of connection_info for one grant; pure, it asks nobody.

        CHAP's password is in it in the clear: it goes to the caller alone.
        """

    @abc.abstractmethod
    def observe(self) -> Sequence[ObservedExport]:
        """Return all exports with our prefix, in a constant number of requests."""

    def present(self) -> frozenset[str]:
        """Return the names of our exports that the target has; for a heartbeat, so it should be cheap."""
        return frozenset(item.target_name for item in self.observe())

    def rebuild(self, specs: Sequence[ExportSpec], progress: Callable[[int], None] | None = None) -> int:
        """Sync many exports after a start; returns how many had to be changed."""
        changed = 0
        for index, spec in enumerate(specs, 1):
            changed += bool(self.sync(spec))
            if progress is not None:
                progress(index)
        return changed

    def location(self, spec: ExportSpec) -> str:
        """Return ``provider_location``: ``ip:port[;ip:port],tid iqn lun``, as clients of this tree parse it."""
        portals = ";".join(str(portal) for portal in self.config.portals)
        return f"{portals},1 {spec.target_name} {spec.lun}"

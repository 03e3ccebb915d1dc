# SPDX-License-Identifier: Apache-2.0
"""One command's connection to the daemon: configuration, client and the caller's context.

Names are accepted where ids are, see :meth:`Session.find`. This module prints nothing.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from volmgr import context, exception, names

if TYPE_CHECKING:
    from volmgr.conf.loading import Configuration
    from volmgr.rpc.client import VolumeAPI

STATE_PATH_VARIABLE = "OS_DEFAULT__STATE_PATH"
SHOWN_CANDIDATES = 5

#: Errors by noun, for a name that nothing has.
MISSING: dict[str, type[exception.NotFound]] = {
    "volume": exception.VolumeNotFound,
    "snapshot": exception.SnapshotNotFound,
    "group": exception.GroupNotFound,
    "cgsnapshot": exception.CgSnapshotNotFound,
    "backup": exception.BackupNotFound,
}


def configuration(options: argparse.Namespace) -> Configuration:
    """Return the configuration that the global options lead to.

    The state folder goes by way of the environment, as other options' defaults are made from it while they are loaded.

    :raises InvalidConfiguration: a file is missing, or a value is wrong.
    """
    from volmgr import conf as volmgr_conf

    if options.state_path:
        os.environ[STATE_PATH_VARIABLE] = os.path.abspath(options.state_path)
    return volmgr_conf.load([word for path in options.config_file or () for word in ("--config-file", path)])


class Session:
    """A client and whom it acts for.

    :param api: the client. :param project: acts for this project only; None means every project.
    """

    def __init__(self, api: VolumeAPI, project: str | None = None) -> None:
        self.api = api
        self.project = project

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> Session:
        """Return the session of the global options."""
        from volmgr.rpc.client import VolumeAPI

        return cls(VolumeAPI(options.transport_url, conf=configuration(options)), options.project)

    def context(self) -> context.RequestContext:
        """Return a new request's context. The daemon decides what its peer may do; a context only narrows that."""
        if self.project:
            return context.RequestContext(project_id=self.project, roles=[context.MEMBER], overwrite=False)
        return context.admin()

    def call(self, verb: str, **arguments: Any) -> Any:
        """Send one request; arguments that are None are left to the daemon's defaults."""
        given = {key: value for key, value in arguments.items() if value is not None}
        return getattr(self.api, verb)(self.context(), **given)

    def listing(self, noun: str, **arguments: Any) -> list[dict[str, Any]]:
        """Return a page of a noun's list."""
        verb = f"list_{noun}" if noun.endswith("s") else f"list_{noun}s"
        found: list[dict[str, Any]] = self.call(verb, **arguments)
        return found

    def find(self, noun: str, given: str) -> str:
        """Return the id that ``given`` means: an id as it is, else the only ``noun`` of that name.

        :param noun: one of :data:`MISSING`.
        :raises NotFound: nothing has the name. :raises Invalid: several have it; the hint lists them.
        """
        if names.is_uuid(given):
            return given
        found = self.listing(noun, filters={"display_name": given}, limit=SHOWN_CANDIDATES + 1)
        if not found:
            raise MISSING[noun](
                f"No {noun} has the name or id {given!r}", hint=f"Run: volmgr {noun} list", id=given
            )
        if len(found) > 1:
            shown = ", ".join(f"{item['id']} ({item['status']})" for item in found[:SHOWN_CANDIDATES])
            more = ", …" if len(found) > SHOWN_CANDIDATES else ""
            raise exception.Invalid(
                f"{len(found) if not more else 'Many'} {noun}s have the name {given!r}",
                hint=f"Give the id: {shown}{more}",
                field=noun,
            )
        return str(found[0]["id"])

# SPDX-License-Identifier: Apache-2.0
"""``volmgr attach`` and ``volmgr detach``: a volume as a block device of this host, with os-brick.

The whole chain is the same as a compute service's: reserve, connect, complete; if a step fails, what came before it is
taken back. This module knows no protocol.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
from typing import Any

from volmgr import exception
from volmgr.cli import base, session, volume

Parser = argparse.ArgumentParser


def _connector(command: base.Common, multipath: bool) -> Any:
    """Return the connector of this host; it needs root."""
    from volmgr import connector

    if os.geteuid() != 0:
        raise exception.Forbidden(
            "Only root can attach block devices", hint="Run it as root; for the steps alone: volmgr attachment create"
        )
    state_path = session.configuration(command.app.options).state_path
    return connector.HostConnector(lock_path=os.path.join(state_path, "locks"), multipath=multipath)


def _add_common(parser: Parser) -> None:
    volume.add_volume(parser)
    parser.add_argument("--multipath", action="store_true", help="all paths of the volume, with multipathd")


class Attach(base.Show):
    """Attach a volume to this host."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_common(parser)
        parser.add_argument("--mode", choices=("rw", "ro"), default="rw", help="what may be done (default: rw)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        host = _connector(self, parsed_args.multipath)
        volume_id = self.session.find("volume", parsed_args.volume)
        properties = host.properties()
        attachment_id = base.new_id(None)
        self.session.call(
            "attachment_create", attachment_id=attachment_id, volume_id=volume_id, mode=parsed_args.mode
        )
        with contextlib.ExitStack() as undo:
            undo.callback(self.session.call, "attachment_delete", volume_id=volume_id, attachment_id=attachment_id)
            info = self.session.call(
                "attachment_update", volume_id=volume_id, connector=properties, attachment_id=attachment_id
            )
            device = host.connect(info)
            undo.callback(host.disconnect, info)
            self.session.call("attachment_complete", attachment_id=attachment_id)
            undo.pop_all()
        return self.fields({"device": device, "volume_id": volume_id, "attachment_id": attachment_id})


class Detach(base.Common):
    """Detach a volume from this host."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_common(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        host = _connector(self, parsed_args.multipath)
        volume_id = self.session.find("volume", parsed_args.volume)
        found = own_attachment(self.session.call("get_volume", volume_id=volume_id), socket.gethostname())
        # The connection is asked for again: the same connector gets the same answer, and no secret is kept on disk.
        info = self.session.call(
            "attachment_update",
            volume_id=volume_id,
            connector=found["connector"] or host.properties(),
            attachment_id=found["id"],
        )
        host.disconnect(info)
        self.session.call("attachment_delete", volume_id=volume_id, attachment_id=found["id"])
        self.say(f"volume {volume_id} is detached")
        return 0


def own_attachment(found: dict[str, Any], host_name: str) -> dict[str, Any]:
    """Return the attachment of a volume to this very host.

    :raises NotFound: it has none. Attachments of instances are their compute service's and are never chosen.
    """
    own = [
        item
        for item in found["attachments"]
        if item["host_name"] == host_name and item["instance_uuid"] is None and item["connector"]
    ]
    if not own:
        raise exception.AttachmentNotFound(
            f"The volume {found['id']} is not attached to the host {host_name}",
            hint=f"Run: volmgr attachment list --volume {found['id']}",
            id=found["id"],
        )
    chosen: dict[str, Any] = own[0]
    return chosen

# SPDX-License-Identifier: Apache-2.0
"""Commands over a volume's place and type, its replica, and the failover of backends."""

from __future__ import annotations

import argparse
from typing import Any

from volmgr.cli import base, service, volume

Parser = argparse.ArgumentParser


class Retype(base.WaitShow):
    """Give a volume another type."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        volume.add_volume(parser)
        parser.add_argument("type", help="name or id of the new type")
        parser.add_argument(
            "--migration-policy", choices=("never", "on-demand"), default="never",
            help="whether it may move to another backend for that (default: never)",
        )
        parser.add_argument("--host", metavar="HOST", help="where to, if it has to move (default: it is placed)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given, volume_id = parsed_args, self.session.find("volume", parsed_args.volume)
        self.submit(
            given, "retype", volume_id=volume_id, new_type_id=given.type, host=given.host,
            migration_policy=given.migration_policy,
        )
        return self.fields(self.session.call("get_volume", volume_id=volume_id))


class Migrate(base.WaitShow):
    """Move a volume to another backend."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        volume.add_volume(parser)
        parser.add_argument("host", help="host@backend or host@backend#pool, see: volmgr backend list")
        parser.add_argument("--type", metavar="TYPE", help="give it this type, too")
        parser.add_argument("--force-host-copy", action="store_true", help="copy, even if the driver could move it")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given, volume_id = parsed_args, self.session.find("volume", parsed_args.volume)
        self.submit(
            given, "migrate_volume", volume_id=volume_id, host=given.host, new_type_id=given.type,
            force_host_copy=given.force_host_copy,
        )
        return self.fields(self.session.call("get_volume", volume_id=volume_id))


class Complete(base.WaitShow):
    """Let a volume be the new one that it was copied to while it was in use."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        volume.add_volume(parser)
        parser.add_argument("new", help="name or id of the new volume, on the other backend; its row goes")
        parser.add_argument("--error", action="store_true", help="the copy has failed: the new volume goes")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        given, volume_id = parsed_args, self.session.find("volume", parsed_args.volume)
        new = self.session.find("volume", given.new)
        self.submit(given, "migrate_volume_completion", volume_id=volume_id, new_volume_id=new, error=given.error)
        return self.fields(self.session.call("get_volume", volume_id=volume_id))


class _OfReplica(base.WaitShow):
    """A verb about a volume's replica."""

    verb: str

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        volume.add_volume(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        volume_id = self.session.find("volume", parsed_args.volume)
        self.submit(parsed_args, self.verb, volume_id=volume_id)
        return self.fields(self.session.call("get_volume", volume_id=volume_id))


class Promote(_OfReplica):
    """Let a volume's replica take its place; what the replica does not have yet is lost."""

    verb = "promote_replica"


class Reenable(_OfReplica):
    """Let a volume's replica follow it again."""

    verb = "reenable_replication"


class Failover(base.Waiter):
    """Let a backend work on its replication target."""

    wait_default = True

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("host", help="host@backend, or the backend's name where it is the only one")
        where = parser.add_mutually_exclusive_group()
        where.add_argument("--to", metavar="ID", help="the replication target (default: the only one)")
        where.add_argument("--back", action="store_true", help="to the storage that it began on")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        host = service.chosen(self.session.listing("service"), parsed_args.host)["host"]
        target = "default" if parsed_args.back else parsed_args.to
        self.submit(parsed_args, "failover_host", host=host, secondary_backend_id=target)
        found = service.chosen(self.session.listing("service"), host)
        self.say(f"{host} works on {found['active_backend_id'] or 'its first storage'}")
        return 0


class Freeze(base.Common):
    """Let a backend take no creation and no change; attaching and detaching go on."""

    verb, done = "freeze_host", "is frozen"

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("host", help="host@backend, or the backend's name where it is the only one")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        host = service.chosen(self.session.listing("service"), parsed_args.host)["host"]
        if self.session.call(self.verb, host=host):
            self.say(f"{host} {self.done}")
            return 0
        self.say(f"{host} stays as it is: its backend does not agree; the log of volmgr-volume says why")
        return 1


class Thaw(Freeze):
    """Let a backend take changes again."""

    verb, done = "thaw_host", "takes changes again"

# SPDX-License-Identifier: Apache-2.0
"""``volmgr local …``: a backend's driver used straight from the configuration, without daemon, broker or database.

Volumes are known by the ids of their objects; there are no names, no quotas, no journal. This module knows no driver.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from volmgr import exception
from volmgr.cli import base, session
from volmgr.cli.attachment import connector_file, hide

if TYPE_CHECKING:
    from volmgr.local import LocalBackend
    from volmgr.types import Snapshot, Volume

Parser = argparse.ArgumentParser


class Local(base.Common):
    """A command over one backend."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--backend", metavar="NAME", help="the backend's section; not needed if there is only one")
        return parser

    @contextlib.contextmanager
    def backend(self, parsed: argparse.Namespace) -> Iterator[LocalBackend]:
        """Give the backend; what takes long shows its progress on a terminal."""
        from volmgr import local
        from volmgr.drivers import progress

        conf = session.configuration(self.app.options)
        with progress.reporting(self._tell), local.opened(conf, parsed.backend) as found:
            yield found

    def _tell(self, fraction: float) -> None:
        if self.app.options.verbose_level and self.app.stderr.isatty():
            self.app.stderr.write(f"\r{fraction:.1%} ")


class Shown(Local, base.Show):
    """A command that prints one thing."""

    def made(self, backend: LocalBackend, resource: Volume | Snapshot) -> Any:
        """Return a volume or snapshot as cliff wants it."""
        from volmgr.drivers.interfaces import supports

        path = backend.driver.local_path(resource) if supports(backend.driver, "local_path") else None
        return self.fields({"id": resource.id, "name": resource.name, "size": resource.size, "path": path})


def _add_id(parser: Parser, noun: str) -> None:
    parser.add_argument("id", type=base.an_id, metavar="ID", help=f"id of the {noun}, see: volmgr local list")


def _add_new_id(parser: Parser) -> None:
    parser.add_argument("--id", dest="new_id", type=base.an_id, metavar="UUID", help="its id (default: random)")


class Check(Shown):
    """Check that a backend can be used and show what it can do."""

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        with self.backend(parsed_args) as backend:
            return self.fields(backend.describe())


class Stats(Local, base.Lister):
    """Show how full a backend is."""

    shown = ("pool_name", "total_capacity_gb", "free_capacity_gb", "allocated_capacity_gb", "provisioned_capacity_gb")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        with self.backend(parsed_args) as backend:
            return self.table(parsed_args, backend.pools())


class List(Local, base.Lister):
    """List what a backend has under volmgr's names."""

    shown = ("object_id", "kind", "state", "size_bytes", "name")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        with self.backend(parsed_args) as backend:
            return self.table(parsed_args, [dataclasses.asdict(item) for item in backend.objects()])


class Create(Shown):
    """Make a volume."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--size", type=base.positive, required=True, metavar="GIB", help="its size")
        _add_new_id(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        with self.backend(parsed_args) as backend:
            return self.made(backend, backend.create(parsed_args.size, parsed_args.new_id))


class Clone(Shown):
    """Make a volume with the bytes of a volume or snapshot."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_id(parser, "volume or snapshot")
        parser.add_argument("--size", type=base.positive, metavar="GIB", help="its size (default: the source's)")
        _add_new_id(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        with self.backend(parsed_args) as backend:
            return self.made(backend, backend.clone(parsed_args.id, parsed_args.size, parsed_args.new_id))


class TakeSnapshot(Shown):
    """Take a snapshot of a volume."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_id(parser, "volume")
        _add_new_id(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        with self.backend(parsed_args) as backend:
            return self.made(backend, backend.snapshot(parsed_args.id, parsed_args.new_id))


class Extend(Shown):
    """Make a volume larger."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_id(parser, "volume")
        parser.add_argument("size", type=base.positive, metavar="GIB", help="its new size")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        with self.backend(parsed_args) as backend:
            return self.made(backend, backend.extend(parsed_args.id, parsed_args.size))


class Delete(Local):
    """Remove a volume or snapshot at once, past the trash."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_id(parser, "volume or snapshot")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        with self.backend(parsed_args) as backend:
            backend.delete(parsed_args.id)
        return 0


class Export(Shown):
    """Let one host use a volume, and nobody else."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_id(parser, "volume")
        parser.add_argument(
            "--connector", type=connector_file, metavar="FILE", required=True,
            help="JSON file with the host's connector, as os-brick makes it (-: standard input)",
        )
        parser.add_argument("--show-secrets", action="store_true", help="print the CHAP password too")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        with self.backend(parsed_args) as backend:
            info = backend.export(parsed_args.id, parsed_args.connector)
        return self.fields(hide(info, show=parsed_args.show_secrets))


class Unexport(Local):
    """End the export of a volume."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_id(parser, "volume")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        with self.backend(parsed_args) as backend:
            backend.unexport(parsed_args.id)
        return 0


def _host(backend: LocalBackend) -> Any:
    from volmgr import connector

    if os.geteuid() != 0:
        raise exception.Forbidden(
            "Only root can attach block devices", hint="Run it as root; for another host: volmgr local export"
        )
    return connector.HostConnector(lock_path=os.path.join(backend.conf.state_path, "locks"))


def _connector(host: Any, backend: LocalBackend) -> dict[str, Any]:
    # A driver without a target serves its own host alone, by the name that the backend has for it.
    return {**host.properties(), "host": backend.conf.host}


class Attach(Shown):
    """Attach a volume to this host as a block device."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_id(parser, "volume")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        with self.backend(parsed_args) as backend:
            host = _host(backend)
            with contextlib.ExitStack() as undo:
                info = backend.export(parsed_args.id, _connector(host, backend))
                undo.callback(backend.unexport, parsed_args.id)
                device = host.connect(info)
                undo.pop_all()
        return self.fields({"device": device, "volume_id": parsed_args.id})


class Detach(Local):
    """Detach a volume from this host and end its export."""

    def get_parser(self, prog_name: str) -> Parser:
        parser = super().get_parser(prog_name)
        _add_id(parser, "volume")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        with self.backend(parsed_args) as backend:
            host = _host(backend)
            host.disconnect(backend.connection(parsed_args.id, _connector(host, backend)))
            backend.unexport(parsed_args.id)
        self.say(f"volume {parsed_args.id} is detached")
        return 0

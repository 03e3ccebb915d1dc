# SPDX-License-Identifier: Apache-2.0
"""Reads ``storpool.conf``: where the API is, the token, and which client id a host has. Knows no volume.

The file is what StorPool's own tools read: ``NAME=value`` lines, then sections by host name whose values count on
that host. Files in ``storpool.conf.d`` beside it follow in their order, the environment has the last word. os-brick
reads the same on compute hosts; unlike it, this needs no file where the environment says all.
"""

from __future__ import annotations

import configparser
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from volmgr import exception
from volmgr.types import Secret

ENVIRONMENT = ("SP_AUTH_TOKEN", "SP_API_HTTP_HOST", "SP_API_HTTP_PORT")
DEFAULTS = {"SP_API_HTTP_HOST": "127.0.0.1", "SP_API_HTTP_PORT": "81", "SP_OPENSTACK_VOLUME_PREFIX": "os"}
#: The greatest id that a client can have (``ClientId`` of package storpool, sptypes).
MAX_CLIENT = 4095
_COMMON = "UNNAMED"


@dataclass(frozen=True)
class StorPoolConfig:
    """What ``storpool.conf`` says.

    ``clients`` is host → SP_OURID as it was written, ``cluster`` tells clusters apart, ``node`` is this host's name.
    """

    host: str
    port: int
    token: Secret
    prefix: str
    cluster: str
    node: str
    clients: Mapping[str, str] = field(default_factory=dict)

    def client_id(self, host: str) -> int:
        """Return the id of a host's StorPool client.

        :raises Invalid: the configuration has none for it, or none that can be one.
        """
        text = self.clients.get(host)
        if text is None:
            raise exception.Invalid(
                f"storpool.conf has no client id for the host {host}",
                hint=f"Add a section [{host}] with SP_OURID to storpool.conf on this host",
                field="connector",
            )
        if not text.isdecimal() or not 1 <= int(text) <= MAX_CLIENT:
            raise exception.Invalid(
                f"SP_OURID of the host {host} in storpool.conf is {text!r}, not a number from 1 to {MAX_CLIENT}",
                hint="Mend storpool.conf on this host",
                field="connector",
            )
        return int(text)


def read(file: Path, *, node: str | None = None, environment: Mapping[str, str] | None = None) -> StorPoolConfig:
    """Return the configuration.

    :param file: ``storpool.conf``. :param node: this host's name, by which it finds its own section.
    :raises InvalidConfiguration: something is missing or wrong.
    """
    node = node or platform.node()
    environment = os.environ if environment is None else environment
    told = {name: environment[name] for name in ENVIRONMENT if name in environment}
    parser = _parse(file, needed=len(told) < len(ENVIRONMENT))
    common = dict(parser[_COMMON]) if parser.has_section(_COMMON) else {}
    own = {**common, **(dict(parser[node]) if parser.has_section(node) else {})}
    values = {name: value.strip() for name, value in {**DEFAULTS, **own, **told}.items() if value is not None}
    if not values.get("SP_AUTH_TOKEN"):
        raise exception.InvalidConfiguration(
            reason=f"{file} has no SP_AUTH_TOKEN", hint="Copy storpool.conf from a node of the cluster"
        )
    port = values["SP_API_HTTP_PORT"]
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise exception.InvalidConfiguration(reason=f"SP_API_HTTP_PORT of {file} is {port!r}, not a TCP port")
    # An id in the common part is this host's own: it must not be taken for that of every host without a section.
    clients = {name: parser[name]["SP_OURID"] for name in parser.sections() if parser[name].get("SP_OURID")}
    clients.pop(_COMMON, None)
    if values.get("SP_OURID"):
        clients[node] = values["SP_OURID"]
    return StorPoolConfig(
        host=values["SP_API_HTTP_HOST"],
        port=int(port),
        token=Secret(values["SP_AUTH_TOKEN"]),
        prefix=values["SP_OPENSTACK_VOLUME_PREFIX"],
        cluster=values.get("SP_CLUSTER_ID") or f"{values['SP_API_HTTP_HOST']}:{port}",
        node=node,
        clients={name: text.strip() for name, text in clients.items()},
    )


def _parse(file: Path, *, needed: bool) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(
        strict=False, allow_no_value=True, interpolation=None, delimiters=("=",), default_section=""
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    folder = file.with_name(file.name + ".d")
    further = sorted(folder.glob("*.conf")) if folder.is_dir() else []
    if needed and not file.is_file():
        raise exception.InvalidConfiguration(
            reason=f"{file} is not there", hint="Install StorPool's configuration, or set storpool_config_file"
        )
    for path in [file, *further]:
        if not path.is_file() or path.name.startswith("."):
            continue
        try:
            parser.read_string(f"[{_COMMON}]\n{path.read_text()}", str(path))
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            raise exception.InvalidConfiguration(reason=f"{path} cannot be read: {error}") from error
    return parser

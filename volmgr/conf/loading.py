# SPDX-License-Identifier: Apache-2.0
"""Reads the configuration and checks all of it at once, so that an operator mends every mistake in one round.

The configuration is an object of its own, never oslo.config's global one: a process can have several.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from oslo_config import cfg

from volmgr import __version__, exception, logs
from volmgr.conf import groups, opts, rpc
from volmgr.conf.backend import BackendConfiguration

CONFIG_FILE = "/etc/volmgr/volmgr.conf"
CONFIG_DIR = "/etc/volmgr/volmgr.conf.d"
# Without a word from the operator nothing listens beyond this host.
EMBEDDED_DEFAULTS = {"volume_driver": "file", "target_helper": "tgtadm", "target_ip_address": "127.0.0.1"}
_BACKEND_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")


class Configuration(cfg.ConfigOpts):
    """The options of this process."""

    @property
    def embedded(self) -> bool:
        """Whether the database is this host's own file, which is made and upgraded without being asked."""
        return str(self.database.connection).startswith("sqlite")

    @property
    def transport_url(self) -> str:
        """Where requests come from; oslo.messaging's option, read when it is wanted first."""
        if rpc.TRANSPORT_OPTION not in self._opts:
            rpc.register_transport(self)
        return str(super().__getattr__(rpc.TRANSPORT_OPTION))


def load(argv: Sequence[str] = (), *, prog: str | None = None) -> Configuration:
    """Return the configuration of a process, checked.

    Values come from the command line, the environment (``OS_<GROUP>__<OPTION>``), the files named by ``--config-file``
    and ``--config-dir`` (by default ``/etc/volmgr/volmgr.conf`` and ``volmgr.conf.d`` beside it), and the defaults.

    :param argv: the command line without the program's name. :param prog: the program's name, for its usage.
    :raises InvalidConfiguration: something is wrong; the message lists everything that is.
    :raises SystemExit: the command line is wrong; its usage was printed.
    """
    from oslo_log import log

    conf = Configuration()
    log.register_options(conf)
    conf.set_default("logging_context_format_string", logs.FORMAT)
    opts.register_all(conf)
    try:
        conf(
            list(argv),
            project="volmgr",
            prog=prog,
            version=__version__,
            default_config_files=[CONFIG_FILE] if os.path.exists(CONFIG_FILE) else [],
            default_config_dirs=[CONFIG_DIR] if os.path.isdir(CONFIG_DIR) else [],
        )
    except cfg.Error as error:
        raise exception.InvalidConfiguration(reason=str(error)) from error
    problems = [*_bad_values(conf), *_contradictions(conf)]
    if problems:
        raise exception.InvalidConfiguration(
            reason="; ".join(problems), hint=f"Mend {', '.join(conf.config_file or ()) or 'the environment'}"
        )
    return conf


def backends(conf: Configuration) -> list[BackendConfiguration]:
    """Return the options of every backend; without ``enabled_backends``, of the one that needs no configuration."""
    if not conf.enabled_backends:
        made = BackendConfiguration(conf, groups.EMBEDDED)
        for name, value in EMBEDDED_DEFAULTS.items():
            conf.set_default(name, value, group=groups.EMBEDDED)
        return [made]
    return [BackendConfiguration(conf, name) for name in conf.enabled_backends]


def _bad_values(conf: Configuration) -> list[str]:
    """Read every option once: oslo.config checks a value only when it is read."""
    problems = _bad_backends(conf)
    if not problems:
        backends(conf)
    for info, group in conf._all_opt_infos():
        opt, place = info["opt"], group.name if group else "DEFAULT"
        try:
            getattr(conf[group.name] if group else conf, opt.dest)
        except (cfg.Error, ValueError) as error:
            problems.append(f"[{place}] {opt.name}: {'not valid' if opt.secret else _reason(error)}")
    return problems


def _reason(error: Exception) -> str:
    # oslo.config's own text begins with the option and where it comes from.
    return str(error).rpartition("is not valid: ")[2]


def _bad_backends(conf: Configuration) -> list[str]:
    try:
        names = list(conf.enabled_backends)
    except (cfg.Error, ValueError):
        return []  # reported with the other values
    problems = []
    sections = set(conf.list_all_sections())
    reserved = {"DEFAULT", *conf._groups}
    for name in names:
        if not _BACKEND_NAME.match(name) or name in reserved:
            problems.append(f"[DEFAULT] enabled_backends: {name!r} cannot be the name of a backend")
        elif name not in sections:
            problems.append(f"[DEFAULT] enabled_backends: there is no section [{name}]")
    if len(set(names)) != len(names):
        problems.append("[DEFAULT] enabled_backends: a backend is named twice")
    return problems


def _shared_portals(conf: Configuration) -> bool:
    """Return whether two backends would each run a tgtd on one port: tgtd takes another port without an error."""
    found = [BackendConfiguration(conf, name) for name in conf.enabled_backends if name in conf._groups]
    ports = [item.target_port for item in found if item.target_helper == "tgtadm" and not item.tgt_socket]
    return len(ports) != len(set(ports))


def _bad_expressions(backend: BackendConfiguration) -> list[str]:
    from volmgr.scheduler import expression

    problems = []
    for name in ("filter_function", "goodness_function"):
        try:
            if text := getattr(backend, name):
                expression.compiled(text)
        except expression.ExpressionError as error:
            problems.append(f"[{backend.config_group}] {name}: {error.message}")
        except (cfg.Error, ValueError):
            continue  # it is reported already
    return problems


def _bad_stores(conf: Configuration) -> list[str]:
    from volmgr.backups.store import parse_url

    problems = []
    try:
        urls = {"[DEFAULT] backup_store": conf.backup_store} if conf.backup_store else {}
        urls |= {f"[backup] stores: {name}": url for name, url in conf.backup.stores.items()}
    except (cfg.Error, ValueError):
        return []  # it is reported already
    for place, url in urls.items():
        try:
            parse_url(url)
        except exception.InvalidConfiguration as error:
            problems.append(f"{place}: {error.details['reason']}")
    return problems


def _contradictions(conf: Configuration) -> list[str]:
    """Return what is wrong between options that are right by themselves."""
    problems = _bad_stores(conf)

    def check(wrong: Any, problem: str) -> None:
        try:
            if wrong():
                problems.append(problem)
        except (cfg.Error, ValueError, AttributeError, exception.VolmgrError):
            return  # an option of it is reported already

    check(
        lambda: conf.service_down_time <= conf.report_interval,
        "[DEFAULT] service_down_time must be more than report_interval",
    )
    check(lambda: not os.path.isabs(conf.state_path), "[DEFAULT] state_path must be an absolute path")
    check(
        lambda: _shared_portals(conf), "[DEFAULT] enabled_backends: two backends with tgtadm have the same target_port"
    )
    for name in [groups.EMBEDDED] if not conf.enabled_backends else conf.enabled_backends:
        if name in conf._groups:
            problems += _bad_expressions(BackendConfiguration(conf, name))
            check(
                lambda group=name: BackendConfiguration(conf, group).aoe_last_shelf_id
                < BackendConfiguration(conf, group).aoe_first_shelf_id,
                f"[{name}] aoe_last_shelf_id must not be less than aoe_first_shelf_id",
            )
    return problems

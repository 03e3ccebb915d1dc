# SPDX-License-Identifier: Apache-2.0
"""The configuration: one module per topic, loaded into an object of its own, checked as a whole.

Nothing here is global: two deployments can be loaded side by side. With no config file there is one implicit backend,
``[embedded]``: files served by tgt under the state folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oslo_config import cfg

from volmgr import exception
from volmgr.conf import backend as backend_options
from volmgr.conf import database, default, quota, rpc
from volmgr.drivers.options import Configuration

PROJECT = "volmgr"
EMBEDDED = "embedded"
EMBEDDED_OPTIONS = {"volume_driver": "file", "target_helper": "tgtadm"}


class Backend(Configuration):
    """The options of one backend: its own group first, then ``[backend_defaults]``, then the defaults."""

    def __init__(self, conf: cfg.ConfigOpts, group: str, defaults: dict[str, Any] | None = None) -> None:
        self._deployment = conf
        self._fallback = dict(defaults or {})
        super().__init__(group=group)
        self.append_config_values(backend_options.OPTS)

    def append_config_values(self, opts: Any) -> None:
        """Define further options, in the backend's group and in ``[backend_defaults]``."""
        super().append_config_values(opts)
        for group in (self.config_group, "backend_defaults"):
            for opt in opts:
                if opt.dest not in default_names():
                    try:
                        self._deployment.register_opt(opt, group=group)
                    except cfg.DuplicateOptError:
                        continue

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        for group in (self.config_group, "backend_defaults"):
            if _is_set(self._deployment, group, name):
                return getattr(self._deployment[group], name)
        if name in self._fallback:
            return self._fallback[name]
        if name in default_names():
            return getattr(self._deployment, name)
        try:
            return getattr(self._deployment.backend_defaults, name)
        except cfg.NoSuchOptError:
            return super().__getattr__(name)


def default_names() -> frozenset[str]:
    """Return the names of the deployment's own options."""
    return frozenset(opt.dest for opt in default.OPTS)


def _is_set(conf: cfg.ConfigOpts, group: str, name: str) -> bool:
    try:
        location = conf.get_location(name, group=group)
    except (cfg.NoSuchOptError, cfg.NoSuchGroupError):
        return False
    return location is not None and location.location not in (cfg.Locations.opt_default, cfg.Locations.set_default)


def load(argv: list[str], *, config_files: list[str] | None = None) -> cfg.ConfigOpts:
    """Return the configuration of a command line and its files.

    :param argv: without the program's name. :param config_files: instead of those that are found by themselves.
    :raises InvalidConfiguration: an option or a file is wrong; every wrong value is named.
    """
    from oslo_log import log

    conf = cfg.ConfigOpts()
    for module in (default, backend_options, database, quota, rpc):
        module.register_opts(conf)
    log.register_options(conf)
    conf.set_default("default_log_levels", [*log.get_default_log_levels(), "taskflow=WARN", "alembic=WARN"])
    try:
        conf(argv, project=PROJECT, prog="volmgr", default_config_files=config_files)
    except (cfg.Error, cfg.ConfigFilesNotFoundError) as error:
        raise exception.InvalidConfiguration(reason=str(error)) from error
    conf.register_opt(cfg.BoolOpt("is_embedded", default=False, advanced=True, help="Set by itself: no backend is named"))
    conf.set_override("is_embedded", not conf.enabled_backends and conf.database.connection.startswith("sqlite"))
    _check(conf)
    return conf


def backends(conf: cfg.ConfigOpts) -> list[Backend]:
    """Return the options of every backend to serve."""
    if not conf.enabled_backends:
        return [Backend(conf, EMBEDDED, EMBEDDED_OPTIONS)]
    return [Backend(conf, name) for name in conf.enabled_backends]


def _check(conf: cfg.ConfigOpts) -> None:
    """Read every option once, so that all that are wrong are named together."""
    wrong = []
    groups = {"DEFAULT": default.OPTS, "database": database.OPTS, "quota": quota.OPTS}
    groups |= {name: backend_options.OPTS for name in ("backend_defaults", *(conf.enabled_backends or ()))}
    for group, opts in groups.items():
        if group not in ("DEFAULT", "database", "quota", "backend_defaults"):
            conf.register_opts(opts, group=group)
        for opt in opts:
            try:
                getattr(conf if group == "DEFAULT" else conf[group], opt.dest)
            except (cfg.Error, ValueError) as error:
                wrong.append(f"[{group}] {opt.name}: {error}")
    if not Path(conf.state_path).is_absolute():
        wrong.append(f"[DEFAULT] state_path: {conf.state_path} is not an absolute path")
    if wrong:
        raise exception.InvalidConfiguration(reason="; ".join(wrong), hint="Mend the options that are named")

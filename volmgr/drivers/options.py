# SPDX-License-Identifier: Apache-2.0
"""A backend's options as drivers read them: attributes, whether they come from oslo.config or from a plain dict.

A ten-line script can therefore use a driver without configuration files. This module knows no driver's own options.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from oslo_config import cfg

LOG = logging.getLogger(__name__)

#: Options that every driver has.
DRIVER_OPTS: list[cfg.Opt] = [
    cfg.StrOpt("volume_backend_name", help="Name of the backend in capabilities; the group's name without it"),
    cfg.IntOpt("reserved_percentage", default=0, min=0, max=100, help="Percentage of the capacity that is kept free"),
    cfg.FloatOpt(
        "max_over_subscription_ratio",
        default=20.0,
        min=1.0,
        help="How many times the capacity may be promised to thin volumes",
    ),
    cfg.StrOpt("filter_function", help="Expression that says whether the backend may take a volume"),
    cfg.StrOpt("goodness_function", help="Expression that says how well, from 0 to 100, the backend suits a volume"),
    cfg.DictOpt("extra_capabilities", default={}, help="Further capabilities to report, as key:value pairs"),
    cfg.StrOpt("state_path", default="/var/lib/volmgr", help="Folder of everything that outlives the daemon"),
]


class Configuration:
    """Options by attribute.

    :param values: what was set; names without a definition are allowed, for drivers with options of their own.
    :param opts: definitions, which give types and defaults.
    :param group: the name of the backend's group, for messages and as the default backend name.
    """

    def __init__(
        self, values: Mapping[str, Any] | None = None, opts: Sequence[cfg.Opt] = (), group: str = "backend"
    ) -> None:
        self.config_group = group
        self._values: dict[str, Any] = dict(values or {})
        self._opts: dict[str, cfg.Opt] = {}
        self._conf: cfg.ConfigOpts | None = None
        self.append_config_values([*DRIVER_OPTS, *opts])

    @classmethod
    def from_group(cls, conf: cfg.ConfigOpts, group: str, opts: Sequence[cfg.Opt] = ()) -> Configuration:
        """Return the options of ``[group]``; one that is set only in ``[DEFAULT]`` counts for every backend."""
        made = cls(group=group)
        made._conf = conf
        made.append_config_values([*DRIVER_OPTS, *opts])
        return made

    def append_config_values(self, opts: Sequence[cfg.Opt]) -> None:
        """Define further options; a driver calls it with its own list."""
        for opt in opts:
            self._opts[opt.dest] = opt
            if self._conf is None:
                continue
            try:
                self._conf.register_opt(opt, group=self.config_group)
            except cfg.DuplicateOptError:
                LOG.debug("Option %s of [%s] is defined elsewhere already", opt.name, self.config_group)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._values:
            return self._values[name]
        if self._conf is not None:
            try:
                return self._from_conf(name)
            except cfg.NoSuchOptError:
                LOG.debug("Option %s of [%s] is not defined, its default counts", name, self.config_group)
        if name in self._opts:
            return self._opts[name].default
        raise AttributeError(f"the driver has no option {name}")

    def _from_conf(self, name: str) -> Any:
        assert self._conf is not None
        group = self._conf[self.config_group]
        opt = self._opts.get(name)
        if opt is not None:
            default, location = opt.default, self._conf.get_location(opt.name, group=self.config_group)
            if (location is None or location.location is cfg.Locations.opt_default) and hasattr(self._conf, name):
                return getattr(self._conf, name, default)
        return getattr(group, name)

    def safe_get(self, name: str) -> Any:
        """Return an option, or None if there is no such option."""
        return getattr(self, name, None)

# SPDX-License-Identifier: Apache-2.0
"""One backend's options: its own section, then ``[backend_defaults]``, then the deployment's, then the default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oslo_config import cfg

from volmgr.conf import groups, targets, volume

_UNSET = (cfg.Locations.opt_default, cfg.Locations.set_default)


class BackendConfiguration:
    """A backend's options by attribute, as drivers and targets read them.

    :param conf: the deployment's configuration. :param group: the backend's section, and its name.
    """

    def __init__(self, conf: cfg.ConfigOpts, group: str) -> None:
        self._conf = conf
        self._names: set[str] = set()
        self.config_group = group
        conf.register_group(cfg.OptGroup(group))
        self.append_config_values([*volume.ALL, *targets.OPTIONS])

    def __repr__(self) -> str:
        return f"BackendConfiguration({self.config_group!r})"

    def append_config_values(self, opts: Sequence[cfg.Opt]) -> None:
        """Define further options, as a driver does with its own list; those that are known already stay as they are."""
        for opt in opts:
            if opt.dest in self._names or self._is_global(opt.dest):
                continue
            self._names.add(opt.dest)
            for group in (self.config_group, groups.BACKEND_DEFAULTS):
                if opt.dest not in self._conf[group]:
                    self._conf.register_opt(opt, group=group)

    def _is_global(self, name: str) -> bool:
        return name in self._conf

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._names:
            if self._is_global(name):
                return getattr(self._conf, name)
            raise AttributeError(f"the backend {self.config_group} has no option {name}")
        for group in (self.config_group, groups.BACKEND_DEFAULTS):
            location = self._conf.get_location(name, group=group)
            if location is not None and location.location not in _UNSET:
                return self._conf[group][name]
        return self._conf[self.config_group][name]

    def safe_get(self, name: str) -> Any:
        """Return an option, or None if there is no such option."""
        return getattr(self, name, None)

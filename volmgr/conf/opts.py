# SPDX-License-Identifier: Apache-2.0
"""Collects the options of all topics, for registration and for the sample file.

Every module of this package is a topic and must have ``register_opts(conf)`` and ``list_opts()``; one that forgets
fails here, so that no option can be missing from the sample.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from oslo_config import cfg

from volmgr import conf as package

# These are not topics: they put the topics together.
_NOT_TOPICS = frozenset({"opts", "backend", "loading"})


def topics() -> list[ModuleType]:
    """Return the modules that have options.

    :raises TypeError: a module of this package lacks ``register_opts`` or ``list_opts``.
    """
    found = []
    for info in pkgutil.iter_modules(package.__path__):
        if info.name in _NOT_TOPICS:
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for name in ("register_opts", "list_opts"):
            if not callable(getattr(module, name, None)):
                raise TypeError(f"{module.__name__} has no {name}()")
        found.append(module)
    return found


def register_all(conf: cfg.ConfigOpts) -> None:
    """Register the options of every topic."""
    for module in topics():
        module.register_opts(conf)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return all options by group, for oslo-config-generator; the drivers' own are in ``[backend_defaults]``."""
    from volmgr.conf import groups
    from volmgr.drivers.file import FILE_OPTS

    merged: dict[str, list[cfg.Opt]] = {}
    for module in topics():
        for group, options in module.list_opts():
            merged.setdefault(group, []).extend(options)
    merged[groups.BACKEND_DEFAULTS].extend(FILE_OPTS)
    return list(merged.items())

# SPDX-License-Identifier: Apache-2.0
"""Finds the options of every module beside this one; a module that forgets to list them fails at once."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from oslo_config import cfg

import volmgr.conf


def modules() -> list[ModuleType]:
    """Return the modules that define options.

    :raises TypeError: one of them lacks ``register_opts`` or ``list_opts``.
    """
    found = []
    for item in pkgutil.iter_modules(volmgr.conf.__path__):
        if item.name == "opts":
            continue
        module = importlib.import_module(f"volmgr.conf.{item.name}")
        for name in ("register_opts", "list_opts"):
            if not hasattr(module, name):
                raise TypeError(f"{module.__name__} has no {name}")
        found.append(module)
    return found


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return every option by group, for oslo-config-generator."""
    from volmgr.drivers.file import FileDriver
    from volmgr.drivers.sim import SimDriver

    collected: dict[str, list[cfg.Opt]] = {}
    for module in modules():
        for group, opts in module.list_opts():
            collected.setdefault(group, []).extend(opts)
    for driver in (FileDriver, SimDriver):
        collected.setdefault("backend_defaults", []).extend(driver.get_driver_options())
    return list(collected.items())

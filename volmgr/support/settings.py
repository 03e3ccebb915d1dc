# SPDX-License-Identifier: Apache-2.0
"""The options of a configuration with their values, for people; those that are secret are told apart.

It reads oslo.config's registry, which has no public way to walk over all options.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from oslo_config import cfg

from volmgr.support import scrub


class Setting(NamedTuple):
    """An option and its value; ``where`` is where the value comes from."""

    group: str
    name: str
    value: Any
    secret: bool
    where: str


def settings(conf: cfg.ConfigOpts) -> Iterator[Setting]:
    """Yield every registered option; one whose value is not valid has the value None."""
    for info, group in conf._all_opt_infos():
        opt, place = info["opt"], group.name if group else "DEFAULT"
        try:
            value = getattr(conf[group.name] if group else conf, opt.dest)
        except (cfg.Error, ValueError):
            value = None
        location = conf.get_location(opt.dest, group.name if group else None)
        yield Setting(place, opt.name, value, bool(opt.secret), location.location.name if location else "unknown")


def secret_values(conf: cfg.ConfigOpts) -> Iterator[str]:
    """Yield every secret in the configuration: what its secret options hold, and every password in a URL."""
    for item in settings(conf):
        if item.secret or "//" in str(item.value):
            yield from scrub.parts_of(item.value)


def text(conf: cfg.ConfigOpts) -> str:
    """Return all options as a configuration file, the values of secret ones covered."""
    lines: list[str] = []
    group = None
    for item in sorted(settings(conf), key=lambda item: (item.group != "DEFAULT", item.group, item.name)):
        if item.group != group:
            group = item.group
            lines += ["", f"[{group}]"]
        value = scrub.MASK if item.secret and item.value not in (None, "", [], {}) else item.value
        lines.append(f"{'#' if item.where.endswith('default') else ''}{item.name} = {value}")
    return "\n".join(lines[1:]) + "\n"

# SPDX-License-Identifier: Apache-2.0
"""Options, one module per topic; :func:`load` reads and checks them, :func:`backends` gives each backend its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volmgr.conf.backend import BackendConfiguration
    from volmgr.conf.loading import Configuration


def load(argv: Sequence[str] = (), *, prog: str | None = None) -> Configuration:
    """See :func:`volmgr.conf.loading.load`."""
    from volmgr.conf import loading

    return loading.load(argv, prog=prog)


def backends(conf: Configuration) -> list[BackendConfiguration]:
    """See :func:`volmgr.conf.loading.backends`."""
    from volmgr.conf import loading

    return loading.backends(conf)

# SPDX-License-Identifier: Apache-2.0
"""Attaching StorPool volumes to this host with os-brick's connector, and what it leaves to its caller.

Its client of the API would send the data of a call that it tries again encoded twice, which is refused, and waits
for ever where an answer drips; so it gets ours, and the whole is tried again here: attaching or detaching once more
changes nothing. It knows no driver.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

LOG = logging.getLogger(__name__)

#: Seconds before the second, third… try.
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
#: Seconds for one call.
TIMEOUT = 60.0


def connect(protocol: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """Attach a volume.

    :param protocol: os-brick's StorPool connector. :param data: of its connection_info.
    :returns: {'path': its device}. :raises BrickException: StorPool refuses, or does not answer.
    """
    made: dict[str, Any] = _retried(protocol, lambda: protocol.connect_volume(dict(data)))
    return made


def disconnect(protocol: Any, data: Mapping[str, Any]) -> None:
    """Detach a volume, which os-brick knows by its device; what it cannot know is that no volume is left.

    :raises BrickException: StorPool refuses, or does not answer.
    """
    from os_brick import exception as brick_exception

    device = {"path": protocol.get_volume_paths(data)[0]}
    try:
        _retried(protocol, lambda: protocol.disconnect_volume(dict(data), device))
    except brick_exception.BrickException as error:
        if getattr(error.__cause__, "name", None) != "objectDoesNotExist":
            raise


def _retried(protocol: Any, act: Callable[[], Any]) -> Any:
    from os_brick import exception as brick_exception

    from volmgr.tools.storpool_client import NO_ANSWER, Client

    conf = protocol._config
    protocol._sp_api = Client(
        conf["SP_API_HTTP_HOST"], conf["SP_API_HTTP_PORT"], conf["SP_AUTH_TOKEN"], timeout=TIMEOUT, transient_retries=0
    )
    for pause in (*PAUSES, None):
        try:
            return act()
        except brick_exception.BrickException as error:
            cause = error.__cause__
            lost = isinstance(cause, NO_ANSWER) or getattr(cause, "transient", False)
            if pause is None or not lost:
                raise
            LOG.warning("StorPool's API is asked again in %g s: %s", pause, cause)
        time.sleep(pause)
    raise AssertionError("the last try has no pause")

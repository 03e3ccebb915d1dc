# SPDX-License-Identifier: Apache-2.0
"""A client of tgtd's management protocol: requests, answers, errors, listings.

It takes the path of a control socket and knows neither who started that tgtd nor what a volume is.
"""

from volmgr.tools.tgt.client import TgtClient
from volmgr.tools.tgt.errors import TgtDown, TgtError, TgtNumberedError, TgtTimeout
from volmgr.tools.tgt.show import Connection, Lun, Session, System, Target

__all__ = [
    "Connection",
    "Lun",
    "Session",
    "System",
    "Target",
    "TgtClient",
    "TgtDown",
    "TgtError",
    "TgtNumberedError",
    "TgtTimeout",
]

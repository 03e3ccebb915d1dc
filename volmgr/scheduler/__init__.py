# SPDX-License-Identifier: Apache-2.0
"""Where a volume goes: checks that a pool passes or fails, a score among those that pass, and the reasons for both.

Dataclasses in, dataclasses out: this package knows no SQL, no RPC and no driver. :mod:`volmgr.placement` gives it what
the workers have published, and does what it says.
"""

from __future__ import annotations

from volmgr.scheduler.model import Pool, Request, Verdict, pools_of
from volmgr.scheduler.ranking import Judged, explain, rank

__all__ = ["Judged", "Pool", "Request", "Verdict", "explain", "pools_of", "rank"]

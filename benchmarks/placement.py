# SPDX-License-Identifier: Apache-2.0
"""Placing one volume among many backends, each with a filter and a goodness expression, by processor time.

The pools differ, so that no answer can be kept from one to the next.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.figures import Figure, Scale, main

GROUP = "placement: one volume among 500 backends, both expressions, a zone and two extra specs"
BACKENDS = 500
BOUND_MS = 10.0


def _pools() -> list[Any]:
    from volmgr.scheduler import pools_of

    rows = []
    for number in range(BACKENDS):
        pool = {
            "pool_name": "pool",
            "total_capacity_gb": 1000.0,
            "free_capacity_gb": 300.0 + number,
            "provisioned_capacity_gb": 700.0 + number,
            "max_over_subscription_ratio": 20.0,
            "reserved_percentage": 5,
            "thin_provisioning_support": True,
            "multiattach": True,
            "tier": number % 9 + 2,
            "filter_function": "volume.size < 500 and stats.total_capacity_gb - stats.free_capacity_gb < 900",
            "goodness_function": "100 * capabilities.free_capacity_gb / capabilities.total_capacity_gb",
        }
        rows.append({"host": f"host@b{number}", "availability_zone": "nova", "capabilities": {"pools": [pool]}})
    return [pool for row in rows for pool in pools_of(row)]


def run(scale: Scale) -> list[Figure]:
    """Measure in rounds; each round is the mean of many decisions."""
    from volmgr.scheduler import Request, explain, rank

    pools, times = _pools(), scale.of(50, 5)
    specs = {"multiattach": "<is> True", "capabilities:tier": ">= 2"}
    found: dict[str, list[float]] = {"rank": [], "explain": []}
    for _ in range(scale.rounds):
        for function in (rank, explain):
            began = time.process_time()
            for size in range(1, times + 1):
                assert len(function(Request(size, extra_specs=specs, zone="nova"), pools)) == BACKENDS
            found[function.__name__].append((time.process_time() - began) * 1000 / times)
    return [
        Figure("place one volume", found["rank"], "ms", BOUND_MS, group=GROUP),
        Figure("explain one placement", found["explain"], "ms", group=GROUP),
    ]


if __name__ == "__main__":
    main(run)

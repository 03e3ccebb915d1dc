# SPDX-License-Identifier: Apache-2.0
"""The simulator: a whole driver over a store in memory or in a folder, with latency and faults to order."""

from volmgr.drivers.sim.driver import SimDriver
from volmgr.drivers.sim.faults import Faults, Hang
from volmgr.drivers.sim.store import MemoryStore, memory_store

__all__ = ["Faults", "Hang", "MemoryStore", "SimDriver", "memory_store"]

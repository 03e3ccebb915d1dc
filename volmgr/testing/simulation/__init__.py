# SPDX-License-Identifier: Apache-2.0
"""Deterministic simulation: the real worker under a seeded scheduler, with crashes, faults and repeated messages.

See the page "Simulation" of the documentation. :func:`volmgr.testing.simulation.explore.run` runs one plan.
"""

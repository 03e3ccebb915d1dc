# SPDX-License-Identifier: Apache-2.0
"""The benchmarks: how fast and how small volmgr is on this machine. They judge times, so none of them is a test."""

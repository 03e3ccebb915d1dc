# SPDX-License-Identifier: Apache-2.0
"""Kills a real daemon, at every step boundary or at random, and looks from outside at what is left.

``python -m volmgr.testing.chaos --help``. Nothing here believes what the daemon says of itself: the database, the
files and the target are read directly.
"""

# SPDX-License-Identifier: Apache-2.0
"""The same tests on every database: VOLMGR_TEST_DATABASE says which one a run is for."""

from __future__ import annotations

from volmgr.testing.database import database

__all__ = ["database"]

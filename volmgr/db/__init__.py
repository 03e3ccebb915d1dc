# SPDX-License-Identifier: Apache-2.0
"""The database room: SQL that holds what should be. Nothing of SQLAlchemy leaves it."""

# SPDX-License-Identifier: Apache-2.0
"""Migrations of the schema, run by :mod:`volmgr.db.schema`; nothing else imports this."""

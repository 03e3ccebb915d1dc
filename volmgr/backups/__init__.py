# SPDX-License-Identifier: Apache-2.0
"""Copies of volumes in a store that knows nothing of volumes: stores, the format, and how bytes come and go.

The format (:mod:`volmgr.backups.format`, and a page of the documentation) is complete in itself: what is in a store can
be restored without volmgr's database. This package knows no driver, no journal and no SQL.
"""

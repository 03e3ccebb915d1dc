# SPDX-License-Identifier: Apache-2.0
"""The audit: SQL, storage and target compared in bulk, the differences named, and mended where that is safe.

observe → :func:`~volmgr.reconcile.diff.diff` (pure) → :class:`~volmgr.reconcile.findings.Finding` → repair, made of
ordinary operations and syncs. :func:`~volmgr.reconcile.auditor.findings_of` returns the findings of a worker in its own
process.
"""

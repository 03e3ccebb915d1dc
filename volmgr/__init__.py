# SPDX-License-Identifier: Apache-2.0
"""volmgr: a volume manager daemon that never loses or leaks a volume."""

__version__ = "0.1.0"

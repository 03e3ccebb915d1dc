# SPDX-License-Identifier: Apache-2.0
"""What shows a block device or file to initiators; each module is one kind of target behind ``targets.base``.

Nothing here knows a driver, the database or RPC. Modules are imported only when the configuration names them.
"""

# SPDX-License-Identifier: Apache-2.0
"""A server that speaks the part of StorPool's API that a volume driver needs, for tests of drivers and connectors.

StorPool cannot be installed for a test. This stands in for it and is at least as strict: ``calls.json`` has every call
with its schema and says of every field where that is known from; what it does not describe is refused. Volumes hold
real bytes in sparse files. Run it by ``python -m volmgr.testing.storpool --folder FOLDER``, or from a test by
:class:`volmgr.testing.storpool.process.StorPoolServer`.

It imports nothing of volmgr's drivers, so that an error of theirs cannot be its error too.
"""

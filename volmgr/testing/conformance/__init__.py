# SPDX-License-Identifier: Apache-2.0
"""The contract of drivers as tests, for volmgr's own drivers and for those of others.

A driver joins by an entry point of the group ``volmgr.conformance`` that names a subclass of
:class:`volmgr.testing.conformance.factories.DriverFactory`, and is then tested by::

    pytest -p volmgr.testing.conformance.plugin --driver-factory NAME --pyargs volmgr.testing.conformance.suite

Every test asks the driver what it supports and skips what it does not; what a driver says it supports must hold.
"""

import pytest

# Before anything imports the suite, so that its assertions tell what they compared.
pytest.register_assert_rewrite("volmgr.testing.conformance.suite")

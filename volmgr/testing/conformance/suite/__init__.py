# SPDX-License-Identifier: Apache-2.0
"""The tests of the conformance suite, to be imported into a test module or collected with ``--pyargs``."""

from volmgr.testing.conformance.suite.test_backups import TestBackups
from volmgr.testing.conformance.suite.test_contract import TestContract
from volmgr.testing.conformance.suite.test_copies import TestClones, TestReverts, TestSnapshots
from volmgr.testing.conformance.suite.test_groups import TestGroups
from volmgr.testing.conformance.suite.test_manage import TestImagesAndMoves, TestManageable, TestManaging
from volmgr.testing.conformance.suite.test_orphans import TestOrphans
from volmgr.testing.conformance.suite.test_replicas import TestFailover, TestReplicas
from volmgr.testing.conformance.suite.test_upkeep import TestObserving, TestTrash
from volmgr.testing.conformance.suite.test_volumes import TestExtending, TestVolumes

__all__ = [
    "TestBackups",
    "TestClones",
    "TestContract",
    "TestExtending",
    "TestFailover",
    "TestGroups",
    "TestImagesAndMoves",
    "TestManageable",
    "TestManaging",
    "TestObserving",
    "TestOrphans",
    "TestReplicas",
    "TestReverts",
    "TestSnapshots",
    "TestTrash",
    "TestVolumes",
]

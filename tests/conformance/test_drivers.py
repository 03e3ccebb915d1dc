# SPDX-License-Identifier: Apache-2.0
"""The conformance suite over volmgr's own drivers. It holds no test of its own."""

from volmgr.testing.conformance import suite

pytest_plugins = ["volmgr.testing.conformance.plugin"]

TestBackups = suite.TestBackups
TestClones = suite.TestClones
TestContract = suite.TestContract
TestExtending = suite.TestExtending
TestFailover = suite.TestFailover
TestGroups = suite.TestGroups
TestImagesAndMoves = suite.TestImagesAndMoves
TestManageable = suite.TestManageable
TestManaging = suite.TestManaging
TestObserving = suite.TestObserving
TestOrphans = suite.TestOrphans
TestReplicas = suite.TestReplicas
TestReverts = suite.TestReverts
TestSnapshots = suite.TestSnapshots
TestTrash = suite.TestTrash
TestVolumes = suite.TestVolumes

# SPDX-License-Identifier: Apache-2.0
"""The command line's attach and detach on a kernel that has an initiator: the functional test, run again here."""

from __future__ import annotations

from tests.functional.cli.conftest import site, volume
from tests.functional.cli.test_attach import test_a_volume_becomes_a_block_device_and_goes_again

__all__ = ["site", "test_a_volume_becomes_a_block_device_and_goes_again", "volume"]

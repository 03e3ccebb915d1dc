# SPDX-License-Identifier: Apache-2.0
"""The contract server shares nothing with the driver, so that a mistake of the one is not repeated by the other."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, sys
import volmgr.testing.storpool as room
for module in pkgutil.iter_modules(room.__path__, room.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*sorted(name for name in sys.modules if name.startswith(("volmgr.drivers", "volmgr.tools.storpool", "os_brick"))))
"""


def test_the_contract_server_imports_nothing_of_the_driver() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

# SPDX-License-Identifier: Apache-2.0
"""The guest is what other tests take it for: a private kernel, the caller's packages, no way to change the machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import volmgr
from volmgr.testing.lab.commands import run


def test_the_checkout_is_what_is_imported() -> None:
    assert Path(volmgr.__file__).is_relative_to(Path.cwd())
    assert volmgr.__version__


def test_the_interpreter_is_a_virtual_environment_of_the_caller() -> None:
    assert Path(sys.executable).resolve().exists()
    assert os.environ["PYTHONDONTWRITEBYTECODE"] == "1"


def test_the_kernel_has_the_device_mapper_targets() -> None:
    targets = {line.split()[0] for line in run("dmsetup", "targets").splitlines()}
    assert {"linear", "thin", "thin-pool", "snapshot", "mirror", "multipath"} <= targets


def test_changes_are_discarded() -> None:
    # The machine's own run looks for these files afterwards.
    name = f"volmgr-lab-marker-{os.environ['VOLMGR_LAB_GUEST']}"
    for folder in (Path("/etc"), Path("/var"), Path("/tmp"), Path("/usr"), Path.cwd(), Path.home()):
        (folder / name).write_text("discarded", encoding="ascii")
        assert (folder / name).read_text(encoding="ascii") == "discarded"

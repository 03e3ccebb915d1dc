# SPDX-License-Identifier: Apache-2.0
"""The page of state machines in the documentation is the one that the code's machines make."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from volmgr import states

ROOT = Path(__file__).resolve().parents[3]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("genstates", ROOT / "tools" / "genstates.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date() -> None:
    """If this fails, run: make genstates."""
    made = (ROOT / "doc" / "source" / "states.rst").read_text(encoding="utf-8")
    assert made == _script().page(pictures=".. image::" in made)


def test_every_machine_has_its_picture() -> None:
    script = _script()
    for machine in states.MACHINES:
        picture = ROOT / "doc" / "source" / "states" / f"{script.stem(machine)}.svg"
        text = picture.read_text(encoding="utf-8")
        for state in machine.states:
            assert f">{state}<" in text.replace("&#45;", "-"), f"{state} is not in {picture.name}; run: make genstates"

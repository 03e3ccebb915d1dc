# SPDX-License-Identifier: Apache-2.0
"""The page of verbs in the documentation is the one that the code makes, and it names every promised verb."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.surface import rows

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "doc" / "source" / "verbs.rst").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("genverbs", ROOT / "tools" / "genverbs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(script: ModuleType) -> None:
    """If this fails, run: make genverbs."""
    assert script.page() == PAGE


@pytest.mark.parametrize("verb", rows.named("rpc"))
def test_the_page_names_the_verb_with_its_arguments(verb: str) -> None:
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"``{verb}(")]
    wanted = rows.promised(rows.named("rpc")[verb])
    told = {item.partition("=")[0].strip() for item in line[len(verb) + 3 : -3].split(",")}
    assert wanted.names <= told


def test_the_matrix_has_every_driver_and_says_what_cannot_be(script: ModuleType) -> None:
    made = script.drivers()
    assert list(made) == ["sim", "file, tgt", "file, LIO", "LVM thick", "LVM thin", "StorPool", "fake"]
    assert "create_cgsnapshot" in made["LVM thick"].lacks
    assert "create_cgsnapshot" not in made["LVM thin"].lacks
    assert "create_cgsnapshot" in made["file, LIO"].lacks
    (line,) = [line for line in PAGE.splitlines() if line.startswith("``create_cgsnapshot`` ")]
    assert line.split()[1:] == ["yes", "yes", "no", "(2)", "no", "(3)", "yes", "yes", "–"]
    (line,) = [line for line in PAGE.splitlines() if line.startswith("``failover_host`` ")]
    assert line.split()[1:] == ["yes", "–", "–", "no", "(1)", "yes", "–", "–"]

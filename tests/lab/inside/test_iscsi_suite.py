# SPDX-License-Identifier: Apache-2.0
"""libiscsi's own suite against our exports: no failure beyond those of the bare target, in the same guest.

A bare target is one made by hand on the same storage, with the target's defaults but for what the export is told to
have: tgtd fails other tests where it offers to unmap than where it does not. Each test is a process of its own with a
deadline, for in one run over all of them the bare tgtd that offers to unmap fails a score which pass by themselves; a
test that does not end has failed, and what it ran against is made anew. Some tests are races between commands: what
fails on ours only is run again.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from volmgr import names
from volmgr.targets.base import Target, TargetConfig
from volmgr.targets.lio import LioTarget
from volmgr.targets.tgt import TgtTarget
from volmgr.testing.lab import lio
from volmgr.testing.lab.commands import run
from volmgr.tools.tgtd import Tgtd
from volmgr.types import Chap, ExportSpec, Grant, MiB, Portal, Secret

pytestmark = [pytest.mark.extended, pytest.mark.timeout(2400)]

FIRST, SECOND = "iqn.1994-05.com.example:first", "iqn.1994-05.com.example:second"
PREFIX = "iqn.2010-10.org.openstack:"
OURS, BARE = Portal("127.0.0.1", 3280), Portal("127.0.0.1", 3281)
AGAIN = 2
HUNG = "it did not end"
CHAP = lio.Chap("suite", "a-suite-password")
SIZE = 100 * MiB
#: no test of the suite takes longer than three seconds where nothing hangs and the machine is idle.
SECONDS = 60
_SUMMARY = re.compile(r"^ +tests +\d+ +(\d+) +(\d+) +(\d+)", re.MULTILINE)


def listed() -> list[str]:
    """Return the names of the suite's tests."""
    lines = run("iscsi-test-cu", "--list").split()
    found = [name for name in lines if name.startswith("ALL.") and name.count(".") == 2]
    assert len(found) > 100
    return found


def suite(names: Iterable[str], target: Callable[[], AbstractContextManager[tuple[Portal, str]]]) -> dict[str, str]:
    """Run these tests; return by test what failed, or nothing. One that the target cannot do counts as passed."""
    found: dict[str, str] = {}
    left = list(names)
    while left:
        with target() as (portal, name):
            while left:
                test = left.pop(0)
                said = one(test, f"iscsi://{portal}/{name}/1")
                found[test] = HUNG if said is None else said
                if said is None:
                    break
    return found


def one(test: str, url: str) -> str | None:
    """Run one test; return what it says if it fails, nothing if it does not, None if it does not end."""
    environment = {
        **os.environ,
        "LIBISCSI_CHAP_USERNAME": CHAP.user,
        "LIBISCSI_CHAP_PASSWORD": CHAP.secret,
    }
    try:
        done = subprocess.run(
            ["iscsi-test-cu", "-d", "-i", FIRST, "-I", SECOND, "-t", test, url],
            env=environment, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    summary = _SUMMARY.search(done.stdout)
    if summary is not None and summary.groups() == ("1", "1", "0"):
        return ""
    return f"status {done.returncode}: {done.stdout[-1000:]}{done.stderr[-500:]}"


@contextlib.contextmanager
def device(folder: Path, name: str) -> Iterator[Path]:
    image = folder / name
    image.touch()
    os.truncate(image, SIZE)
    loop = run("losetup", "--find", "--show", str(image)).strip()
    try:
        yield Path(loop)
    finally:
        run("losetup", "--detach", loop)


@contextlib.contextmanager
def bare_lio(storage: Path, folder: Path) -> Iterator[tuple[Portal, str]]:
    name = f"iqn.2003-01.org.example:{uuid.uuid4()}"
    with lio.exported(storage, name, FIRST, CHAP, uuid.uuid4().hex, port=BARE.port):
        lio.add_initiator(name, SECOND, CHAP)
        try:
            yield BARE, name
        finally:
            lio.remove_initiator(name, SECOND)


@contextlib.contextmanager
def bare_tgt(storage: Path, folder: Path) -> Iterator[tuple[Portal, str]]:
    name = f"iqn.2003-01.org.example:{uuid.uuid4()}"
    tgtd = Tgtd(str(folder / "bare-tgtd"), (BARE,))
    tgtd.start()
    try:
        tgtd.client.new_target(1, name)
        tgtd.client.new_lun(1, 1, str(storage))
        tgtd.client.update_lun(1, 1, thin=True)
        tgtd.client.new_account(CHAP.user, Secret(CHAP.secret))
        tgtd.client.bind_account(1, CHAP.user)
        tgtd.client.allow_address(1, "ALL")
        yield BARE, name
    finally:
        tgtd.stop()


@contextlib.contextmanager
def ours(cls: type[Target], storage: Path, folder: Path) -> Iterator[tuple[Portal, str]]:
    target = cls(TargetConfig(PREFIX, (OURS,), str(folder / "ours")))
    resource = str(uuid.uuid4())
    grants = tuple(Grant(str(uuid.uuid4()), initiator=name) for name in (FIRST, SECOND))
    spec = ExportSpec(
        "volume", resource, names.target_name(PREFIX, "volume", resource), path=str(storage),
        serial=names.new_serial(), size_bytes=SIZE, auth=Chap(CHAP.user, Secret(CHAP.secret)), grants=grants,
        discard=True,
    )  # fmt: skip
    target.start()
    try:
        target.sync(spec)
        yield OURS, spec.target_name
    finally:
        target.stop(and_exports=True)


Bare = Callable[[Path, Path], AbstractContextManager[tuple[Portal, str]]]


@pytest.mark.parametrize(("cls", "bare"), [(LioTarget, bare_lio), (TgtTarget, bare_tgt)], ids=["lio", "tgt"])
def test_no_failure_beyond_the_bare_target_s(cls: type[Target], bare: Bare, tmp_path: Path) -> None:
    every = listed()
    with device(tmp_path, "bare.img") as storage:
        expected = suite(every, lambda: bare(storage, tmp_path))
    with device(tmp_path, "ours.img") as storage:
        found = suite(every, lambda: ours(cls, storage, tmp_path))
        for _ in range(AGAIN):
            found |= suite(beyond(found, expected), lambda: ours(cls, storage, tmp_path))
    counts = f"{passed(found)} of {len(found)} passed, bare {passed(expected)} of {len(expected)}"
    print(f"\n{cls.__name__}: {counts}; bare fails {sorted(test for test, said in expected.items() if said)}")
    assert passed(expected) > len(expected) * 0.8, expected
    assert beyond(found, expected) == {}, counts


def beyond(found: dict[str, str], expected: dict[str, str]) -> dict[str, str]:
    return {test: said for test, said in found.items() if said and not expected[test]}


def passed(found: dict[str, str]) -> int:
    return sum(not said for said in found.values())

# SPDX-License-Identifier: Apache-2.0
"""libiscsi's own suite against our exports: no failure beyond those of the bare target, in the same guest.

A bare target is one made by hand on the same storage, with the target's defaults.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
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

pytestmark = [pytest.mark.extended, pytest.mark.timeout(1500)]

FIRST, SECOND = "iqn.1994-05.com.example:first", "iqn.1994-05.com.example:second"
PREFIX = "iqn.2010-10.org.openstack:"
OURS, BARE = Portal("127.0.0.1", 3280), Portal("127.0.0.1", 3281)
CHAP = lio.Chap("suite", "a-suite-password")
SIZE = 100 * MiB
SECONDS = 600
_RESULT = re.compile(r"Test: (\S+) \.\.\.(.*?)(passed|FAILED)", re.DOTALL)


def suite(portal: Portal, target: str) -> dict[str, str]:
    """Run the whole suite; return by test what failed, or nothing. One that the target cannot do counts as passed."""
    url = f"iscsi://{portal}/{target}/1"
    environment = {
        **os.environ,
        "LIBISCSI_CHAP_USERNAME": CHAP.user,
        "LIBISCSI_CHAP_PASSWORD": CHAP.secret,
    }
    done = subprocess.run(
        ["iscsi-test-cu", "-d", "-i", FIRST, "-I", SECOND, "-t", "ALL", url],
        env=environment, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False,
    )  # fmt: skip
    found: dict[str, str] = {}
    for part in re.split(r"(?m)^Suite: ", done.stdout)[1:]:
        name = part.split()[0]
        for match in _RESULT.finditer(part):
            found[f"{name}.{match[1]}"] = "" if match[3] == "passed" else f"{match[2]}{part[match.end() :][:500]}"
    assert len(found) > 100, done.stdout[-2000:] + done.stderr[-2000:]
    return found


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
def bare_lio(storage: Path, folder: Path) -> Iterator[str]:
    name = f"iqn.2003-01.org.example:{uuid.uuid4()}"
    with lio.exported(storage, name, FIRST, CHAP, uuid.uuid4().hex, port=BARE.port):
        lio.add_initiator(name, SECOND, CHAP)
        try:
            yield name
        finally:
            lio.remove_initiator(name, SECOND)


@contextlib.contextmanager
def bare_tgt(storage: Path, folder: Path) -> Iterator[str]:
    name = f"iqn.2003-01.org.example:{uuid.uuid4()}"
    tgtd = Tgtd(str(folder / "bare-tgtd"), (BARE,))
    tgtd.start()
    try:
        tgtd.client.new_target(1, name)
        tgtd.client.new_lun(1, 1, str(storage))
        tgtd.client.new_account(CHAP.user, Secret(CHAP.secret))
        tgtd.client.bind_account(1, CHAP.user)
        tgtd.client.allow_address(1, "ALL")
        yield name
    finally:
        tgtd.stop()


@contextlib.contextmanager
def ours(target: Target, storage: Path) -> Iterator[str]:
    resource = str(uuid.uuid4())
    grants = tuple(Grant(str(uuid.uuid4()), initiator=name) for name in (FIRST, SECOND))
    spec = ExportSpec(
        "volume", resource, names.target_name(PREFIX, "volume", resource), path=str(storage),
        serial=names.new_serial(), size_bytes=SIZE, auth=Chap(CHAP.user, Secret(CHAP.secret)), grants=grants,
    )  # fmt: skip
    target.start()
    try:
        target.sync(spec)
        yield spec.target_name
    finally:
        target.stop(and_exports=True)


@pytest.mark.parametrize(("cls", "bare"), [(LioTarget, bare_lio), (TgtTarget, bare_tgt)], ids=["lio", "tgt"])
def test_no_failure_beyond_the_bare_target_s(
    cls: type[Target], bare: Callable[[Path, Path], AbstractContextManager[str]], tmp_path: Path
) -> None:
    with device(tmp_path, "bare.img") as storage, bare(storage, tmp_path) as name:
        expected = suite(BARE, name)
    target = cls(TargetConfig(PREFIX, (OURS,), str(tmp_path / "ours")))
    with device(tmp_path, "ours.img") as storage, ours(target, storage) as name:
        found = suite(OURS, name)
    counts = f"{passed(found)} of {len(found)} passed, bare {passed(expected)} of {len(expected)}"
    print(f"\n{cls.__name__}: {counts}")
    assert set(found) == set(expected)
    assert {test: said for test, said in found.items() if said and not expected[test]} == {}, counts


def passed(found: dict[str, str]) -> int:
    return sum(not said for said in found.values())

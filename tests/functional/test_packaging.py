# SPDX-License-Identifier: Apache-2.0
"""The sdist and the wheel made of it, installed where nothing of the checkout can be seen, and used from there.

The libraries come from the environment that runs the tests; that they are all named is checked (pip check).
"""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("volmgr", "volmgr-manage", "volmgr-status", "volmgr-volume")
#: what the checkout has and no build should see.
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".tox", "build", "dist", "*_cache", "__pycache__", "*.egg-info")

pytestmark = pytest.mark.once


def run(*argv: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, timeout=180, check=False,
        env={**{key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, **environment},
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def pip(python: Path | str, *arguments: str, cwd: Path) -> str:
    return run(sys.executable, "-m", "pip", "--python", str(python), *arguments, cwd=cwd)


@dataclass
class Installed:
    """An environment with volmgr, and what it was installed from."""

    prefix: Path
    sdist: Path
    wheel: Path

    def run(self, program: str, *argv: str, **environment: str) -> str:
        return run(str(self.prefix / "bin" / program), *argv, cwd=self.prefix, **environment)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("packaging")
    backend = folder / "backend"
    venv.create(backend, with_pip=False)
    python = backend / "bin" / "python"
    pip(python, "install", "--quiet", "setuptools>=77", cwd=folder)
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    build = "from setuptools import build_meta as b; print(b.build_{}({!r}))"
    out = folder / "dist"
    out.mkdir()
    run(str(python), "-c", build.format("sdist", str(out)), cwd=folder / "source")
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    run(str(python), "-c", build.format("wheel", str(out)), cwd=unpacked)
    (wheel,) = out.glob("*.whl")
    prefix = folder / "prefix"
    venv.create(prefix, with_pip=False)
    pip(prefix / "bin" / "python", "install", "--quiet", "--no-deps", "--no-index", str(wheel), cwd=folder)
    # A path that is not this environment's own: the libraries are seen, the checkout (an editable install) is not.
    (site,) = prefix.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return Installed(prefix, sdist, wheel)


def test_the_programs_are_those_of_the_wheel(installed: Installed, tmp_path: Path) -> None:
    assert installed.run("volmgr", "--version").startswith("volmgr 0.")
    where = run(str(installed.prefix / "bin" / "python"), "-c", "import volmgr; print(volmgr.__file__)", cwd=tmp_path)
    assert where.startswith(str(installed.prefix))
    state = {"OS_DEFAULT__STATE_PATH": str(tmp_path), "OS_BACKEND_DEFAULTS__TARGET_HELPER": "fake"}
    # The migrations of alembic, one after the other.
    assert installed.run("volmgr-manage", "db", "upgrade", **state).strip().isdecimal()
    installed.run("volmgr-manage", "db", "check", **state)
    assert "Success" in installed.run("volmgr-status", "upgrade", "check", **state)
    assert "create_volume" in installed.run("volmgr", "local", "check", **state)


def test_every_library_is_named(installed: Installed, tmp_path: Path) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        (metadata,) = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/METADATA")]
    named = {_plain(name) for name in re.findall(r"^Requires-Dist: ([A-Za-z0-9_.-]+)", metadata, re.MULTILINE)}
    owners = importlib.metadata.packages_distributions()
    for path in (ROOT / "volmgr").rglob("*.py"):
        if "testing" in path.parts:
            continue
        for top in _imported(path) - sys.stdlib_module_names - {"volmgr"}:
            assert {_plain(owner) for owner in owners.get(top, [top])} & named, f"{path.name} imports {top}"
    said = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(installed.prefix / "bin" / "python"), "check"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )
    assert not [line for line in said.stdout.splitlines() if line.startswith("volmgr ")], said.stdout


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported(path: Path) -> set[str]:
    """Return the packages that a module imports, anywhere in it but for type checking."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_the_wheel_has_what_a_system_needs(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = wheel.namelist()
    assert not [name for name in names if name.startswith(("tests/", "tools/", "doc/", "benchmarks/"))]
    assert {"volmgr/page/status.html", "volmgr/db/alembic.ini", "volmgr/py.typed"} <= set(names)
    for wanted in (
        "etc/volmgr/volmgr.conf.sample", "etc/volmgr/policy.yaml.sample", "lib/systemd/system/volmgr-volume.service",
        "lib/sysusers.d/volmgr.conf", "lib/tmpfiles.d/volmgr.conf", "share/bash-completion/completions/volmgr",
        "share/man/man1/volmgr.1",
        "share/man/man8/volmgr-volume.8", "share/man/man8/volmgr-manage.8", "share/man/man8/volmgr-status.8",
        "share/volmgr/prometheus/volmgr.rules.yml", "share/volmgr/grafana/volmgr.json",
        "share/volmgr/drop-ins/lvm-lio.conf", "share/volmgr/drop-ins/aoe.conf",
    ):
        assert (installed.prefix / wanted).is_file(), wanted
    # Whatever etc/ has is somewhere below the prefix.
    there = {Path(name).name for name in names if "/data/" in name}
    assert {path.name for path in (ROOT / "etc").rglob("*") if path.is_file()} <= there


def test_the_sdist_can_be_tested(installed: Installed) -> None:
    with tarfile.open(installed.sdist) as tar:
        names = {item.name.partition("/")[2] for item in tar}
    assert {"tests/conftest.py", "doc/source/index.rst", "tools/test.py", "tox.ini", "bindep.txt", "LICENSE"} <= names
    assert not [name for name in names if name.endswith(".pyc") or name.startswith("doc/build")]


def test_the_bash_completion_completes(installed: Installed) -> None:
    script = installed.prefix / "share" / "bash-completion" / "completions" / "volmgr"
    said = run(
        "bash", "-c",
        "_get_comp_words_by_ref() { words=(volmgr local cr); cur=cr; prev=local; }; "
        f"source {script}; COMP_WORDS=(volmgr local cr); COMP_CWORD=2; _volmgr; echo ${{COMPREPLY[*]}}",
        cwd=installed.prefix,
    )
    assert said.split() == ["create"]


def test_systemd_understands_the_units(installed: Installed, tmp_path: Path, require: Callable[..., str]) -> None:
    program = require("systemd-analyze", "systemd")
    for unit in sorted((installed.prefix / "lib" / "systemd" / "system").iterdir()):
        text = unit.read_text().replace("/usr/bin/volmgr", f"{installed.prefix}/bin/volmgr")
        (tmp_path / unit.name).write_text(text)
    said = subprocess.run(
        [program, "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True, text=True, timeout=120, check=False,
    )
    assert said.returncode == 0 and "volmgr" not in said.stderr, said.stderr


def test_account_and_folders(installed: Installed, tmp_path: Path, require: Callable[..., str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("does not apply: only root can give folders to another account")
    root = f"--root={tmp_path}"
    (tmp_path / "etc/volmgr").mkdir(parents=True)
    (tmp_path / "etc/volmgr/volmgr.conf").write_text("[DEFAULT]\n")
    for folder in ("sysusers.d", "tmpfiles.d"):
        shutil.copytree(installed.prefix / "lib" / folder, tmp_path / "usr/lib" / folder)
    run(require("systemd-sysusers", "systemd"), root, cwd=tmp_path)
    account = next(
        line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("volmgr:")
    ).split(":")
    assert account[5] == "/var/lib/volmgr" and account[6].endswith("nologin")
    run(require("systemd-tmpfiles", "systemd"), root, "--create", cwd=tmp_path)
    gid = int(account[3])
    found = {
        name: (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777)
        for name in ("etc/volmgr", "etc/volmgr/volmgr.conf.d", "etc/volmgr/volmgr.conf")
        if (path := tmp_path / name)
    }
    assert found == {
        "etc/volmgr": (0, gid, 0o750),
        "etc/volmgr/volmgr.conf.d": (0, gid, 0o750),
        "etc/volmgr/volmgr.conf": (0, gid, 0o640),
    }
    # The state folder is the unit's to make: it belongs to whom the unit runs as, which a drop-in may change.
    assert not (tmp_path / "var/lib/volmgr").exists()

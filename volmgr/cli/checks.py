# SPDX-License-Identifier: Apache-2.0
"""What ``volmgr doctor`` looks at on this host: kernel modules, programs, folders, space.

Each check returns results; nothing is changed and nothing is printed. What a backend needs follows from its driver and
its target, see :func:`needs`. This module knows no RPC and no database.
"""

from __future__ import annotations

import enum
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from volmgr.connector import module_state
from volmgr.types import GiB

VERSION_TIMEOUT = 10.0
LEAST_FREE_BYTES = GiB
LEAST_FREE_INODES = 1000
#: Programs of the administrator are not on everybody's PATH.
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"))


class Result(enum.StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"  # it works without, or not everything does
    MISSING = "missing"  # a configured backend cannot work


@dataclass(frozen=True)
class CheckResult:
    """One line of the doctor's table; ``remedy`` is what to install or run, empty where all is well."""

    check: str
    result: Result
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Tool:
    """A program: how it tells its version, and the Debian package that has it."""

    package: str
    version: tuple[str, ...] = ("--version",)


TOOLS: dict[str, Tool] = {
    "tgtd": Tool("tgt"),
    "lvm": Tool("lvm2", ("version",)),
    "thin_check": Tool("thin-provisioning-tools"),
    "qemu-img": Tool("qemu-utils"),
    "iscsiadm": Tool("open-iscsi"),
    "iscsi-inq": Tool("libiscsi-bin", ()),
    "vblade": Tool("vblade", ()),
}

#: By target_helper: programs and kernel modules that the target needs.
TARGETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "tgtadm": (("tgtd",), ()),
    "lioadm": ((), ("target_core_mod", "target_core_iblock", "target_core_file", "iscsi_target_mod")),
    "iseradm": ((), ("target_core_mod", "target_core_iblock", "iscsi_target_mod", "ib_isert")),
    "fcadm": ((), ("target_core_mod", "target_core_iblock")),
    "vblade": (("vblade",), ()),
}
#: By a word in the driver's name.
DRIVERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "lvm": (("lvm",), ("dm_mod",)),
}
#: Words in the names of drivers that use no target, whatever target_helper says.
WITHOUT_TARGET = ("storpool",)
THIN = (("thin_check",), ("dm_thin_pool",))
FC_FABRICS = ("tcm_qla2xxx", "tcm_fc")


@dataclass
class Needs:
    """What the configured backends cannot work without: names, each with the backends that need it."""

    tools: dict[str, list[str]] = field(default_factory=dict)
    modules: dict[str, list[str]] = field(default_factory=dict)
    fibre_channel: list[str] = field(default_factory=list)

    def add(self, backend: str, what: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
        """Note that a backend needs programs and modules."""
        for names, table in ((what[0], self.tools), (what[1], self.modules)):
            for name in names:
                if backend not in table.setdefault(name, []):
                    table[name].append(backend)


def needs(backends: Iterable[Any]) -> Needs:
    """Return what the backends need.

    :param backends: with config_group, volume_driver and target_helper, as the configuration gives them.
    """
    found = Needs()
    for backend in backends:
        name = str(backend.config_group)
        driver = str(backend.volume_driver).lower()
        for word, what in DRIVERS.items():
            if word in driver:
                found.add(name, what)
        if "lvm" in driver and getattr(backend, "lvm_type", "auto") == "thin":
            found.add(name, THIN)
        helper = "" if any(word in driver for word in WITHOUT_TARGET) else str(backend.target_helper or "")
        found.add(name, TARGETS.get(helper, ((), ())))
        if helper == "fcadm":
            found.fibre_channel.append(name)
    return found


# --- programs and modules -------------------------------------------------------------------------------------------


def tool_version(path: str, arguments: tuple[str, ...]) -> str:
    """Return the version number that a program tells, or a word when it tells none."""
    if not arguments:
        return "installed"
    # LVM complains about every inherited descriptor otherwise.
    environment = {**os.environ, "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}
    try:
        done = subprocess.run(
            [path, *arguments], capture_output=True, text=True, timeout=VERSION_TIMEOUT, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {type(error).__name__}"
    match = re.search(r"\d+\.\d+[\w.]*", done.stdout + done.stderr)
    return match[0] if match else "installed"


def check_tools(needed: Mapping[str, list[str]], search_path: str = SEARCH_PATH) -> list[CheckResult]:
    """Look for every program that volmgr can use; a missing one counts only if a backend needs it."""
    results = []
    for name, tool in TOOLS.items():
        path = shutil.which(name, path=search_path)
        users = needed.get(name, [])
        label = f"program {name}" + _for(users)
        if path is not None:
            results.append(CheckResult(label, Result.OK, tool_version(path, tool.version)))
        else:
            result = Result.MISSING if users else Result.WARNING
            results.append(CheckResult(label, result, "not installed", f"apt-get install {tool.package}"))
    return results


INITIATORS = {"iscsi_tcp": "volmgr attach by iSCSI", "aoe": "volmgr attach by ATA over Ethernet"}


def check_modules(needed: Needs, root: str = "/") -> list[CheckResult]:
    """Look for kernel modules: those that backends need, and the initiators that ``volmgr attach`` uses."""
    results = []
    for name, users in needed.modules.items():
        results.append(_module(name, users, Result.MISSING, root))
    for name, purpose in INITIATORS.items():
        results.append(_module(name, [purpose], Result.WARNING, root))
    if needed.fibre_channel:
        states = {name: module_state(name, root) for name in FC_FABRICS}
        good = any(state != "missing" for state in states.values())
        results.append(
            CheckResult(
                f"a Fibre Channel target module{_for(needed.fibre_channel)}",
                Result.OK if good else Result.MISSING,
                ", ".join(f"{name} {state}" for name, state in states.items()),
                "" if good else "a kernel with tcm_qla2xxx or tcm_fc",
            )
        )
    return results


def _module(name: str, users: list[str], otherwise: Result, root: str) -> CheckResult:
    state = module_state(name, root)
    if state == "missing":
        remedy = f"a kernel that has {name}, for example: apt-get install linux-image-amd64"
        return CheckResult(f"kernel module {name}{_for(users)}", otherwise, state, remedy)
    return CheckResult(f"kernel module {name}{_for(users)}", Result.OK, state)


def _for(users: list[str]) -> str:
    return f" ({', '.join(users)})" if users else ""


# --- folders --------------------------------------------------------------------------------------------------------


def check_state_path(path: str) -> list[CheckResult]:
    """Look at the state folder: there, ours, closed to others, with room."""
    label = f"state folder {path}"
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return [CheckResult(label, Result.WARNING, "not there", "systemctl start volmgr-volume (it makes the folder)")]
    except PermissionError:
        return [CheckResult(label, Result.WARNING, "not visible to this user", "run the doctor as root")]
    results = [_private(label, path, status)]
    space = os.statvfs(path)
    free = space.f_bavail * space.f_frsize
    figures = f"{free / GiB:.1f} GiB free"
    enough = free >= LEAST_FREE_BYTES and (not space.f_files or space.f_favail >= LEAST_FREE_INODES)
    if space.f_files and space.f_favail < LEAST_FREE_INODES:
        figures += f", {space.f_favail} inodes left"
    remedy = "" if enough else f"make room: df -h {path}; df -i {path}"
    results.append(CheckResult(f"space in {path}", Result.OK if enough else Result.WARNING, figures, remedy))
    return results


def _private(label: str, path: str, status: os.stat_result) -> CheckResult:
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}"
    if not stat.S_ISDIR(status.st_mode):
        return CheckResult(label, Result.MISSING, "not a folder", f"mv {path} {path}.old")
    if status.st_mode & stat.S_IWOTH:
        return CheckResult(label, Result.MISSING, f"{mode}: anybody may write in it", f"chmod o-w {path}")
    if status.st_mode & stat.S_IROTH:
        return CheckResult(label, Result.WARNING, f"{mode}: anybody may read it", f"chmod o-rx {path}")
    return CheckResult(label, Result.OK, mode)


def check_socket(transport_url: str) -> list[CheckResult]:
    """Look at the folder of the sockets, where the transport has one."""
    parts = urlsplit(transport_url)
    if parts.scheme != "unix":
        return [CheckResult("transport", Result.OK, f"{parts.scheme}:// (its broker is not looked at)")]
    path = parts.path or "/run/volmgr/rpc"
    label = f"socket folder {path}"
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return [CheckResult(label, Result.WARNING, "not there", "systemctl start volmgr-volume (it makes the folder)")]
    except PermissionError:
        return [CheckResult(label, Result.WARNING, "not visible to this user", "run the doctor as root")]
    result = _private(label, path, status)
    if result.result is Result.OK and not os.access(path, os.R_OK | os.X_OK):
        remedy = "run as root, or set [unix_transport] unix_socket_group"
        return [CheckResult(label, Result.WARNING, result.found, remedy)]
    return [result]

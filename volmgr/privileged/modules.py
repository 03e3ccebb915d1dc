# SPDX-License-Identifier: Apache-2.0
"""Kernel modules: present, or loaded by ``modprobe``.

It must not know what the modules are for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

from volmgr import exception

_NAME = re.compile(r"\A[a-z0-9][a-z0-9_-]*\Z")
_SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def ensure(modules: Sequence[str], *, timeout: float, sysfs: str = "/sys/module") -> None:
    """Return once the kernel has these modules.

    :param modules: their names; the ones that are there cost no process.
    :param timeout: seconds that loading one may take.
    :param sysfs: where the kernel lists what it has.
    :raises BackendDown: one cannot be loaded; the hint names the command.
    """
    for module in modules:
        if not _NAME.match(module):
            raise ValueError(f"{module!r} is no name of a kernel module")
        # One that is built in and has no parameters is not listed, but modprobe knows it.
        if not os.path.isdir(f"{sysfs}/{module.replace('-', '_')}"):
            _load(module, timeout)


def _load(module: str, timeout: float) -> None:
    hint = f"Run as root: modprobe {module} (the module comes with the distribution's kernel package)"
    program = shutil.which("modprobe", path=_SBIN)
    if program is None:
        raise exception.ToolMissing(tool="modprobe", hint="Install kmod")
    try:
        done = subprocess.run(
            [program, "--", module],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            env={"PATH": _SBIN, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise exception.BackendDown(
            f"Loading the kernel module {module} took longer than {timeout:g} s", hint=hint, module=module
        ) from error
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"modprobe ended with {done.returncode}"]
        raise exception.BackendDown(f"The kernel module {module} cannot be loaded: {said[0]}", hint=hint, module=module)

# SPDX-License-Identifier: Apache-2.0
"""Kernel and first file system of the guest, made of Debian packages that are fetched and unpacked, never installed.

It knows packages and archives, and not what runs in the guest.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from volmgr.testing.lab import errors

META_PACKAGE = "linux-image-amd64"
#: A static one, for the first file system.
BUSYBOX = "busybox-static"
#: What the kernel needs before it sees the machine's files.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
SECONDS = 600
R = TypeVar("R")


@dataclass(frozen=True)
class Image:
    """What a guest boots from.

    :param kernel: its file. :param initramfs: the first file system. :param release: the kernel's, as ``uname -r``.
    :param modules: its folder of modules.
    """

    kernel: Path
    initramfs: Path
    release: str
    modules: Path


def make(folder: Path) -> Image:
    """Return the image; what is unpacked of the packages stays in ``folder`` from one run to the next.

    :raises LabUnavailable: the packages cannot be fetched, or a program is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        package = _with_lists(_kernel_package)
        release = package.removeprefix("linux-image-")
        root = folder / "root"
        done = folder / f"made-{release}"
        image = Image(
            kernel=root / "boot" / f"vmlinuz-{release}",
            initramfs=folder / "initramfs.gz",
            release=release,
            modules=root / "lib" / "modules" / release,
        )
        if not done.exists():
            shutil.rmtree(root, ignore_errors=True)
            _with_lists(lambda: _unpack((package, BUSYBOX), folder, root))
            # The package has no list of what needs what.
            _run("depmod", "-b", str(root), release)
            done.touch()
        _initramfs(image, root, folder)
        return image


def _with_lists(work: Callable[[], R]) -> R:
    """Do something with the package lists, which may be missing, or name packages that are not there any more."""
    try:
        return work()
    except errors.LabUnavailable:
        _run("apt-get", "-q", "update")
        return work()


def _kernel_package() -> str:
    listed = _run("apt-cache", "depends", "--important", META_PACKAGE)
    for line in listed.splitlines():
        if "linux-image-" in line and "Depends:" in line:
            return line.split()[-1]
    raise errors.LabUnavailable(f"the package lists know no {META_PACKAGE}: run apt-get update, as root")


def _unpack(packages: tuple[str, ...], folder: Path, root: Path) -> None:
    downloads = folder / "downloads"
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir()
    _run("apt-get", "-q", "download", *packages, cwd=downloads)
    for file in sorted(downloads.glob("*.deb")):
        _run("dpkg-deb", "-x", str(file), str(root))
    shutil.rmtree(downloads)


def _initramfs(image: Image, root: Path, folder: Path) -> None:
    """Make the archive: busybox, the few modules in the order in which they load, and the first program."""
    tree = folder / "initramfs"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("bin", "modules", "proc", "sys", "dev", "ro", "rw", "new"):
        (tree / name).mkdir(parents=True)
    shutil.copy(root / "bin" / "busybox", tree / "bin" / "busybox")
    order: list[str] = []
    for module in MODULES:
        for line in _run("modprobe", "-S", image.release, "-d", str(root), "--show-depends", module).splitlines():
            words = line.split()
            if words[0] == "insmod" and (name := Path(words[1]).name) not in order:
                shutil.copy(words[1], tree / "modules" / name)
                order.append(name)
    (tree / "modules" / "order").write_text("".join(f"{name}\n" for name in order), encoding="ascii")
    shutil.copy(Path(__file__).with_name("initramfs-init.sh"), tree / "init")
    (tree / "init").chmod(0o755)
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    archive = subprocess.run(
        [str(root / "bin" / "busybox"), "cpio", "-o", "-H", "newc"],
        input="".join(f"{name}\n" for name in names).encode(),
        cwd=tree,
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )
    fresh = image.initramfs.with_suffix(".new")
    fresh.write_bytes(gzip.compress(archive.stdout, 1))
    fresh.replace(image.initramfs)


def _run(*arguments: str, cwd: Path | None = None) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    with contextlib.suppress(FileNotFoundError):  # said below
        done = subprocess.run(
            arguments,
            cwd=cwd,
            env={**os.environ, "PATH": path, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise errors.LabUnavailable(f"{' '.join(arguments[:3])} failed: {' '.join(said)}")
        return done.stdout
    raise errors.LabUnavailable(f"the program {arguments[0]} is missing: this needs a Debian machine")

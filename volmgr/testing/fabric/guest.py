# SPDX-License-Identifier: Apache-2.0
"""Boot one emulated machine, run pytest in it, bring back what it found; this machine is left as it was.

The harness around it is that of :mod:`volmgr.testing.lab`. It must not know what the tests are about.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from volmgr.testing.fabric import image
from volmgr.testing.lab import errors, guest
from volmgr.testing.lab.guest import GuestResult, GuestSpec

EMULATOR = "qemu-system-x86_64"
#: Of the adapters ``fc0``, ``fc1`` and ``fc2``, on one hub.
MACS = ("52:54:00:aa:00:00", "52:54:00:aa:00:01", "52:54:00:aa:00:02")
_COMMAND_LINE = "console=ttyS0 quiet loglevel=4 panic=-1 random.trust_cpu=on mitigations=off nokaslr tsc=reliable"


def run_guest(spec: GuestSpec, sink: Callable[[bytes], object], folder: Path) -> GuestResult:
    """Boot the guest, run pytest in it and wait for its end.

    :param spec: what to run; deadlines are those of an emulated machine, ten times slower than this one.
    :param sink: called with pytest's output as it comes.
    :param folder: where the kernel and the first file system are kept from one run to the next.
    :raises LabUnavailable, BootFailed, GuestDied, GuestTimedOut: as the lab's.
    """
    if shutil.which(EMULATOR) is None:
        raise errors.LabUnavailable(f"the program {EMULATOR} is missing: install qemu-system-x86")
    if os.geteuid() != 0:
        raise errors.LabUnavailable("the guest reads every file of this machine, which only root can")
    if not _is_plain(str(spec.cwd)):
        raise errors.LabUnavailable(f"the folder {str(spec.cwd)!r} has a character the guest cannot be told")
    made = image.make(folder.resolve())
    guest.compile_sources(spec.cwd)
    with guest.results_folder() as results:
        (results / "init.sh").write_bytes(Path(__file__).with_name("guest-init.sh").read_bytes())
        command = guest.pytest_command(spec, results.name)
        (results / "command.sh").write_text(command, encoding="utf-8")
        (results / "console.log").touch()
        with _started(spec, made, results) as (process, output):
            guest.follow(spec, results, process, output, sink)
        if process.returncode:
            said = (results / "qemu.log").read_text(encoding="utf-8", errors="replace").strip()
            raise errors.BootFailed(f"{EMULATOR} ended with {process.returncode}: {said}", guest.log_of(results))
        return guest.result_of(results, process)


def _is_plain(path: str) -> bool:
    return not set(path) & set(" \t\"',\\=")


@contextlib.contextmanager
def _started(spec: GuestSpec, made: image.Image, results: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Yield the emulator's process and the reading end of the guest's second line; at the end it is gone."""
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            _arguments(spec, made, results, writer),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(results / "qemu.log").open("wb"),
            pass_fds=(writer,),
            start_new_session=True,
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        with guest.guarded(process.pid, results):
            yield process, reader
    finally:
        process.kill()
        process.wait()
        os.close(reader)


def _arguments(spec: GuestSpec, made: image.Image, results: Path, line: int) -> list[str]:
    nics = []
    for number, mac in enumerate(MACS):
        nics += ["-netdev", f"hubport,id=n{number},hubid=0"]
        # A PCI adapter, by whose address os-brick finds the disks; without its own boot program.
        nics += ["-device", f"e1000,netdev=n{number},mac={mac},romfile="]
    return [
        *(EMULATOR, "-M", "pc", "-accel", "tcg,thread=single,tb-size=256", "-cpu", "max", "-smp", "1"),
        # While the guest works its clock is that of its work, two nanoseconds for an instruction: on a machine that
        # others keep busy it only gets slower, and nobody in it waits too long for a frame.
        *("-icount", "shift=1,sleep=on"),
        *("-m", str(spec.memory_mib), "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none"),
        *("-no-reboot", "-kernel", str(made.kernel), "-initrd", str(made.initramfs)),
        *("-append", f"{_COMMAND_LINE} no_timer_check volmgr.modules={made.modules}"),
        *("-serial", f"file:{results}/console.log"),
        *("-chardev", f"file,id=tests,path=/dev/fd/{line}", "-serial", "chardev:tests"),
        *("-fsdev", "local,id=r,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-9p-pci,fsdev=r,mount_tag=root"),
        *("-fsdev", f"local,id=o,path={results},security_model=none"),
        *("-device", "virtio-9p-pci,fsdev=o,mount_tag=results"),
        *nics,
    ]

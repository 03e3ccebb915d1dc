# SPDX-License-Identifier: Apache-2.0
"""qemu-img: what a disk image says of itself, and its conversion, under limits that the kernel keeps.

Images come from strangers, so qemu-img never guesses a format, gets open descriptors in place of names, and runs under
``prlimit``: address space, CPU time and the size of what it writes are bounded whatever an image makes it do. This
module knows no store and no volume.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from volmgr import exception
from volmgr.tools import process
from volmgr.types import MiB

_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")
#: Bytes that a look may say; the limit of files counts for its output too.
_SAID = 16 * MiB
#: Bytes of stack of each of its threads; its coroutines bring their own.
_STACK = 2 * MiB
#: glibc reserves 64 MiB of addresses for each thread's own arena: with the processors of a large host, what it reserves
#: and never uses would exhaust the limit, now and then, as the threads happen to meet (mallopt(3), M_ARENA_MAX).
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Limits:
    """What a run may use.

    :ivar memory: bytes of address space. :ivar info_cpu: CPU seconds of a look. :ivar convert_cpu: of a conversion.
    :ivar timeout: seconds that a conversion may take. :ivar info_timeout: that a look may take.
    """

    memory: int = 1024 * MiB
    info_cpu: int = 30
    convert_cpu: int = 7200
    timeout: float = 43200.0
    info_timeout: float = 120.0


@dataclass(frozen=True)
class Described:
    """What qemu-img says of an image: sizes in bytes, and the names of other files that it would open."""

    format: str
    virtual_size: int
    others: tuple[str, ...]


class QemuImg:
    """Runs qemu-img.

    :param lock_fd: a descriptor that every run holds open, so that the next life of this worker can end it.
    """

    def __init__(self, limits: Limits | None = None, *, lock_fd: int | None = None) -> None:
        self.limits = limits or Limits()
        self._lock_fd = lock_fd

    def info(self, fd: int, image_format: str) -> Described:
        """Return what the image behind an open descriptor says of itself, read as ``image_format``.

        :raises ImageUnacceptable: qemu-img cannot read it so, or it needs more than the limits allow.
        """
        argv = ["qemu-img", "info", "--output=json", "-U", "-f", image_format, _path(fd)]
        result = self._run(argv, (fd,), self.limits.info_cpu, timeout=self.limits.info_timeout)
        return described(result.stdout, _path(fd))

    def to_raw(self, source_fd: int, source_format: str, fd: int, size: int, progress: Progress) -> None:
        """Write an image as a raw one into an open file or device that reads as zeros, so that zeros are left out.

        :param size: bytes of the disk in the image. :param progress: called about once a second with the fraction that
            is done; what it raises ends qemu-img.
        :raises ImageUnacceptable: qemu-img fails, or needs more than the limits allow.
        """
        argv = [
            "qemu-img", "convert", "-p", "-n", "--target-is-zero", "-f", source_format, "-O", "raw",
            _path(source_fd), _path(fd),
        ]
        self._convert(argv, (source_fd, fd), max(size, _SAID), progress)

    def from_raw(self, source_fd: int, target_format: str, fd: int, size: int, progress: Progress) -> None:
        """Write a raw device or file into an open, empty file in another format.

        :param size: bytes of the source.
        """
        argv = ["qemu-img", "convert", "-p", "-U", "-f", "raw", "-O", target_format, _path(source_fd), _path(fd)]
        # What a format adds for its own tables is far less than an eighth.
        self._convert(argv, (source_fd, fd), size + size // 8 + 64 * MiB, progress)

    def _convert(self, argv: list[str], fds: tuple[int, ...], file_size: int, progress: Progress) -> None:
        told = os.memfd_create("qemu-img", os.MFD_CLOEXEC)
        try:
            self._run(
                argv, fds, self.limits.convert_cpu, timeout=self.limits.timeout, file_size=file_size, stdout=told,
                watch=lambda: progress(_fraction(told)),
            )
        finally:
            os.close(told)
        progress(1.0)

    def _run(
        self,
        argv: list[str],
        fds: tuple[int, ...],
        cpu: int,
        *,
        timeout: float,
        file_size: int = _SAID,
        stdout: int | None = None,
        watch: Callable[[], None] | None = None,
    ) -> process.Result:
        limits = [
            f"--as={self.limits.memory}", f"--stack={_STACK}", f"--cpu={cpu}", f"--fsize={file_size}", "--core=0",
        ]
        kept = fds if self._lock_fd is None else (*fds, self._lock_fd)
        result = process.run(
            ["prlimit", *limits, "--", *argv],
            timeout=timeout, env=_ENVIRONMENT, pass_fds=kept, stdout=stdout, watch=watch,
        )
        if result.status:
            reason = result.stderr.strip().splitlines()[-1:] or [f"it ended with {result.status}"]
            raise exception.ImageUnacceptable(
                f"qemu-img {argv[1]} failed: {reason[0]}",
                hint="If the image is sound, allow more: [images] convert_memory_mb, convert_cpu_seconds",
                reason=reason[0],
                status=result.status,
            )
        return result


def described(text: str, path: str) -> Described:
    """Return what ``qemu-img info --output=json`` has said.

    :param path: the name under which it was shown the image.
    :raises ImageUnacceptable: it cannot be understood.
    """
    try:
        values: dict[str, Any] = json.loads(text)
        specific = (values.get("format-specific") or {}).get("data") or {}
        others = [values.get("backing-filename"), values.get("full-backing-filename"), specific.get("data-file")]
        others += [item.get("filename") for item in specific.get("extents") or () if item.get("filename") != path]
        size = int(values["virtual-size"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise exception.ImageUnacceptable(
            f"qemu-img says nothing that could be understood of the image: {error}", reason=str(error)
        ) from error
    return Described(str(values.get("format")), size, tuple(str(item) for item in others if item))


def _path(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _fraction(fd: int) -> float:
    end = os.fstat(fd).st_size
    found = _PERCENT.findall(os.pread(fd, 256, max(0, end - 256)))
    return float(found[-1]) / 100 if found else 0.0

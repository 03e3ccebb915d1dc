# SPDX-License-Identifier: Apache-2.0
"""Start one guest, run pytest in it, bring back what it found; the machine is left as it was.

The guest's root is the machine's root, read-only, under an overlay that is discarded: the same interpreter, packages
and checkout as the caller's, without an image to build. One folder is written through. No network reaches it, so any
number of guests run side by side. This module must not know what the tests are about.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from volmgr.testing.lab import errors, report
from volmgr.testing.waiting import wait_until

PACKAGES = {
    "linux.uml": "user-mode-linux",
    "udevadm": "udev",
    "modprobe": "kmod",
    "ip": "iproute2",
    "lvm": "lvm2",
    "thin_check": "thin-provisioning-tools",
    "iscsid": "open-iscsi",
    "lsscsi": "lsscsi",
    "multipathd": "multipath-tools",
}
"""Program and the Debian package that has it."""

GUEST_ENV = "VOLMGR_LAB_GUEST"
"""Set inside a guest only, to the guest's name."""

OUTPUT_ENV = "VOLMGR_LAB_OUTPUT"
"""Set inside a guest only, to the file by which a module hands something back."""

READY_MARK = "volmgr-lab: ready"
"""The line of the guest's log after which the kernel's messages are the tests' doing."""

_RESULTS = "/run/volmgr-lab/results"
#: the newer form of the report has no place for what a test says of itself
_PYTEST = ("-p", "no:cacheprovider", f"--junitxml={_RESULTS}/junit.xml", "-o", "junit_family=xunit1")
_INHERITED = (
    "HOME", "LANG", "LC_ALL", "PYTHONPATH", "PYTEST_ADDOPTS", "VIRTUAL_ENV", "TERM",
    "VOLMGR_CHAOS_KILLS", "VOLMGR_CHAOS_SEED",
)
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_POLL_SECONDS = 0.2
_DRAIN_SECONDS = 5.0
_END_SECONDS = 30.0


@dataclass(frozen=True)
class GuestSpec:
    """What to run.

    :param pytest_args: arguments of pytest, paths relative to ``cwd``.
    :param memory_mib: memory of the guest, files in its temporary folders included.
    :param timeout_seconds: deadline of the tests.
    :param boot_timeout_seconds: deadline of the start, up to the first test.
    :param coverage: measure the coverage of the package ``volmgr``.
    :param cwd: the checkout.
    :param module: a Python module and its arguments, to run instead of pytest. What it writes to the file that
        :data:`OUTPUT_ENV` names comes back.
    """

    pytest_args: tuple[str, ...] = ()
    memory_mib: int = 1024
    timeout_seconds: float = 1800.0
    boot_timeout_seconds: float = 180.0
    coverage: bool = False
    cwd: Path = field(default_factory=Path.cwd)
    module: tuple[str, ...] = ()


@dataclass(frozen=True)
class GuestResult:
    """What came back.

    :param name: the guest's name, unique on this machine.
    :param status: pytest's exit status.
    :param cases: one entry per test; empty if pytest could not write its report.
    :param junit_xml: pytest's own report, or None.
    :param coverage_data: the content of coverage's data file, or None.
    :param output: what a module wrote, or None.
    :param kernel_log: the guest's kernel and start-up log.
    :param boot_seconds: from the kernel's start to the first test, by the guest's clock.
    :param process_group: the group of all processes of the guest; none is left.
    """

    name: str
    status: int
    cases: tuple[report.Case, ...]
    junit_xml: bytes | None
    coverage_data: bytes | None
    kernel_log: str
    boot_seconds: float
    process_group: int
    output: bytes | None = None


def require_programs() -> None:
    """Check that the machine can start a guest.

    :raises errors.LabUnavailable: a program is missing; the message names its Debian package.
    """
    path = f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"
    missing = [
        f"{program} (package {package})"
        for program, package in PACKAGES.items()
        if not shutil.which(program, path=path)
    ]
    if missing:
        raise errors.LabUnavailable(f"the lab needs {', '.join(missing)}: install them")
    if os.environ.get(GUEST_ENV):
        raise errors.LabUnavailable("a lab guest cannot start another one: run this on the machine itself")


def run_guest(spec: GuestSpec, sink: Callable[[bytes], object]) -> GuestResult:
    """Boot a guest, run pytest in it and wait for its end; everything made for it on the machine is removed.

    :param spec: what to run.
    :param sink: called with pytest's output as it comes.
    :raises errors.LabUnavailable: a program is missing.
    :raises errors.BootFailed: no test was started.
    :raises errors.GuestDied: the guest ended without pytest's exit status, by a panic for instance.
    :raises errors.GuestTimedOut: the tests did not end in time.
    """
    require_programs()
    compile_sources(spec.cwd)
    with results_folder() as folder:
        (folder / "init.sh").write_bytes(Path(__file__).with_name("guest-init.sh").read_bytes())
        (folder / "command.sh").write_text(pytest_command(spec, folder.name), encoding="utf-8")
        with (
            (folder / "console.log").open("wb") as console,
            started(spec, folder, console.fileno()) as (process, output),
        ):
            follow(spec, folder, process, output, sink)
        return result_of(folder, process)


@contextlib.contextmanager
def results_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="volmgr-lab-")).resolve()
    try:
        # The path travels on the guest kernel's command line, which has no way to quote these.
        if set(str(folder)) & set(" \t\"',\\"):
            raise errors.LabUnavailable(
                f"the temporary folder {str(folder.parent)!r} has a character the lab cannot pass on: set TMPDIR"
            )
        yield folder
    finally:
        shutil.rmtree(folder)


def compile_sources(cwd: Path) -> None:
    """Compile on the machine: the guest discards what it compiles and is slow; failing costs time only."""
    for folder in (Path(__file__).parents[2], cwd / "tests", cwd / "benchmarks"):
        if folder.is_dir():
            compileall.compile_dir(folder, quiet=2)


def pytest_command(spec: GuestSpec, name: str) -> str:
    """Return the shell script that runs pytest in the guest, with the caller's interpreter and folder."""
    environment = {key: os.environ[key] for key in _INHERITED if key in os.environ}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{_SYSTEM_PATH}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": "/run/volmgr-lab/tmp",
        "COLUMNS": str(shutil.get_terminal_size((120, 24)).columns),
        "PY_COLORS": "1" if sys.stdout.isatty() else "0",
        GUEST_ENV: name,
    }
    pytest = [sys.executable, "-m", "pytest", *_PYTEST]
    if spec.module:
        environment[OUTPUT_ENV] = f"{_RESULTS}/output"
        pytest = [sys.executable, "-m", *spec.module]
    elif spec.coverage:
        environment["COVERAGE_FILE"] = "/run/volmgr-lab/tmp/.coverage"
        pytest += ["--cov=volmgr", "--cov-report="]
    lines = [f"export {key}={shlex.quote(value)}" for key, value in environment.items()]
    lines += [
        f"cd {shlex.quote(str(spec.cwd))} || exit 4",
        shlex.join([*pytest, *spec.pytest_args]),
        "status=$?",
        # SQLite wants a real file system below it, so the data file is made elsewhere and copied.
        f'if [ -f "$COVERAGE_FILE" ]; then cp "$COVERAGE_FILE" {_RESULTS}/coverage; fi',
        "exit $status",
    ]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def started(spec: GuestSpec, folder: Path, console: int) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Yield the guest's process and the reading end of its terminal; at the end no process of it is left."""
    reader, writer = os.pipe()
    try:
        process = _spawn(spec, folder, console, writer)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        with guarded(process.pid, folder):
            yield process, reader
    finally:
        # Each process of the guest's programs is a process here, in the group of the first one.
        with contextlib.suppress(ProcessLookupError):  # all have ended by themselves
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(reader)
        # A killed process goes when the machine finds time for it, and only the first one is our child.
        wait_until(lambda: not living(process.pid), _END_SECONDS, f"the end of the processes of group {process.pid}")


def living(process_group: int) -> list[int]:
    """Return the processes of a group that have not ended; one that only waits to be reaped has (proc(5), stat)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended between two looks
            state, _parent, group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(group) == process_group and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


@contextlib.contextmanager
def guarded(process_group: int, folder: Path) -> Iterator[None]:
    """Have a guest and its folder removed even if the harness is killed: its end closes the pipe that a shell reads.

    A parent-death signal would not do: it ends the first process of the guest, and its helpers stay.
    """
    script = 'read -r _; kill -s KILL -- "-$1"; rm -rf -- "$2"'
    command = ["/bin/sh", "-c", script, "volmgr-lab-guard", str(process_group), str(folder)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True) as guard:
        try:
            yield
        finally:
            guard.kill()


def _spawn(spec: GuestSpec, folder: Path, console: int, terminal: int) -> subprocess.Popen[bytes]:
    arguments = [
        *("linux.uml", f"mem={spec.memory_mib}M", f"umid={folder.name}", f"uml_dir={folder}/uml"),
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "init=/bin/bash"),
        *("con=null", f"con0=null,fd:{console}", f"con1=null,fd:{terminal}", "ssl=null"),
        *(f"VOLMGR_LAB_RESULTS={folder}", f"{GUEST_ENV}={folder.name}", "--", f"{folder}/init.sh"),
    ]
    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
        pass_fds=(console, terminal),
        start_new_session=True,
        env={"PATH": _SYSTEM_PATH, "HOME": str(folder)},
    )


def follow(
    spec: GuestSpec, folder: Path, process: subprocess.Popen[bytes], output: int, sink: Callable[[bytes], object]
) -> None:
    """Hand on the output until the guest ends or a deadline passes."""
    ready = False
    deadline = time.monotonic() + spec.boot_timeout_seconds
    while process.poll() is None:
        _pump(output, sink, _POLL_SECONDS)
        if not ready and (folder / "ready").exists():
            ready, deadline = True, time.monotonic() + spec.timeout_seconds
        if time.monotonic() > deadline:
            if not ready:
                late = f"the guest did not start within {spec.boot_timeout_seconds:g} s"
                raise errors.BootFailed(late, log_of(folder))
            raise errors.GuestTimedOut(f"the tests did not end within {spec.timeout_seconds:g} s", log_of(folder))
    drained = time.monotonic() + _DRAIN_SECONDS
    while time.monotonic() < drained and _pump(output, sink, 0.0):
        pass


def _pump(output: int, sink: Callable[[bytes], object], wait_seconds: float) -> bool:
    """Hand on what is there, after waiting for it; return whether more may come at once."""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        if not selector.select(wait_seconds):
            return False
    data = os.read(output, 65536)
    if data:
        sink(data)
    elif wait_seconds:
        # The guest has closed its end and is about to disappear: select would return at once again and again.
        time.sleep(wait_seconds)
    return bool(data)


def result_of(folder: Path, process: subprocess.Popen[bytes]) -> GuestResult:
    log = log_of(folder)
    if not (folder / "ready").exists():
        reason = _content(folder / "boot-error")
        raise errors.BootFailed(f"the guest did not start: {reason.decode().strip() if reason else 'see its log'}", log)
    status = _content(folder / "status")
    if not status:
        panic = next((line for line in log.splitlines() if line.startswith("Kernel panic")), None)
        raise errors.GuestDied(panic or "the guest ended without an exit status", log)
    junit_xml = _content(folder / "junit.xml")
    return GuestResult(
        name=folder.name,
        status=int(status),
        cases=report.parse(junit_xml) if junit_xml else (),
        junit_xml=junit_xml,
        coverage_data=_content(folder / "coverage"),
        kernel_log=log,
        boot_seconds=float((folder / "ready").read_text(encoding="ascii")),
        process_group=process.pid,
        output=_content(folder / "output"),
    )


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def log_of(folder: Path) -> str:
    return (folder / "console.log").read_text(encoding="utf-8", errors="replace")

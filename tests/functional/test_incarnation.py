# SPDX-License-Identifier: Apache-2.0
"""Two lives of a worker never touch the same storage: the lock, and what becomes of a dead worker's children."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from volmgr import exception
from volmgr.incarnation import Incarnation, command_of, end_life, holders, lockers, now, started
from volmgr.testing.waiting import wait_until

#: seconds: a look through all processes takes long on a busy machine.
PATIENCE = 120.0

HOLD = """
import sys
from volmgr.incarnation import Incarnation
import os, subprocess, time
inc = Incarnation(sys.argv[1], "node@b")
inc.acquire()
if sys.argv[2] == "child":
    os.set_inheritable(inc.fd, True)
    child = subprocess.Popen(["sleep", "300"], pass_fds=(inc.fd,), stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    os._exit(0)
print("held", flush=True)
sys.stdin.read()
"""


RUN = """
import sys
from volmgr.incarnation import Incarnation
from volmgr.tools import process
inc = Incarnation(sys.argv[1], "node@b")
inc.acquire()
process.run(["sleep", "300"], timeout=300, stdin=inc.fd)
"""


def hold(folder: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_living_worker_is_not_disturbed(tmp_path: Path) -> None:
    other = hold(tmp_path, "stay")
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(exception.Conflict) as error:
        Incarnation(str(tmp_path), "node@b").acquire()
    assert error.value.details["pid"] == other.pid
    assert str(other.pid) in error.value.hint
    other.communicate("")
    mine = Incarnation(str(tmp_path), "node@b")
    mine.acquire(PATIENCE)
    assert mine.fd > 0
    mine.release()


def test_a_dead_workers_child_is_ended_before_the_lock_is_had(tmp_path: Path) -> None:
    other = hold(tmp_path, "child")
    out, _ = other.communicate("")
    child = int(out)
    assert started(child) is not None
    mine = Incarnation(str(tmp_path), "node@b")
    born = int(started(child) or 0)
    assert holders(mine.path) == holders(mine.path, born) == [child]
    assert holders(mine.path, born + 1) == []
    assert born <= now()
    mine.acquire(PATIENCE)
    assert started(child) is None
    mine.release()


def test_a_worker_that_dies_while_a_child_runs(tmp_path: Path) -> None:
    """As it is for every program that it starts: the kill point lies between the child's start and its end."""
    died = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)],
        env={**os.environ, "VOLMGR_KILL_AT": "child/-/sleep.runs"},
        timeout=60,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    mine = Incarnation(str(tmp_path), "node@b")
    (child,) = holders(mine.path)
    assert "sleep" in command_of(child)
    mine.acquire(PATIENCE)
    assert started(child) is None
    mine.release()


def test_a_recycled_pid_is_not_taken_for_the_old_worker(tmp_path: Path) -> None:
    other = hold(tmp_path, "child")
    child = int(other.communicate("")[0])
    mine = Incarnation(str(tmp_path), "node@b")
    # The file names a process that lives, but that started at another time.
    text = mine.path.read_text()
    mine.path.write_text(text.replace(f'"pid": {other.pid}', '"pid": 1'))
    mine.acquire(PATIENCE)
    assert started(child) is None
    mine.release()


def test_backends_have_locks_of_their_own(tmp_path: Path) -> None:
    one, two = Incarnation(str(tmp_path), "node@a"), Incarnation(str(tmp_path), "node@b")
    one.acquire()
    two.acquire()
    one.release()
    two.release()


def test_a_process_that_nobody_waits_for_is_told_from_a_child(tmp_path: Path) -> None:
    """A child of a child whose parent has died holds the lock on, and descends from somebody else."""
    incarnation = Incarnation(str(tmp_path), "host@backend")
    assert incarnation.left_over() == []
    incarnation.acquire()
    child = subprocess.Popen(["sleep", "600"], pass_fds=[incarnation.fd])
    start = "subprocess.Popen(['sleep', '600'], pass_fds=[int(sys.argv[1])], stdout=2)"
    script = f"import subprocess, sys; print({start}.pid)"
    argv = [sys.executable, "-c", script, str(incarnation.fd)]
    with subprocess.Popen(argv, pass_fds=[incarnation.fd], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
    try:
        assert incarnation.left_over() == [orphan]
        assert command_of(orphan) == "sleep 600"
    finally:
        os.kill(orphan, signal.SIGKILL)
        child.kill()
        child.wait()
    wait_until(lambda: incarnation.left_over() == [], 10, "the orphan has ended")
    assert command_of(orphan) == ""
    incarnation.release()


def stopped(folder: Path) -> tuple[subprocess.Popen[str], Path, str]:
    """Start a worker and stop it as SIGSTOP does; returns it, its lock file and its life."""
    other = hold(folder, "stay")
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    os.kill(other.pid, signal.SIGSTOP)
    path = Incarnation(str(folder), "node@b").path
    return other, path, json.loads(path.read_text())["id"]


def test_a_life_is_ended_also_while_it_is_stopped(tmp_path: Path) -> None:
    other, path, life = stopped(tmp_path)
    assert lockers(path) == [other.pid]
    assert end_life(path, life, PATIENCE)
    assert other.wait(60) == -signal.SIGKILL
    assert lockers(path) == []
    assert end_life(path, life, PATIENCE)


def test_what_a_dead_life_has_started_is_ended(tmp_path: Path) -> None:
    other = hold(tmp_path, "child")
    child = int(other.communicate("")[0])
    path = Incarnation(str(tmp_path), "node@b").path
    assert end_life(path, json.loads(path.read_text())["id"], PATIENCE)
    assert started(child) is None


def test_a_later_life_is_left_alone(tmp_path: Path) -> None:
    other, path, _life = stopped(tmp_path)
    with path.open():  # who only looks at the file holds no lock
        assert end_life(path, "an earlier life")
        assert lockers(path) == [other.pid]
    assert started(other.pid) is not None
    other.kill()
    other.wait(60)
    assert not end_life(tmp_path / "nothing", "a life of which nothing is known")


def test_a_later_life_that_has_not_said_yet_who_it_is(tmp_path: Path) -> None:
    """It has taken the lock, and the file still names the life before it."""
    other = hold(tmp_path, "stay")
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    path = Incarnation(str(tmp_path), "node@b").path
    path.write_text(json.dumps({"id": "an earlier life", "pid": other.pid, "started": "1"}))
    assert end_life(path, "an earlier life", PATIENCE)
    assert other.poll() is None
    other.kill()
    other.wait(60)


ARM = """
import os, signal, sys, time
from volmgr import deadline
timer = deadline.Deadline()
timer.set(deadline.now() + 0.1)
timer.set(None)
time.sleep(0.2)
timer.set(deadline.now() + 3)
os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(3600)
"""


def test_the_kernel_ends_a_process_that_is_stopped() -> None:
    """Nobody lets it go on; the timer that was unset before had no effect."""
    process = subprocess.Popen([sys.executable, "-c", ARM])
    _pid, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert process.wait(60) == -signal.SIGKILL

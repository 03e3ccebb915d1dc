# SPDX-License-Identifier: Apache-2.0
"""Programs are run to their end, with a deadline, and see nothing of our environment but what they are given."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from volmgr import exception
from volmgr.testing.waiting import wait_until
from volmgr.tools import process


def test_output_and_status_are_kept_apart() -> None:
    done = process.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout=30)
    assert (done.status, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_much_output_does_not_block() -> None:
    done = process.run(["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"], timeout=60)
    assert done.stdout == "x" * 3_000_000


def test_a_signal_shows_as_a_negative_status() -> None:
    assert process.run(["sh", "-c", "kill -SEGV $$"], timeout=30).status == -11


def test_the_environment_is_ours_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "of the daemon")
    done = process.run(["env"], timeout=30, env={"GIVEN": "1"})
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert seen == {"PATH": process.PATH, "LC_ALL": "C", "GIVEN": "1"}


def test_a_missing_program_is_named() -> None:
    with pytest.raises(exception.ToolMissing) as caught:
        process.run(["no-such-program-of-volmgr"], timeout=30)
    assert "no-such-program-of-volmgr" in caught.value.message


def test_at_the_deadline_the_whole_group_ends(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(exception.Timeout):
        process.run(["sh", "-c", f"sleep 300 & echo $! $$ > {pids}; wait"], timeout=1)
    left = [int(word) for word in pids.read_text().split()]
    assert len(left) == 2
    wait_until(lambda: not any(_runs(pid) for pid in left), 10, "the group has ended")


def test_what_stays_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    # It keeps the output open, as dmeventd would.
    done = process.run(["sh", "-c", "setsid sleep 300 & echo $!"], timeout=30)
    pid = int(done.stdout)
    try:
        assert done.status == 0
        assert _runs(pid)
    finally:
        os.kill(pid, 9)


def test_descriptors_are_inherited(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("the lock")
    fd = os.open(tmp_path / "lock", os.O_RDONLY)
    try:
        assert process.run(["cat"], timeout=30, stdin=fd).stdout == "the lock"
        assert process.run(["sh", "-c", f"readlink /proc/self/fd/{fd}"], timeout=30, pass_fds=[fd]).stdout == (
            f"{tmp_path / 'lock'}\n"
        )
        assert process.run(["sh", "-c", f"readlink /proc/self/fd/{fd}"], timeout=30).status == 1
    finally:
        os.close(fd)


def test_other_threads_run_meanwhile(tmp_path: Path) -> None:
    """The program ends only when another thread, green or native, answers it: to block that would be a time-out."""
    asked, answered = tmp_path / "asked", tmp_path / "answered"

    def answer() -> None:
        wait_until(asked.exists, 10, "the program has asked")
        answered.touch()

    thread = threading.Thread(target=answer)
    thread.start()
    done = process.run(["sh", "-c", f"touch {asked}; while [ ! -e {answered} ]; do sleep 0.02; done"], timeout=20)
    thread.join(30)
    assert done.status == 0


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False

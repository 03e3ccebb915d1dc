# SPDX-License-Identifier: Apache-2.0
"""The kernel's iSCSI initiator, by ``iscsiadm``, inside a guest; nothing of a session stays.

It must not know what serves the disk. CHAP secrets go into the node's record, never on a command line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from volmgr.testing.lab.commands import run, wait_until
from volmgr.testing.lab.errors import CommandFailed
from volmgr.testing.lab.lio import Chap, Export

AUTH_FAILED = 24
"""``iscsiadm``'s exit status when the target refuses the credentials (ISCSI_ERR_LOGIN_AUTH_FAILED)."""

_NO_OBJECTS = 21  # ISCSI_ERR_NO_OBJS_FOUND
_NODES = Path("/etc/iscsi/nodes")


def initiator_name() -> str:
    """Return this guest's IQN."""
    return Path("/etc/iscsi/initiatorname.iscsi").read_text(encoding="ascii").strip().removeprefix("InitiatorName=")


def sessions() -> list[str]:
    """Return one line per session."""
    try:
        return run("iscsiadm", "-m", "session").splitlines()
    except CommandFailed as error:
        if error.status == _NO_OBJECTS:
            return []
        raise


@contextlib.contextmanager
def logged_in(export: Export, chap: Chap) -> Iterator[Path]:
    """Discover a target, log in and yield the disk; at the end log out and forget the target.

    :param export: what is served.
    :param chap: the credentials to try.
    :raises CommandFailed: of status :data:`AUTH_FAILED` when the target refuses the credentials.
    """
    node = ("iscsiadm", "-m", "node", "-T", export.iqn, "-p", export.portal)
    run("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", export.portal)
    with contextlib.ExitStack() as undo:
        undo.callback(run, *node, "-o", "delete")
        _set_chap(export, chap)
        run(*node, "--login")
        undo.callback(_log_out, node, export)
        run("udevadm", "settle")
        wait_until(export.by_path.exists, f"{export.by_path} is there")
        yield export.by_path.resolve()


def _log_out(node: tuple[str, ...], export: Export) -> None:
    run("udevadm", "settle")
    run(*node, "--logout")
    run("udevadm", "settle")
    wait_until(lambda: not export.by_path.exists(), f"{export.by_path} is gone")


def _set_chap(export: Export, chap: Chap) -> None:
    """Write the credentials into the record that discovery made: ``iscsiadm`` takes them as arguments only."""
    settings = {"authmethod": "CHAP", "username": chap.user, "password": chap.secret}
    for record in (_NODES / export.iqn).glob(f"{export.address},{export.port},*/default"):
        kept = [line for line in record.read_text(encoding="utf-8").splitlines() if "node.session.auth." not in line]
        end = kept.index("# END RECORD")
        kept[end:end] = [f"node.session.auth.{key} = {value}" for key, value in settings.items()]
        record.chmod(0o600)
        record.write_text("\n".join(kept) + "\n", encoding="utf-8")

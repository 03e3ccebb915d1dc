# SPDX-License-Identifier: Apache-2.0
"""What is sent to tgtd and what is made of its answers, without a tgtd: packing, listings as recorded, deadlines."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volmgr import exception
from volmgr.tools.tgt import TgtClient, errors, show, wire
from volmgr.types import Secret

#: As tgtd 1.0.85 printed it: one initiator logged in over CHAP, one disk, access by name and by network.
LISTING = """Target 1: iqn.x:a
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
        I_T nexus: 3
            Initiator: iqn.i:1 alias: none
            Connection: 0
                IP Address: 127.0.0.1
    LUN information:
        LUN: 0
            Type: controller
            SCSI ID: IET     00010000
            SCSI SN: beaf10
            Size: 0 MB, Block size: 1
            Online: Yes
            Removable media: No
            Prevent removal: No
            Readonly: No
            SWP: No
            Thin-provisioning: No
            Backing store type: null
            Backing store path: None
            Backing store flags: 
        LUN: 1
            Type: disk
            SCSI ID: VMGR0123456789abcdef0123
            SCSI SN: 0123456789abcdef0123456789abcdef
            Size: 8 MB, Block size: 512
            Online: Yes
            Removable media: No
            Prevent removal: No
            Readonly: Yes
            SWP: No
            Thin-provisioning: Yes
            Backing store type: rdwr
            Backing store path: /tmp/a: folder/f.img
            Backing store flags: 
    Account information:
        u1
        us (outgoing)
    ACL information:
        10.0.0.0/24
        iqn.init:1
Target -5: iqn.x:m5
    System information:
        Driver: iscsi
        State: offline
    I_T nexus information:
    LUN information:
    Account information:
    ACL information:
"""  # noqa: W291 - tgtd's own trailing blank
CONNECTIONS = """Session: 3
    Connection: 0
        Initiator: iqn.i:1
        IP Address: 127.0.0.1
    Connection: 1
        Initiator: iqn.i:1
        IP Address: 127.0.0.2
"""
SYSTEM = """System:
    State: ready
    debug: off
LLDs:
    iscsi: ready
    iser: error
Backing stores:
    smc (bsoflags sync:direct)
    aio
"""


def test_listing_of_targets() -> None:
    first, second = show.parse_targets(LISTING)
    assert first == show.Target(
        tid=1,
        name="iqn.x:a",
        sessions=(show.Session(3, "iqn.i:1", (show.Connection(0, "127.0.0.1"),)),),
        luns=(first.luns[0], first.disks[0]),
        accounts=("u1",),
        outgoing_account="us",
        acls=("10.0.0.0/24", "iqn.init:1"),
    )
    assert first.disks == (
        show.Lun(
            1,
            scsi_id="VMGR0123456789abcdef0123",
            serial="0123456789abcdef0123456789abcdef",
            size_mb=8,
            read_only=True,
            thin=True,
            path="/tmp/a: folder/f.img",
        ),
    )
    assert first.luns[0].path is None
    assert second == show.Target(-5, "iqn.x:m5", state="offline")
    assert show.parse_targets("") == ()


def test_other_listings() -> None:
    both = (show.Connection(0, "127.0.0.1"), show.Connection(1, "127.0.0.2"))
    assert show.parse_sessions(CONNECTIONS) == (show.Session(3, "iqn.i:1", both),)
    assert show.parse_portals("Portal: [::1]:3260,1\nPortal: 127.0.0.1:3260,1\n") == ("[::1]:3260", "127.0.0.1:3260")
    assert show.parse_accounts("Account list:\n    a\n    b c\n") == ("a", "b c")
    assert show.parse_accounts("") == ()
    assert show.parse_parameters("MaxQueueCmd=128\nx=\n") == {"MaxQueueCmd": "128", "x": ""}
    system = show.parse_system(SYSTEM)
    assert (system.state, system.drivers["iser"], system.backing_stores) == ("ready", "error", ("smc", "aio"))


@pytest.mark.parametrize(
    "alias",
    [
        "x\nTarget 9: iqn.victim",
        "x\n    ACL information:\n        iqn.evil",
        "x\n    LUN information:\n        LUN: 1",
        "x\n   odd",
        "x\nTarget 1: iqn.twice\n    System information:",
    ],
)
def test_alias_that_writes_into_the_listing_is_an_error(alias: str) -> None:
    with pytest.raises(errors.TgtProtocolError):
        show.parse_targets(LISTING.replace("alias: none", f"alias: {alias}"))


@given(st.text(alphabet=st.sampled_from("TargeLUN: 0123\n    "), max_size=400) | st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for parse in (show.parse_targets, show.parse_sessions, show.parse_portals, show.parse_accounts, show.parse_system):
        try:
            parse(text)
        except errors.TgtProtocolError as error:
            assert error.details["reason"]


name = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789.:-/", min_size=1, max_size=60)


@given(st.dictionaries(st.integers(1, 2**30), st.tuples(name, name, name, st.integers(0, 2**30)), max_size=5))
def test_what_tgtd_would_print_is_read_back(wanted: dict[int, tuple[str, str, str, int]]) -> None:
    block = LISTING[: LISTING.index("Target -5")]
    text = "".join(
        block.replace("Target 1: iqn.x:a", f"Target {tid}: {target}")
        .replace("/tmp/a: folder/f.img", f"/{path}")
        .replace("iqn.init:1", f"iqn.{acl}")
        .replace("Size: 8 MB", f"Size: {size} MB")
        for tid, (target, path, acl, size) in wanted.items()
    )
    targets = show.parse_targets(text)
    read = {one.tid: (one.name, one.disks[0].path, one.acls[1], one.disks[0].size_mb) for one in targets}
    assert read == {tid: (one, f"/{path}", f"iqn.{acl}", size) for tid, (one, path, acl, size) in wanted.items()}


def test_request_as_tgtadm_sends_it() -> None:
    """Recorded by strace of ``tgtadm --mode target --op new --tid 1 -T iqn.x:a``."""
    request = wire.Request(wire.Mode.TARGET, wire.Op.NEW, 1, params="targetname=iqn.x:a")
    head = struct.pack("<II64sIiQQ", 1, 0, b"iscsi", 139, 1, 0, 2**64 - 1) + bytes(24)
    assert request.pack() == head + b"targetname=iqn.x:a\0"
    force = wire.Request(wire.Mode.TARGET, wire.Op.DELETE, 7, force=True).pack()
    assert (len(force), force[-4:]) == (120, b"\1\0\0\0")


@pytest.mark.parametrize("bad", ["a,b", "a\nb", "a\0b", ""])
def test_value_that_would_end_early_is_refused_and_a_password_not_shown(bad: str) -> None:
    client = TgtClient("/nonexistent/socket", 1)
    with pytest.raises(errors.TgtInvalid):
        client.new_target(1, bad)
    with pytest.raises(errors.TgtInvalid) as caught:
        client.new_account("user", Secret(f"hidden{bad}," if bad else bad))
    assert "hidden" not in str(caught.value) + repr(caught.value.details)
    assert "hidden" not in repr(wire.Request(wire.Mode.ACCOUNT, wire.Op.NEW, params="password=hidden"))


def test_each_number_has_its_error() -> None:
    kinds = {number: type(errors.from_number(number, request="r", socket="s")) for number in range(1, 25)}
    assert len(set(kinds.values())) == 24
    assert issubclass(kinds[4], exception.NotFound) and issubclass(kinds[9], exception.Conflict)
    assert issubclass(kinds[19], exception.Busy) and issubclass(kinds[22], exception.Unsupported)
    assert type(errors.from_number(99, request="r", socket="s")) is errors.TgtNumberedError
    error = errors.from_number(4, request="lun new", socket="s")
    assert isinstance(exception.from_primitive(exception.to_primitive(error)), errors.TgtNoTarget)


@contextmanager
def server(path: Path, answer: bytes | None) -> Iterator[str]:
    """Listen, read one request, send ``answer`` and hang up; None: keep the connection and say nothing."""
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(path.parent, os.O_PATH)
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        listener.listen()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(4096)
                if answer is None:
                    done.wait(20)
                else:
                    peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield str(path)
        done.set()
        thread.join(20)


def test_silence_is_a_timeout(tmp_path: Path) -> None:
    with server(tmp_path / "s", None) as path, pytest.raises(errors.TgtTimeout, match="system show"):
        TgtClient(path, 0.2).system()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", errors.TgtDown),
        (struct.pack("<II", 0, 100) + b"cut off", errors.TgtDown),
        (struct.pack("<II", 0, 3), errors.TgtProtocolError),
        (struct.pack("<II", 0, 2**32 - 1), errors.TgtProtocolError),
        (struct.pack("<II", 4, 8), errors.TgtNoTarget),
    ],
)
def test_bad_answers_are_typed(tmp_path: Path, answer: bytes, kind: type[Exception]) -> None:
    with server(tmp_path / "s", answer) as path, pytest.raises(kind):
        TgtClient(path, 5).system()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(errors.TgtDown):
        TgtClient(str(tmp_path / "none"), 1).targets()


def test_path_longer_than_a_socket_address(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 150)
    folder.mkdir()
    text = b"Account list:\n    one\n\0"
    with server(folder / "s", struct.pack("<II", 0, 8 + len(text)) + text) as path:
        assert TgtClient(path, 5).accounts() == ("one",)

# SPDX-License-Identifier: Apache-2.0
"""Every request that volmgr makes of a tgtd, typed.

A connection per request: tgtd closes after each answer, and one costs a tenth of a millisecond. No object here holds
any state of tgtd's, so a client can be shared by threads. It knows targets, LUNs, accounts and access lists by their
numbers and names, and nothing of volumes.
"""

from __future__ import annotations

from volmgr.tools.tgt import errors, show, wire
from volmgr.tools.tgt.wire import Mode, Op, Request
from volmgr.types import Secret

#: Characters that end a value in tgtd's parameter text.
_FORBIDDEN = ",\0\n\r"
_PASSWORD = "password"  # noqa: S105 - the parameter's name


class TgtClient:
    """The management of one tgtd.

    :param socket: path of its control socket, ``/var/run/tgtd/socket.0`` for the system's own.
    :param timeout: seconds for each request.
    """

    def __init__(self, socket: str, timeout: float = 60.0) -> None:
        self.socket = socket
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"TgtClient({self.socket!r})"

    def _ask(self, request: Request) -> str:
        return wire.send(self.socket, request, self.timeout).text

    # --- tgtd itself

    def pid(self) -> int:
        """Return the process id of the tgtd, as the kernel tells it.

        It takes a whole request: tgtd 1.0.85 spins on a connection that is closed without one, once it has had a
        session.
        """
        return wire.send(self.socket, Request(Mode.PORTAL, Op.SHOW), self.timeout).pid

    def system(self) -> show.System:
        """Return tgtd's own state."""
        return show.parse_system(self._ask(Request(Mode.SYSTEM, Op.SHOW)))

    def set_system(self, name: str, value: str) -> None:
        """Set a property of tgtd, for example ``debug`` to ``on``."""
        self._ask(Request(Mode.SYSTEM, Op.UPDATE, params=_pairs({name: value})))

    def end(self) -> None:
        """Tell a tgtd without targets to end, as ``tgtadm --op delete --mode system`` does.

        :raises TgtDriverActive: there are targets yet.
        """
        self._ask(Request(Mode.SYSTEM, Op.DELETE))

    # --- targets

    def targets(self) -> tuple[show.Target, ...]:
        """Return all targets; the one request whose cost grows with their number (about 1.1 KB and 7 µs each)."""
        return show.parse_targets(self._ask(Request(Mode.TARGET, Op.SHOW)))

    def parameters(self, tid: int) -> dict[str, str]:
        """Return the iSCSI parameters of one target: all that tgtd tells about a single one.

        :raises TgtNoTarget: there is no such target.
        """
        return show.parse_parameters(self._ask(Request(Mode.TARGET, Op.SHOW, tid)))

    def new_target(self, tid: int, name: str) -> None:
        """Make an empty target: LUN 0, no access list, so nobody can log in.

        :raises TgtTargetExists: the number or the name is taken.
        """
        self._ask(Request(Mode.TARGET, Op.NEW, tid, params=_pairs({"targetname": name})))

    def delete_target(self, tid: int, *, force: bool = False) -> None:
        """Delete a target with all that belongs to it.

        :param force: end its sessions first.
        :raises TgtTargetActive: it has sessions. :raises TgtNoTarget: there is no such target.
        """
        self._ask(Request(Mode.TARGET, Op.DELETE, tid, force=force))

    def set_target(self, tid: int, name: str, value: str) -> None:
        """Set a property of a target: ``state`` to ``offline`` or ``ready``, or an iSCSI parameter."""
        self._ask(Request(Mode.TARGET, Op.UPDATE, tid, params=_pairs({name: value})))

    # --- logical units

    def new_lun(self, tid: int, lun: int, path: str, *, backing_type: str = "rdwr", block_size: int = 512) -> None:
        """Open ``path`` and show it as a disk. Its identifiers are tgtd's own until :meth:`update_lun`.

        :param backing_type: ``rdwr`` (threads) or ``aio``.
        :raises TgtLunExists: the number is taken. :raises TgtUnknownError: the path cannot be opened.
        """
        pairs = _pairs({"path": path, "bstype": backing_type, "blocksize": str(block_size)})
        self._ask(Request(Mode.LUN, Op.NEW, tid, lun=lun, params=pairs))

    def delete_lun(self, tid: int, lun: int) -> None:
        """Close a logical unit.

        :raises TgtLunActive: a command is being carried out on it.
        """
        self._ask(Request(Mode.LUN, Op.DELETE, tid, lun=lun))

    def update_lun(
        self,
        tid: int,
        lun: int,
        *,
        scsi_id: str | None = None,
        serial: str | None = None,
        vendor: str | None = None,
        product: str | None = None,
        revision: str | None = None,
        read_only: bool | None = None,
        thin: bool | None = None,
        online: bool | None = None,
    ) -> None:
        """Set what an initiator sees of a logical unit; None leaves a property as it is. All in one request.

        :param serial: unit serial number, VPD page 0x80. :param scsi_id: identifier in VPD page 0x83.
        :param thin: announce UNMAP; on a file tgtd punches holes.
        :raises TgtNoLun: there is no such logical unit.
        """
        values = {
            "scsi_id": scsi_id,
            "scsi_sn": serial,
            "vendor_id": vendor,
            "product_id": product,
            "product_rev": revision,
            "readonly": _flag(read_only),
            "thin_provisioning": _flag(thin),
            "online": _flag(online),
        }
        pairs = _pairs({key: value for key, value in values.items() if value is not None})
        self._ask(Request(Mode.LUN, Op.UPDATE, tid, lun=lun, params=f"targetOps {pairs}"))

    # --- access list

    def allow_name(self, tid: int, initiator: str) -> None:
        """Let the initiator of that name log in.

        :raises TgtAclExists: it may already.
        """
        self._acl(tid, Op.BIND, "initiator-name", initiator)

    def deny_name(self, tid: int, initiator: str) -> None:
        """Take the initiator's name from the access list; its sessions stay until they are ended.

        :raises TgtNoAcl: it is not there.
        """
        self._acl(tid, Op.UNBIND, "initiator-name", initiator)

    def allow_address(self, tid: int, address: str) -> None:
        """Let that address, network (``10.0.0.0/8``) or ``ALL`` connect.

        :raises TgtAclExists: it may already.
        """
        self._acl(tid, Op.BIND, "initiator-address", address)

    def deny_address(self, tid: int, address: str) -> None:
        """Take an address from the access list.

        :raises TgtNoAcl: it is not there.
        """
        self._acl(tid, Op.UNBIND, "initiator-address", address)

    def _acl(self, tid: int, op: Op, key: str, value: str) -> None:
        self._ask(Request(Mode.TARGET, op, tid, params=_pairs({key: value})))

    # --- accounts, which are tgtd's own and bound to targets

    def accounts(self) -> tuple[str, ...]:
        """Return the names of all accounts; tgtd never shows a password."""
        return show.parse_accounts(self._ask(Request(Mode.ACCOUNT, Op.SHOW)))

    def new_account(self, user: str, password: Secret) -> None:
        """Make a CHAP account.

        :raises TgtAccountExists: the name is taken, whatever its password.
        """
        pairs = _pairs({"user": user, _PASSWORD: password.reveal()})
        self._ask(Request(Mode.ACCOUNT, Op.NEW, params=pairs))

    def delete_account(self, user: str) -> None:
        """Delete an account and its bindings; a target without one asks for no password any more.

        :raises TgtNoAccount: there is no such account.
        """
        self._ask(Request(Mode.ACCOUNT, Op.DELETE, params=_pairs({"user": user})))

    def bind_account(self, tid: int, user: str, *, outgoing: bool = False) -> None:
        """Make a target ask for that account (``outgoing``: make the target prove itself with it).

        :raises TgtNoAccount: there is no such account. :raises TgtAccountExists: it is bound already.
        """
        self._ask(Request(Mode.ACCOUNT, Op.BIND, tid, outgoing=outgoing, params=_pairs({"user": user})))

    def unbind_account(self, tid: int, user: str, *, outgoing: bool = False) -> None:
        """Take an account from a target.

        :raises TgtNoAccount: there is no such account, or it is not bound.
        """
        self._ask(Request(Mode.ACCOUNT, Op.UNBIND, tid, outgoing=outgoing, params=_pairs({"user": user})))

    # --- sessions and portals

    def sessions(self, tid: int) -> tuple[show.Session, ...]:
        """Return who is logged in to one target.

        :raises TgtNoTarget: there is no such target.
        """
        return show.parse_sessions(self._ask(Request(Mode.CONNECTION, Op.SHOW, tid)))

    def close_connection(self, tid: int, sid: int, cid: int) -> None:
        """End one connection of a session; the initiator may log in again if the access list lets it.

        :raises TgtNoSession: the session is over. :raises TgtNoConnection: the connection is.
        """
        self._ask(Request(Mode.CONNECTION, Op.DELETE, tid, sid=sid, cid=cid))

    def portals(self) -> tuple[str, ...]:
        """Return where tgtd listens, as ``address:port``."""
        return show.parse_portals(self._ask(Request(Mode.PORTAL, Op.SHOW)))

    def new_portal(self, portal: str) -> None:
        """Listen on ``address:port`` as well.

        :raises TgtUnknownError: the address is not this machine's or the port is taken.
        """
        self._ask(Request(Mode.PORTAL, Op.NEW, params=f"portalOps {_pairs({'portal': portal})}"))

    def delete_portal(self, portal: str) -> None:
        """Stop listening on ``address:port``."""
        self._ask(Request(Mode.PORTAL, Op.DELETE, params=f"portalOps {_pairs({'portal': portal})}"))


def _flag(value: bool | None) -> str | None:
    return None if value is None else str(int(value))


def _pairs(values: dict[str, str]) -> str:
    """Return ``key=value,key=value``; tgtd has no way to write a comma inside a value."""
    for key, value in values.items():
        bad = [character for character in _FORBIDDEN if character in value]
        if bad or not value:
            reason = f"it contains {bad[0]!r}" if bad else "it is empty"
            raise errors.TgtInvalid(field=key, reason=reason, **({} if key == _PASSWORD else {"value": value}))
    return ",".join(f"{key}={value}" for key, value in values.items())

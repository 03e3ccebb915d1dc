# SPDX-License-Identifier: Apache-2.0
"""The steps that bring one tgtd target from whatever is there to what it should be.

Each step asks only for what differs, may be cut off after any request, and is right when it is run again. The order of
the steps is the caller's; he also sees to it that nobody else works on the same target. It knows targets, LUNs,
accounts and access lists, no exports and no volumes.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from volmgr import exception, names
from volmgr.targets.tgt_state import Known
from volmgr.tools.tgt import Lun, Target, TgtClient, errors
from volmgr.types import Chap, Secret

LOG = logging.getLogger(__name__)

VENDOR = "VOLMGR"
PRODUCT = "VOLUME"
_ISCSI_NAMES = ("iqn.", "eui.", "naa.")
#: how often a list of sessions is emptied before it is an error that it fills again.
_ROUNDS = 20
_TRIES = 5


@dataclass(frozen=True)
class Wanted:
    """What one tgtd target should be."""

    name: str
    path: str
    lun: int
    serial: str
    scsi_id: str
    read_only: bool
    thin: bool
    initiators: frozenset[str]


class Maker:
    """The steps; one instance serves all threads."""

    def __init__(self, client: TgtClient, known: Known) -> None:
        self._client = client
        self._known = known
        self._secrets: dict[str, tuple[object, Secret]] = {}
        self._secrets_lock = threading.Lock()

    # --- a whole target

    def remove(self, name: str) -> bool:
        """Delete the target with its sessions, then the accounts that only it had."""
        have = self._known.get(name)
        if have is None:
            return False
        try:
            self._client.delete_target(have.tid, force=True)
        except errors.TgtNoTarget:
            LOG.info("The target %s was gone already", name)
        self._known.put(name, None)
        for account in have.accounts:
            if not self._known.users_of(account):
                self._drop_account(account)
        return True

    def make_storage(self, wanted: Wanted, new_tid: Callable[[], int]) -> bool:
        """Make the target with its one right LUN; while the LUN is not right nobody can reach it.

        A LUN whose storage grew while somebody uses it stays as it is: opening it again would break who uses it.

        :raises NotFound: the storage cannot be opened.
        """
        size_mb = _size_mb(wanted.path)
        have, created = self._make_target(wanted.name, new_tid)
        if _is_same(have, wanted) and (have.disks[0].size_mb == size_mb or self._client.sessions(have.tid)):
            lun = have.disks[0]
            if lun.read_only == wanted.read_only:
                return created
            self._client.update_lun(have.tid, lun.number, read_only=wanted.read_only)
            self._note(have, luns=(dataclasses.replace(lun, read_only=wanted.read_only),))
            return True
        have = self._deny(have, have.acls)
        self.end_sessions(have, frozenset())
        for lun in have.disks:
            self._client.delete_lun(have.tid, lun.number)
        self._client.new_lun(have.tid, wanted.lun, wanted.path)
        self._client.update_lun(
            have.tid,
            wanted.lun,
            scsi_id=wanted.scsi_id,
            serial=wanted.serial,
            vendor=VENDOR,
            product=PRODUCT,
            read_only=wanted.read_only,
            thin=wanted.thin,
        )
        made = Lun(
            wanted.lun,
            scsi_id=wanted.scsi_id,
            serial=wanted.serial,
            size_mb=size_mb,
            read_only=wanted.read_only,
            thin=wanted.thin,
            path=wanted.path,
        )
        self._note(have, luns=(made,))
        return True

    def _make_target(self, name: str, new_tid: Callable[[], int]) -> tuple[Target, bool]:
        """Return the target, and whether it had to be made: asking for a new one of that name finds out cheaply."""
        for _ in range(_TRIES):
            tid = new_tid()
            try:
                self._client.new_target(tid, name)
            except errors.TgtTargetExists:
                have = self._known.get(name)
                if have is None:
                    self._known.read()
                    have = self._known.get(name)
                if have is not None:
                    return have, False
                continue  # another's target has this number
            fresh = Target(tid, name)
            self._known.put(name, fresh)
            return fresh, True
        raise exception.NoSpace(f"tgtd has no free number for the target {name}", target=name)

    def _note(self, have: Target, **changes: object) -> Target:
        new = dataclasses.replace(have, sessions=(), **changes)  # type: ignore[arg-type]
        self._known.put(have.name, new)
        return new

    # --- CHAP

    def make_account(self, target_names: Sequence[str], chap: Chap | None) -> bool:
        """Bind exactly this account, with this password, to the targets, which are one export's.

        tgtd asks nobody for a password when a target has no account, so access is taken away while that is so.

        :raises Conflict: the account is bound to a target that is not among these.
        """
        targets = [target for target in map(self._known.get, target_names) if target is not None]
        changed = False
        if chap is not None and not self._has_secret(chap) and not self._adopt(chap, targets):
            if any(chap.username in target.accounts for target in targets):
                targets = [self._deny(target, target.acls) for target in targets]
            self._replace_account(chap, set(target_names))
            targets = [self._note(target, accounts=_without(target.accounts, chap.username)) for target in targets]
            changed = True
        for target in targets:
            changed |= self._bind_only(target, chap.username if chap is not None else None)
        return changed

    def _bind_only(self, target: Target, user: str | None) -> bool:
        if target.accounts == ((user,) if user else ()):
            return False
        target = self._deny(target, target.acls)
        for account in _without(target.accounts, user):
            self._client.unbind_account(target.tid, account)
            target = self._note(target, accounts=_without(target.accounts, account))
            if not self._known.users_of(account):
                self._drop_account(account)
        if user is not None and user not in target.accounts:
            self._client.bind_account(target.tid, user)
            self._note(target, accounts=(user,))
        return True

    def _replace_account(self, chap: Chap, ours: set[str]) -> None:
        try:
            self._client.new_account(chap.username, chap.password)
        except errors.TgtAccountExists as error:
            # What password it has cannot be asked. Bound to others it is not ours to change.
            self._known.read()
            others = self._known.users_of(chap.username) - ours
            if others:
                raise exception.Conflict(
                    f"The CHAP account {chap.username} belongs to the target {min(others)} on this tgtd",
                    hint="Give each export a CHAP account of its own",
                    account=chap.username,
                ) from error
            self._client.delete_account(chap.username)
            self._client.new_account(chap.username, chap.password)
        with self._secrets_lock:
            self._secrets[chap.username] = (self._known.life, chap.password)

    def _has_secret(self, chap: Chap) -> bool:
        with self._secrets_lock:
            return self._secrets.get(chap.username) == (self._known.life, chap.password)

    def _adopt(self, chap: Chap, targets: Sequence[Target]) -> bool:
        """Take an account that an earlier life of ours has bound here for right; returns whether it is one.

        Its password cannot be asked, but it was made with the name and never changes. Making it anew would refuse every
        login meanwhile, and until the next start if the worker dies in between.
        """
        if not names.is_account(chap.username) or not any(chap.username in target.accounts for target in targets):
            return False
        with self._secrets_lock:
            self._secrets[chap.username] = (self._known.life, chap.password)
        return True

    def _drop_account(self, account: str) -> None:
        with self._secrets_lock:
            self._secrets.pop(account, None)
        try:
            self._client.delete_account(account)
        except errors.TgtNoAccount:
            LOG.info("The CHAP account %s was gone already", account)

    # --- access

    def revoke(self, wanted: Wanted) -> bool:
        """Take access from everybody who is not wanted and end their sessions.

        A login in progress has no session that could be ended. When nobody is left the target is deleted, to be made
        again, so that such a login dies too.
        """
        have = self._known.get(wanted.name)
        if have is None:
            return False
        unwanted = [acl for acl in have.acls if acl not in wanted.initiators]
        if unwanted and not wanted.initiators:
            return self.remove(wanted.name)
        have = self._deny(have, unwanted)
        return self.end_sessions(have, wanted.initiators) or bool(unwanted)

    def allow(self, wanted: Wanted) -> bool:
        """Let those who are wanted and cannot yet log in; to be called last."""
        have = self._known.get(wanted.name)
        if have is None:
            raise exception.Inconsistent(f"The target {wanted.name} vanished", target=wanted.name)
        missing = sorted(wanted.initiators - set(have.acls))
        for initiator in missing:
            self._client.allow_name(have.tid, initiator)
            have = self._note(have, acls=(*have.acls, initiator))
        return bool(missing)

    def _deny(self, have: Target, entries: Sequence[str]) -> Target:
        for entry in entries:
            if entry.lower().startswith(_ISCSI_NAMES):
                self._client.deny_name(have.tid, entry)
            else:
                self._client.deny_address(have.tid, entry)
            have = self._note(have, acls=_without(have.acls, entry))
        return have

    def end_sessions(self, have: Target, allowed: frozenset[str]) -> bool:
        """End the sessions of all but those initiators.

        :raises Busy: new ones came again and again.
        """
        for round_number in range(_ROUNDS):
            doomed = [session for session in self._client.sessions(have.tid) if session.initiator not in allowed]
            if not doomed:
                return round_number > 0
            for session in doomed:
                for connection in session.connections:
                    try:
                        self._client.close_connection(have.tid, session.sid, connection.cid)
                    except (errors.TgtNoSession, errors.TgtNoConnection):
                        LOG.debug("Session %d of %s ended by itself", session.sid, have.name)
        raise exception.Busy(f"Sessions of {have.name} do not end", target=have.name)


def _without(values: Sequence[str], gone: str | None) -> tuple[str, ...]:
    return tuple(value for value in values if value != gone)


def _is_same(have: Target, wanted: Wanted) -> bool:
    if len(have.disks) != 1:
        return False
    lun = have.disks[0]
    return (lun.number, lun.path, lun.serial, lun.scsi_id, lun.thin, lun.online) == (
        wanted.lun, wanted.path, wanted.serial, wanted.scsi_id, wanted.thin, True,
    )  # fmt: skip


def _size_mb(path: str) -> int:
    """Return the size of a file or block device in MB of 10^6 bytes, to the nearest, as tgtd tells it."""
    try:
        with open(path, "rb") as file:
            return round(file.seek(0, os.SEEK_END) / 10**6)
    except OSError as error:
        raise exception.NotFound(
            f"The storage {path} cannot be opened: {error.strerror}", resource="storage", id=path
        ) from error

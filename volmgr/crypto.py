# SPDX-License-Identifier: Apache-2.0
"""Secrets at rest: AES-256-GCM under the deployment's key, bound to the row and column that hold the ciphertext.

A ciphertext that is copied into another row does not decrypt there. The key is made once for a deployment; a canary in
the database proves on every host, at every start, that its key file is the right one. The file can hold several keys,
of which one encrypts; a process that runs follows it when it is replaced, so that keys can be changed beneath it
(:mod:`volmgr.keys`). This module knows no table but ``keys``.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import logging
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from volmgr import exception
from volmgr.types import Secret

if TYPE_CHECKING:
    from volmgr.db.engine import Database

LOG = logging.getLogger(__name__)

VERSION = "v1"
KEY_BYTES = 32
NONCE_BYTES = 12  # NIST SP 800-38D, section 8.2: 96 random bits
_CANARY = "volmgr"
_TABLE, _COLUMN = "keys", "canary"

#: every column with ciphertext, by table: the columns that make the key which it is bound to, with ``/`` in between.
#: What is missing here cannot be encrypted, so that no secret can be left behind when keys are changed.
SECRETS: dict[tuple[str, str], tuple[str, ...]] = {
    (_TABLE, _COLUMN): ("name",),
    ("exports", "auth_secret"): ("resource_id",),
    ("initiator_data", "value"): ("initiator", "namespace", "key"),
    ("snapshots", "provider_auth"): ("id",),
    ("volumes", "provider_auth"): ("id",),
}


@dataclass(frozen=True)
class KeyRing:
    """What a key file says.

    :ivar current: the id of the key that encrypts. :ivar keys: by id, 32 bytes each. :ivar prepared: the id of the one
        that is to be the current one next. :ivar since: when the current one became it, seconds since 1970.
    """

    current: str
    keys: Mapping[str, bytes]
    prepared: str | None = None
    since: float = 0.0

    def __repr__(self) -> str:
        return f"KeyRing(current={self.current!r}, keys={sorted(self.keys)!r}, prepared={self.prepared!r})"


class Cipher:
    """Encrypts and decrypts the values of columns.

    :param current: the id of the key that encrypts.
    :param keys: keys by id, 32 bytes each.
    :param path: the file that they are of; it is read again when it has been replaced.
    """

    def __init__(self, current: str, keys: Mapping[str, bytes], path: str | None = None) -> None:
        if current not in keys:
            raise ValueError("the current key is not among the keys")
        if any(len(key) != KEY_BYTES for key in keys.values()):
            raise ValueError(f"a key does not have {KEY_BYTES} bytes")
        self.current = current
        self._keys = dict(keys)
        self._ready: dict[str, Any] = {}
        self._path = path
        self._stamp: tuple[int, int, int] | None = None

    def __repr__(self) -> str:
        return f"Cipher(current={self.current!r}, keys={sorted(self._keys)!r})"

    @classmethod
    def generate(cls) -> Cipher:
        """Return a cipher with one new key."""
        key_id = secrets.token_hex(4)
        return cls(key_id, {key_id: secrets.token_bytes(KEY_BYTES)})

    @classmethod
    def open(cls, path: str, database: Database) -> Cipher:
        """Return the deployment's cipher; the key is made when neither file nor canary exists.

        :param path: the key file.
        :raises KeyMismatch: the file is missing, or is not the one that this database was encrypted with.
        :raises InvalidConfiguration: others may read the file, or it is damaged.
        """
        canaries = _canaries(database)
        if not os.path.lexists(path):
            if canaries:
                raise exception.KeyMismatch(
                    f"The key file {path} is missing, but the database {database.name} has secrets under its key",
                    hint="Restore it from a backup, or copy it from another host of this deployment; a new key would "
                    "not open what is there",
                )
            create_key_file(path)
        cipher = read_key_file(path)
        cipher._prove(path, database, canaries)
        return cipher

    def encrypt(self, table: str, column: str, key: str, secret: Secret) -> str:
        """Return the ciphertext ``v1:<key id>:<base64>`` of a secret.

        :param table: where it will be kept. :param column: in which column. :param key: the row's primary key.
        """
        if (table, column) not in SECRETS:
            raise ValueError(f"{table}.{column} is not among the columns whose key can be changed")
        self._follow()
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = self._aead(self.current).encrypt(nonce, secret.reveal().encode(), _bound(table, column, key))
        return f"{VERSION}:{self.current}:{base64.b64encode(nonce + sealed).decode('ascii')}"

    def decrypt(self, table: str, column: str, key: str, text: str) -> Secret:
        """Return the secret of a ciphertext from that row and column.

        :raises KeyMismatch: its key is not in the key file.
        :raises Inconsistent: the ciphertext was changed, or belongs to another row.
        """
        from cryptography.exceptions import InvalidTag

        version, _, rest = text.partition(":")
        key_id, _, encoded = rest.partition(":")
        if version != VERSION:
            raise _damaged(table, column, key)
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _damaged(table, column, key) from error
        if base64.b64encode(raw).decode("ascii") != encoded or len(raw) < NONCE_BYTES:
            raise _damaged(table, column, key)
        if key_id not in self._keys:
            self._follow()
        if key_id not in self._keys:
            raise exception.KeyMismatch(
                f"The key {key_id!r} is not in the key file",
                hint="Copy the key file from the host that wrote the row",
                table=table,
                column=column,
                id=key,
            )
        try:
            opened = self._aead(key_id).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _bound(table, column, key))
        except InvalidTag as error:
            raise _damaged(table, column, key) from error
        return Secret(opened.decode())

    def _follow(self) -> None:
        """Take what the key file says now, if it was replaced; a key that went is still known to this process.

        A file that is gone or damaged changes nothing: what this process knows has served so far.
        """
        if self._path is None or (stamp := _stamp(self._path)) in (None, self._stamp):
            return
        self._stamp = stamp
        try:
            ring = read_ring(self._path)
        except exception.InvalidConfiguration as error:
            LOG.error("The keys stay what they were: %s", error)
            return
        self._keys = {**self._keys, **ring.keys}
        if self.current != ring.current:
            self.current = ring.current
            LOG.info("Secrets are encrypted with the key %s from now on", ring.current)

    def _aead(self, key_id: str) -> Any:
        if key_id not in self._ready:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._ready[key_id] = AESGCM(self._keys[key_id])
        return self._ready[key_id]

    def _prove(self, path: str, database: Database, canaries: Mapping[str, str]) -> None:
        """Check every canary, and leave one for the current key."""
        self._check(path, database, canaries)
        if self.current in canaries:
            return
        from volmgr.db import models
        from volmgr.db.engine import is_duplicate, utcnow

        canary = self.encrypt(_TABLE, _COLUMN, self.current, Secret(_CANARY))
        values = {"name": self.current, "canary": canary, "created_at": utcnow()}
        try:
            with database.writer() as conn:
                # Read again under the lock: another host may have left the canary of another key since.
                self._check(path, database, _rows(conn))
                conn.execute(models.keys.insert(), values)
        except Exception as error:
            if not is_duplicate(error):
                raise
        self._check(path, database, _canaries(database))

    def _check(self, path: str, database: Database, canaries: Mapping[str, str]) -> None:
        for key_id, canary in canaries.items():
            try:
                proved = self.decrypt(_TABLE, _COLUMN, key_id, canary) == Secret(_CANARY)
            except (exception.KeyMismatch, exception.Inconsistent):
                proved = False
            if not proved:
                raise exception.KeyMismatch(
                    f"The key file {path} does not belong to the database {database.name}",
                    hint="Copy the key file from another host of this deployment, or set key_file or [database] "
                    "connection to what belongs together",
                )


def _bound(table: str, column: str, key: str) -> bytes:
    return json.dumps([VERSION, table, column, key]).encode()


def _damaged(table: str, column: str, key: str) -> exception.Inconsistent:
    return exception.Inconsistent(
        f"The secret in {table}.{column} of {key} is damaged or belongs to another row",
        table=table,
        column=column,
        id=key,
    )


def _rows(conn: Any) -> dict[str, str]:
    from volmgr.db import models

    return {row.name: row.canary for row in conn.execute(models.keys.select())}


def _canaries(database: Database) -> dict[str, str]:
    with database.reader() as conn:
        return _rows(conn)


def _stamp(path: str) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced, None if it is not there."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


def create_key_file(path: str) -> None:
    """Make a key file with one new key, unless there is one; it appears complete or not at all.

    :raises InvalidConfiguration: the folder cannot be written.
    """
    made = Cipher.generate()
    _write(path, KeyRing(made.current, made._keys), replace=False)


def replace_key_file(path: str, ring: KeyRing) -> None:
    """Put another key file in place of the one that is there, for its owner; readers see the old or the new one.

    :raises InvalidConfiguration: the folder cannot be written.
    """
    _write(path, ring, replace=True)


def _write(path: str, ring: KeyRing, *, replace: bool) -> None:
    keys = {key_id: base64.b64encode(key).decode("ascii") for key_id, key in ring.keys.items()}
    value = {"current": ring.current, "keys": keys, "prepared": ring.prepared, "since": ring.since}
    text = json.dumps({name: item for name, item in value.items() if item}) + "\n"
    folder = os.path.dirname(os.path.abspath(path))
    draft = f"{path}.{secrets.token_hex(8)}"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
                file.write(text)
                file.flush()
                if replace:
                    before = os.stat(path)
                    if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                        os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fsync(file.fileno())
            if replace:
                os.replace(draft, path)
            else:
                with contextlib.suppress(FileExistsError):  # another process was first: its key is the deployment's
                    os.link(draft, path)
        finally:
            with contextlib.suppress(FileNotFoundError):  # it is in its place, or could not be made
                os.unlink(draft)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise exception.InvalidConfiguration(
            reason=f"the key file {path} cannot be made: {error.strerror}",
            hint="Set key_file to a path in a folder that this user may write",
        ) from error


def read_key_file(path: str) -> Cipher:
    """Return the cipher of a key file; it follows the file.

    :raises InvalidConfiguration: it cannot be read, others may read it, or it is damaged.
    """
    ring = read_ring(path)
    return Cipher(ring.current, ring.keys, path)


def read_ring(path: str) -> KeyRing:
    """Return what a key file says.

    :raises InvalidConfiguration: it cannot be read, others may read it, or it is damaged.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as file:
            found = os.fstat(file.fileno())
            text = file.read()
    except OSError as error:
        raise exception.InvalidConfiguration(
            reason=f"the key file {path} cannot be read: {error.strerror}",
            hint="Set key_file, and give the file to the user that volmgr-volume runs as",
        ) from error
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise exception.InvalidConfiguration(
            reason=f"others than its owner may use the key file {path}", hint=f"Run: chmod 600 {path}"
        )
    try:
        value = json.loads(text)
        keys = {name: base64.b64decode(key) for name, key in value["keys"].items()}
        Cipher(value["current"], keys)  # its checks are those of the file, too
        return KeyRing(value["current"], keys, value.get("prepared"), float(value.get("since", 0)))
    except (ValueError, KeyError, TypeError, AttributeError):
        # Not chained: the cause would show parts of the file.
        raise exception.InvalidConfiguration(
            reason=f"the key file {path} is damaged", hint="Restore it from a backup, or copy it from another host"
        ) from None

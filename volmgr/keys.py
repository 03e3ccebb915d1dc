# SPDX-License-Identifier: Apache-2.0
"""Changing the deployment's key: a new one encrypts, what the old one encrypted is encrypted again, the old one goes.

Nothing of it is remembered but in the key file and in the rows themselves, so a change that was ended at any instant is
taken up by the next one, and a daemon that runs meanwhile follows the file. This module knows no verb.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from volmgr import crypto, exception, killpoints
from volmgr.crypto import SECRETS, Cipher, KeyRing
from volmgr.db import models
from volmgr.db.engine import Database

#: rows that are encrypted again in one transaction.
BATCH = 100
#: seconds after which no transaction is under way any more that began before a server's database had the new key.
GRACE = 60.0
#: the columns that hold secrets of the deployment; the canaries are made with their keys.
_COLUMNS = {where: of for where, of in SECRETS.items() if where[0] != "keys"}


@dataclass(frozen=True)
class Key:
    """One key and what it is good for.

    :ivar state: current, prepared, old, or missing (rows need it, the file does not have it).
    :ivar rows: how many secrets it encrypts now. :ivar since: when its canary was made, None without one.
    """

    id: str
    state: str
    rows: int
    since: str | None = None


@dataclass
class Outcome:
    """What a change has done.

    :ivar current: the key that encrypts now. :ivar made: whether it is new. :ivar rows: secrets encrypted again.
    :ivar retired: the keys that are gone. :ivar kept: why keys stay, by id. :ivar damaged: rows that no key opens, as
        ``table.column of key``.
    """

    current: str = ""
    made: bool = False
    rows: int = 0
    retired: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)


class Keys:
    """The keys of one deployment.

    :param path: this host's key file. :param host: this host's name in the names of its workers.
    :param embedded: whether the database is this host's own file. :param now: seconds since 1970.
    """

    def __init__(
        self, path: str, database: Database, *, host: str, embedded: bool, now: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self.database = database
        self.host = host
        self.embedded = embedded
        self.now = now

    # --- what there is --------------------------------------------------------------------------------------------

    def all(self) -> list[Key]:
        """Return the keys of the file, and those that rows need and the file does not have.

        :raises InvalidConfiguration: the file cannot be read.
        """
        ring = crypto.read_ring(self.path)
        counts = self._counts(ring.keys)
        with self.database.reader() as conn:
            made = {row.name: row.created_at.isoformat() for row in conn.execute(models.keys.select())}
        found = []
        for key_id in sorted(counts, key=lambda item: (item != ring.current, item)):
            states = {ring.current: "current", ring.prepared: "prepared"}
            state = states.get(key_id, "old" if key_id in ring.keys else "missing")
            found.append(Key(key_id, state, counts.get(key_id, 0), made.get(key_id)))
        return found

    def _counts(self, known: Iterable[str]) -> dict[str, int]:
        """Return how many secrets each key encrypts, also keys that are not known; ``?`` for what is no ciphertext."""
        counts: dict[str, int] = {}
        with self.database.reader() as conn:
            for table, column in _COLUMNS:
                value, ids = models.metadata.tables[table].c[column], list(known)
                here: dict[str, int] = {}
                while True:
                    for key_id in ids:
                        found = sa.select(sa.func.count()).where(_of(value, key_id))
                        here[key_id] = int(conn.execute(found).scalar_one())
                    others = [~_of(value, key_id) for key_id in here]
                    unknown = sa.select(value).where(value.is_not(None), value != "", *others)
                    if (text := conn.execute(unknown.limit(1)).scalar()) is None:
                        break
                    parts = str(text).split(":")
                    if len(parts) < 3 or parts[0] != crypto.VERSION or parts[1] in here:
                        rest = sa.select(sa.func.count()).select_from(unknown.subquery())
                        here["?"] = int(conn.execute(rest).scalar_one())
                        break
                    ids = [parts[1]]
                for key_id, count in here.items():
                    counts[key_id] = counts.get(key_id, 0) + count
        return counts

    # --- changing -------------------------------------------------------------------------------------------------

    def prepare(self) -> str:
        """Put a new key into the file that does not encrypt yet, so that other hosts can be given it; returns its id.

        One that is prepared already stays.
        """
        with self._alone():
            ring = crypto.read_ring(self.path)
            if ring.prepared is None:
                ring = self._prepared(ring)
            return str(ring.prepared)

    def rotate(self, *, copied: bool = False, grace: float | None = None) -> Outcome:
        """Change the key, or go on with a change that has not ended; a repeat is safe.

        :param copied: the operator says that every other host of the deployment has this file.
        :param grace: seconds that an old key stays after the change; by default none where the database is embedded.
        :raises Conflict: other hosts would not have the new key. :raises KeyMismatch: the file is not this database's.
        """
        with self._alone():
            Cipher.open(self.path, self.database)
            ring, outcome = crypto.read_ring(self.path), Outcome()
            others = self._other_hosts()
            if ring.prepared is not None or len(ring.keys) == 1:
                if others and ring.prepared is None:
                    raise exception.Conflict(
                        f"Other hosts do not have the new key: {', '.join(others)}",
                        hint="Run volmgr-manage key rotate --prepare, copy the key file to them, then key rotate",
                    )
                ring = self._activate(ring if ring.prepared is not None else self._prepared(ring))
                outcome.made = True
            outcome.current = ring.current
            cipher = Cipher.open(self.path, self.database)  # leaves the new key's canary
            self._encrypt_all(cipher, outcome)
            self._retire(ring, outcome, [] if copied else others, self._grace(grace))
            return outcome

    def _grace(self, grace: float | None) -> float:
        return grace if grace is not None else 0.0 if self.embedded else GRACE

    def _prepared(self, ring: KeyRing) -> KeyRing:
        key_id = secrets.token_hex(4)
        keys = {**ring.keys, key_id: secrets.token_bytes(crypto.KEY_BYTES)}
        made = dataclasses.replace(ring, keys=keys, prepared=key_id)
        crypto.replace_key_file(self.path, made)
        killpoints.reach("key_rotate/prepare/after")
        return made

    def _activate(self, ring: KeyRing) -> KeyRing:
        """Let the prepared key encrypt from now on."""
        active = dataclasses.replace(ring, current=str(ring.prepared), prepared=None, since=self.now())
        # On SQLite no other transaction writes meanwhile: whatever encrypts after this one sees the new file.
        with self.database.writer():
            crypto.replace_key_file(self.path, active)
        killpoints.reach("key_rotate/activate/after")
        return active

    def _encrypt_all(self, cipher: Cipher, outcome: Outcome) -> None:
        """Encrypt again what another key than the current one has encrypted, a bounded transaction at a time."""
        for (table, column), key in _COLUMNS.items():
            after: tuple[Any, ...] | None = None
            while True:
                page = self.database.repeating(functools.partial(self._page, cipher, table, column, key, after))
                outcome.rows += page.changed
                outcome.damaged += page.damaged
                killpoints.reach(f"key_rotate/{table}/after")
                if page.last is None:
                    break
                after = page.last

    def _page(
        self, cipher: Cipher, table: str, column: str, key: tuple[str, ...], after: tuple[Any, ...] | None
    ) -> _Page:
        """Encrypt one page of a column again.

        :param key: the columns of the table's primary key. :param after: the last row of the page before.
        """
        of = models.metadata.tables[table]
        value, place = of.c[column], sa.tuple_(*(of.c[name] for name in key))
        where = [value.is_not(None), value != "", ~_of(value, cipher.current)]
        if after is not None:
            where.append(place > sa.tuple_(*map(sa.literal, after)))
        page = _Page()
        with self.database.writer() as conn:
            query = sa.select(*(of.c[name] for name in key), value).where(*where)
            rows = conn.execute(query.order_by(*(of.c[name] for name in key)).limit(BATCH)).all()
            for row in rows:
                at, old = tuple(row[:-1]), row[-1]
                bound = "/".join(map(str, at))
                try:
                    secret = cipher.decrypt(table, column, bound, old)
                except (exception.KeyMismatch, exception.Inconsistent):
                    page.damaged.append(f"{table}.{column} of {bound}")
                    continue
                # Only what is still what was read: a daemon may have written another secret meanwhile.
                same = [of.c[name] == item for name, item in zip(key, at, strict=True)]
                fresh = {column: cipher.encrypt(table, column, bound, secret)}
                page.changed += conn.execute(sa.update(of).where(*same, value == old).values(fresh)).rowcount
            page.last = tuple(rows[-1][:-1]) if len(rows) == BATCH else None
        return page

    def _retire(self, ring: KeyRing, outcome: Outcome, others: list[str], grace: float) -> None:
        """Remove the old keys that no row needs any more from the database and from the file."""
        left = {key_id for key_id in ring.keys if key_id != ring.current}
        wait = ring.since + grace - self.now()
        for key_id in sorted(left):
            if others:
                outcome.kept[key_id] = f"{', '.join(others)} may still use it"
            elif wait > 0:
                outcome.kept[key_id] = f"what began before the change may still use it for {wait:.0f} s"
            elif rows := self._give_up(key_id):
                outcome.kept[key_id] = f"{rows} secrets need it"
            else:
                outcome.retired.append(key_id)
        if outcome.retired:
            killpoints.reach("key_rotate/retire/before")
            keys = {key_id: key for key_id, key in ring.keys.items() if key_id not in outcome.retired}
            crypto.replace_key_file(self.path, dataclasses.replace(ring, keys=keys))
            killpoints.reach("key_rotate/retire/after")

    def _give_up(self, key_id: str) -> int:
        """Remove a key's canary if no row needs the key, in one transaction; returns how many rows need it."""

        def write() -> int:
            needed = 0
            with self.database.writer() as conn:
                for table, column in _COLUMNS:
                    value = models.metadata.tables[table].c[column]
                    needed += int(conn.execute(sa.select(sa.func.count()).where(_of(value, key_id))).scalar_one())
                if not needed:
                    conn.execute(sa.delete(models.keys).where(models.keys.c.name == key_id))
            return needed

        return self.database.repeating(write)

    # --- others ---------------------------------------------------------------------------------------------------

    def _other_hosts(self) -> list[str]:
        """Return the hosts that have ever had a worker in this deployment, besides the one of this file."""
        if self.embedded:
            return []
        with self.database.reader() as conn:
            found = {str(host).partition("@")[0] for host in conn.execute(sa.select(models.services.c.host)).scalars()}
        return sorted(found - {self.host})

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other changes of this file away.

        :raises Busy: one is under way.
        """
        descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise exception.Busy(
                    "The key is being changed by another process", hint="Run: volmgr-manage key status"
                ) from None
            yield
        finally:
            os.close(descriptor)


@dataclass
class _Page:
    changed: int = 0
    damaged: list[str] = field(default_factory=list)
    last: tuple[Any, ...] | None = None


def _of(value: sa.ColumnElement[Any], key_id: str) -> sa.ColumnElement[bool]:
    """Return the condition for what a key has encrypted."""
    return value.startswith(f"{crypto.VERSION}:{key_id}:", autoescape=True)

# SPDX-License-Identifier: Apache-2.0
"""What a backup store is: objects by name, put whole or not at all. It knows nothing of backups.

A name is made of words with ``/`` between them, see :func:`check_name`; the first word of an object of a backup is the
backup's id.
"""

from __future__ import annotations

import abc
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from volmgr import exception

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*\Z")
_FOLDERS, _BUCKETS = ("", "file"), ("s3", "s3+https", "s3+http")
#: says which store this is, so that an empty folder in its place is not taken for it.
IDENTITY = "store.json"


class Stored(NamedTuple):
    """An object in a store; ``size`` in bytes."""

    name: str
    size: int


class BackupStore(abc.ABC):
    """A place for objects. Every method may be called from several threads at once.

    All of them raise BackendDown where the store does not answer or refuses.
    """

    @abc.abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Store an object, in place of one of that name: whole and safe once this returns, or not at all."""

    @abc.abstractmethod
    def get(self, name: str) -> bytes:
        """Return an object.

        :raises NotFound: there is none of that name.
        """

    @abc.abstractmethod
    def list_objects(self, folder: str) -> Iterator[Stored]:
        """Yield every object whose name begins with ``folder`` and a ``/``, in no particular order."""

    @abc.abstractmethod
    def folders(self) -> list[str]:
        """Return the first words of all names that have more than one, sorted."""

    @abc.abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that are gone already are success."""

    def sweep(self, folder: str) -> int:
        """Remove what writes that were broken off have left under a folder that nobody writes to; returns how much.

        What begins an object and never becomes one is no object, so nothing else removes it while the rest stays.
        """
        return 0

    def identity(self) -> str:
        """Return the store's own id, which is made at its first use.

        :raises Inconsistent: something else lies where it should be.
        """
        for _ in range(2):
            try:
                return str(uuid.UUID(json.loads(self.get(IDENTITY))["id"]))
            except exception.NotFound:
                # Two first users may both write; what the second look finds is what both of them use.
                self.put(IDENTITY, json.dumps({"format": "volmgr-store", "id": str(uuid.uuid4())}).encode())
            except (ValueError, KeyError, TypeError) as error:
                raise exception.Inconsistent(
                    f"The object {IDENTITY} of the backup store is not one of volmgr's: {error}",
                    hint="Give volmgr a folder or prefix of its own",
                ) from error
        raise exception.BackendDown("The backup store does not keep what is put into it", hint="Look at the store")


def check_name(name: str) -> str:
    """Return ``name`` if an object can have it.

    :raises Invalid: it cannot; it might lead out of the store.
    """
    if not _NAME.match(name) or len(name) > 512:
        raise exception.Invalid(f"{name[:80]!r} cannot be the name of an object in a backup store", field="name")
    return name


def open_store(url: str, options: Mapping[str, str | None] | None = None) -> BackupStore:
    """Return the store at a URL.

    :param url: ``/FOLDER`` or ``file:///FOLDER``; ``s3://BUCKET[/PREFIX]`` for Amazon's, or
        ``s3+https://HOST[:PORT]/BUCKET[/PREFIX]`` (``s3+http`` without TLS) for another service.
    :param options: ``access_key``, ``secret_key`` and ``region``, for S3; without keys those of the environment.
    :raises InvalidConfiguration: nothing can be opened by that URL.
    """
    parts = parse_url(url)
    if parts.scheme in _FOLDERS:
        from volmgr.backups.directory import DirectoryStore

        return DirectoryStore(parts.path)
    from volmgr.backups.s3 import S3Store

    return S3Store.from_url(parts, options or {})


def parse_url(url: str) -> SplitResult:
    """Return the parts of a store's URL; nothing is opened.

    :raises InvalidConfiguration: no store has such a URL.
    """
    parts = urlsplit(url)
    if parts.scheme in _FOLDERS and parts.path.startswith("/") and not parts.netloc:
        return parts
    if parts.scheme in _BUCKETS and parts.netloc and (parts.scheme == "s3" or parts.path.strip("/")):
        return parts
    raise exception.InvalidConfiguration(
        reason=f"{url!r} is not the URL of a backup store",
        hint="Use file:///FOLDER, s3://BUCKET/PREFIX or s3+https://HOST/BUCKET/PREFIX",
    )

# SPDX-License-Identifier: Apache-2.0
"""A backup store in a bucket of an S3 service, by the library minio.

A PUT of S3 is atomic and, since 2020 at Amazon and always at the others', seen by every GET and LIST that follows.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import SplitResult

from volmgr import exception
from volmgr.backups.store import BackupStore, Stored, check_name

AMAZON = "s3.amazonaws.com"
CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
#: what one DeleteObjects request may name.
DELETE_BATCH = 1000


class S3Store(BackupStore):
    """Objects in ``bucket``, whose names get ``prefix`` and a ``/`` in front.

    The sockets are those of this process's threads, green or native, so nothing of it may be offloaded.

    :param endpoint: host and port. :param region: skips a request that asks for it.
    """

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        prefix: str = "",
        *,
        access_key: str | None = None,
        secret_key: str | None = None,
        region: str | None = None,
        secure: bool = True,
    ) -> None:
        try:
            import minio
            import urllib3
        except ImportError as error:
            raise exception.ToolMissing(tool="minio", hint="Install it: pip install 'volmgr[s3]'") from error
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._where = f"{endpoint}/{bucket}/{self.prefix}"
        pool = urllib3.PoolManager(
            maxsize=16,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
            cert_reqs="CERT_REQUIRED",
            ca_certs=os.environ.get("SSL_CERT_FILE"),
        )
        self._client = minio.Minio(
            endpoint, access_key=access_key, secret_key=secret_key, region=region, secure=secure, http_client=pool
        )

    @classmethod
    def from_url(cls, parts: SplitResult, options: Mapping[str, str | None]) -> S3Store:
        """Return the store of a URL, see :func:`volmgr.backups.store.open_store`."""
        words = [word for word in parts.path.split("/") if word]
        if parts.scheme == "s3":
            endpoint, bucket, rest = AMAZON, parts.netloc, words
        else:
            endpoint, bucket, rest = parts.netloc, words[0], words[1:]
        environment = os.environ
        return cls(
            endpoint,
            bucket,
            "/".join(rest),
            access_key=options.get("access_key") or environment.get("AWS_ACCESS_KEY_ID"),
            secret_key=options.get("secret_key") or environment.get("AWS_SECRET_ACCESS_KEY"),
            region=options.get("region") or environment.get("AWS_REGION") or "us-east-1",
            secure=parts.scheme != "s3+http",
        )

    def put(self, name: str, data: bytes) -> None:
        with self._typed(f"Writing {name}"):
            self._client.put_object(self.bucket, self._key(name), io.BytesIO(data), len(data))

    def get(self, name: str) -> bytes:
        with self._typed(f"Reading {name}", missing=name):
            answer = self._client.get_object(self.bucket, self._key(name))
            try:
                return bytes(answer.read())
            finally:
                answer.close()
                answer.release_conn()

    def list_objects(self, folder: str) -> Iterator[Stored]:
        with self._typed(f"Listing {folder}"):
            for item in self._client.list_objects(self.bucket, prefix=self._key(folder) + "/", recursive=True):
                yield Stored(str(item.object_name)[len(self.prefix) :], int(item.size or 0))

    def folders(self) -> list[str]:
        with self._typed("Listing"):
            found = self._client.list_objects(self.bucket, prefix=self.prefix)
            return sorted(str(item.object_name)[len(self.prefix) :].rstrip("/") for item in found if item.is_dir)

    def delete(self, names: Iterable[str]) -> None:
        from minio.deleteobjects import DeleteObject

        left = iter(names)
        while batch := [self._key(name) for name in islice(left, DELETE_BATCH)]:
            with self._typed("Deleting"):
                wrong = list(self._client.remove_objects(self.bucket, [DeleteObject(key) for key in batch]))
            if wrong := [item for item in wrong if item.code != "NoSuchKey"]:
                raise exception.BackendDown(
                    f"The backup store {self._where} did not delete {wrong[0].name}: {wrong[0].code}",
                    hint="Allow s3:DeleteObject to volmgr's key",
                )

    def _key(self, name: str) -> str:
        return self.prefix + check_name(name)

    @contextlib.contextmanager
    def _typed(self, what: str, missing: str = "") -> Iterator[Any]:
        """Turn the library's errors into ours; none of them has a secret in it."""
        from minio.error import MinioException, S3Error
        from urllib3.exceptions import HTTPError

        try:
            yield
        except S3Error as error:
            if missing and error.code == "NoSuchKey":
                raise exception.NotFound(resource="object", id=missing) from error
            raise exception.BackendDown(
                f"{what} in the backup store {self._where} failed: {error.code}: {error.message}",
                hint="Look at the bucket, the key and what it is allowed",
            ) from error
        except (MinioException, HTTPError, OSError, ValueError) as error:
            raise exception.BackendDown(
                f"{what} in the backup store {self._where} failed: {type(error).__name__}",
                hint="Look at the store's address, and whether this host reaches it",
            ) from error

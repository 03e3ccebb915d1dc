# SPDX-License-Identifier: Apache-2.0
"""A private S3 service as a process: moto's server, with signatures and policies checked as Amazon does.

It keeps everything in memory, so its end is the end of its objects.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from volmgr.testing.servers.base import HOST, ServerStartFailed, ServerUnavailable, free_port
from volmgr.testing.waiting import wait_until

START_SECONDS = 60.0
BUCKET = "backups"
#: requests that set the service up before it asks for signatures: a user, its policy, its key, the bucket.
_OPEN_REQUESTS = 4
_POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'


class S3Server:
    """The service, with one user who may do anything in the bucket ``backups``; a context manager.

    :ivar url: to put before ``/BUCKET``. :ivar options: the user's keys, as :func:`volmgr.backups.store.open_store`
        takes them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.options: dict[str, str | None] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        """The keys as environment variables."""
        return {
            "AWS_ACCESS_KEY_ID": str(self.options["access_key"]),
            "AWS_SECRET_ACCESS_KEY": str(self.options["secret_key"]),
        }

    def start(self) -> Self:
        """Start the service and set it up.

        :raises ServerUnavailable: moto is not installed. :raises ServerStartFailed: it ended instead.
        """
        try:
            import moto.server  # noqa: F401
        except ImportError as error:
            raise ServerUnavailable("moto is not installed: pip install 'volmgr[test]'") from error
        port = free_port()
        log = self.folder / "s3.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(_OPEN_REQUESTS), "PYTHONUNBUFFERED": "1"},
            )

        def listens() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise ServerStartFailed(f"the S3 service ended: {log.read_text(errors='replace')[-2000:]}")
            return "Running on" in log.read_text(errors="replace")

        wait_until(listens, START_SECONDS, "the S3 service listens")
        self.url = f"s3+http://{HOST}:{port}"
        self._set_up(f"http://{HOST}:{port}")
        return self

    def _set_up(self, endpoint: str) -> None:
        import boto3

        given: dict[str, Any] = {
            "endpoint_url": endpoint, "region_name": "us-east-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"
        }
        iam = boto3.client("iam", **given)
        iam.create_user(UserName="volmgr")
        iam.put_user_policy(UserName="volmgr", PolicyName="all", PolicyDocument=_POLICY)
        key = iam.create_access_key(UserName="volmgr")["AccessKey"]
        boto3.client("s3", **given).create_bucket(Bucket=BUCKET)
        self.options = {"access_key": key["AccessKeyId"], "secret_key": key["SecretAccessKey"], "region": "us-east-1"}

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

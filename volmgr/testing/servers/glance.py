# SPDX-License-Identifier: Apache-2.0
"""A private Glance as a process: OpenStack's own, from its packages, on SQLite and a folder, for whoever asks.

As ``python -m volmgr.testing.servers.glance PORT`` this module serves it, by the configuration in the folder that
``OS_GLANCE_CONFIG_DIR`` names.
"""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from volmgr.testing.servers.base import HOST, ServerStartFailed, ServerUnavailable, free_port
from volmgr.testing.waiting import wait_until

START_SECONDS = 90.0
CLOUD = "private"
_CONFIG = """\
[DEFAULT]
transport_url = fake://
enabled_import_methods = []
node_staging_uri = file://{folder}/staging
worker_self_reference_url = http://{host}:{port}
[database]
connection = sqlite:///{folder}/glance.sqlite
[paste_deploy]
config_file = {paste}
[glance_store]
stores = file
default_store = file
filesystem_store_datadir = {folder}/images
[oslo_concurrency]
lock_path = {folder}
[oslo_policy]
policy_file = {folder}/policy.yaml
enforce_scope = false
enforce_new_defaults = false
"""
_RULES = (
    "add_image", "get_image", "get_images", "modify_image", "delete_image", "download_image", "upload_image",
)
_CLOUDS = "clouds:\n  {cloud}:\n    auth_type: none\n    auth:\n      endpoint: http://{host}:{port}\n"


class GlanceServer:
    """The service; a context manager. Its images are gone with the folder.

    :ivar port: where it listens. :ivar environment: what names its ``clouds.yaml``, whose cloud is :data:`CLOUD`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the service, with the images that it had.

        :raises ServerUnavailable: Glance is not installed. :raises ServerStartFailed: it ended instead.
        """
        if not self.port:
            self._prepare()
        log = self.folder / "glance.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self.port)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, "OS_GLANCE_CONFIG_DIR": str(self.folder)},
            )
        wait_until(self._answers, START_SECONDS, "Glance answers")
        return self

    def _prepare(self) -> None:
        programs = Path(sys.executable).parent
        paste = programs.parent / "etc/glance/glance-api-paste.ini"
        if not paste.exists():
            raise ServerUnavailable("Glance is not installed: pip install 'volmgr[test]'")
        self.port = free_port()
        for name in ("images", "staging"):
            (self.folder / name).mkdir()
        config = self.folder / "glance-api.conf"
        config.write_text(_CONFIG.format(folder=self.folder, host=HOST, port=self.port, paste=paste))
        (self.folder / "policy.yaml").write_text("".join(f'"{rule}": ""\n' for rule in _RULES))
        self.environment = {"OS_CLIENT_CONFIG_FILE": str(self.clouds(self.port))}
        done = subprocess.run(
            [programs / "glance-manage", "--config-file", config, "db", "sync"],
            capture_output=True, text=True, timeout=START_SECONDS, check=False,
        )
        if done.returncode:
            raise ServerStartFailed(f"Glance's database: {done.stderr}")

    def clouds(self, port: int) -> Path:
        """Write a ``clouds.yaml`` that names a port of this host, the service's own or a proxy's."""
        file = self.folder / f"clouds-{port}.yaml"
        file.write_text(_CLOUDS.format(cloud=CLOUD, host=HOST, port=port))
        return file

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            log = self.folder / "glance.log"
            raise ServerStartFailed(f"Glance ended: {log.read_text(errors='replace')[-2000:]}")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/v2/images", timeout=10) as response:
                return bool(response.status == 200)
        except urllib.error.HTTPError:
            raise
        except OSError:
            return False  # it does not listen yet

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def main() -> None:
    """Serve until the end."""
    from glance.wsgi.api import application
    from werkzeug.serving import run_simple

    run_simple(HOST, int(sys.argv[1]), application, threaded=True)


if __name__ == "__main__":
    main()

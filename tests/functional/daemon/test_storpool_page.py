# SPDX-License-Identifier: Apache-2.0
"""The configuration that the page of StorPool shows is one that works, but for where the cluster is and its token."""

from __future__ import annotations

import configparser
import re
import textwrap
import uuid
from collections.abc import Callable
from pathlib import Path

from volmgr.testing.daemon import Daemon
from volmgr.testing.storpool.process import StorPoolServer

PAGE = Path(__file__).parents[3] / "doc" / "source" / "storpool.rst"
BLOCK = re.compile(r"\.\. code-block:: ini\n\n((?:    .*\n|\n)+)")
#: what differs from cluster to cluster, and has to be asked of its operators.
LOCAL = ("SP_API_HTTP_HOST", "SP_API_HTTP_PORT", "SP_AUTH_TOKEN")


def test_what_the_page_shows_works(tmp_path: Path, make_daemon: Callable[..., Daemon]) -> None:
    ours, theirs = (textwrap.dedent(block) for block in BLOCK.findall(PAGE.read_text(encoding="utf-8"))[:2])
    conf = configparser.ConfigParser()
    conf.read_string(ours)
    backend = dict(conf[conf["DEFAULT"]["enabled_backends"]])
    backend.pop("enabled_backends")
    with StorPoolServer(tmp_path / "cluster") as cluster:
        real = dict(
            line.split("=", 1) for line in cluster.write_conf(tmp_path / "real.conf").read_text().splitlines()
            if line.startswith(LOCAL)
        )
        for name in LOCAL:
            theirs, count = re.subn(rf"(?m)^{name}=.*$", f"{name}={real[name]}", theirs)
            assert count == 1, name
        (tmp_path / "storpool.conf").write_text(theirs)
        daemon = make_daemon(backend={**backend, "storpool_config_file": str(tmp_path / "storpool.conf")}).start()
        with daemon.client() as client:
            volume_id = str(uuid.uuid4())
            client.do("create_volume", volume_id, size=1)
            for host, number in (("compute-1", 11), ("compute-2", 12)):
                info = client.api.initialize_connection(client.context, volume_id, {"host": host})
                assert info["data"]["client_id"] == number
        assert cluster.refused() == []

# SPDX-License-Identifier: Apache-2.0
"""storpool.conf: its sections, the files beside it, the environment, and who gets which client id."""

from __future__ import annotations

from pathlib import Path

import pytest

from volmgr import exception
from volmgr.drivers import storpool_config
from volmgr.drivers.storpool_config import StorPoolConfig

CONF = """
# a comment
SP_AUTH_TOKEN=123%456
SP_API_HTTP_HOST=10.0.0.1
SP_API_HTTP_PORT=8181
SP_CLUSTER_ID=b.c
ONLY_A_NAME

[here]
SP_OURID=1
SP_API_HTTP_HOST=10.0.0.9

[compute]
SP_OURID = 2

[wrong]
SP_OURID=many
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "storpool.conf"
    path.write_text(CONF)
    return path


def read(file: Path, **environment: str) -> StorPoolConfig:
    return storpool_config.read(file, node="here", environment=environment)


def test_the_own_section_counts_and_the_rest_does_not(file: Path) -> None:
    found = read(file)
    assert (found.host, found.port, found.prefix, found.cluster) == ("10.0.0.9", 8181, "os", "b.c")
    assert found.token.reveal() == "123%456"
    assert "123%456" not in repr(found)
    assert (found.client_id("here"), found.client_id("compute")) == (1, 2)
    assert storpool_config.read(file, node="there", environment={}).host == "10.0.0.1"


@pytest.mark.parametrize("host", ["nobody", "wrong", "UNNAMED"])
def test_a_host_without_a_proper_client_id_is_refused(file: Path, host: str) -> None:
    with pytest.raises(exception.Invalid, match=host) as caught:
        read(file).client_id(host)
    assert caught.value.details["field"] == "connector"
    assert "SP_OURID" in caught.value.hint or "storpool.conf" in caught.value.hint


@pytest.mark.parametrize("text", ["0", "4096", "-1", "1.5", " "])
def test_client_ids_are_in_the_range_of_the_api(tmp_path: Path, text: str) -> None:
    file = tmp_path / "storpool.conf"
    file.write_text(f"SP_AUTH_TOKEN=1\n[compute]\nSP_OURID={text}\n")
    with pytest.raises(exception.Invalid):
        read(file).client_id("compute")


def test_an_id_in_the_common_part_is_this_host_s_own(tmp_path: Path) -> None:
    file = tmp_path / "storpool.conf"
    file.write_text("SP_AUTH_TOKEN=1\nSP_OURID=7\n")
    assert read(file).client_id("here") == 7
    for host in ("compute", "UNNAMED"):
        with pytest.raises(exception.Invalid):
            read(file).client_id(host)


def test_files_beside_it_follow_in_their_order(file: Path) -> None:
    folder = file.with_name("storpool.conf.d")
    folder.mkdir()
    (folder / "20-b.conf").write_text("SP_API_HTTP_PORT=20\n[compute]\nSP_OURID=20\n")
    (folder / "10-a.conf").write_text("SP_API_HTTP_PORT=10\nSP_OPENSTACK_VOLUME_PREFIX=ten\n")
    (folder / ".hidden.conf").write_text("SP_API_HTTP_PORT=1\n")
    (folder / "30-c.conf.bak").write_text("SP_API_HTTP_PORT=30\n")
    found = read(file)
    assert (found.port, found.prefix, found.client_id("compute")) == (20, "ten", 20)


def test_the_environment_has_the_last_word(file: Path) -> None:
    found = read(file, SP_API_HTTP_HOST="h", SP_API_HTTP_PORT="9", SP_AUTH_TOKEN="t", SP_OURID="5")
    assert (found.host, found.port, found.token.reveal()) == ("h", 9, "t")
    assert found.client_id("here") == 1


def test_no_file_is_needed_where_the_environment_says_all(tmp_path: Path) -> None:
    found = read(tmp_path / "none", SP_API_HTTP_HOST="h", SP_API_HTTP_PORT="9", SP_AUTH_TOKEN="t")
    assert (found.host, found.port, found.prefix, found.cluster) == ("h", 9, "os", "h:9")
    with pytest.raises(exception.InvalidConfiguration, match="not there") as caught:
        read(tmp_path / "none", SP_API_HTTP_HOST="h", SP_AUTH_TOKEN="t")
    assert "storpool_config_file" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["SP_API_HTTP_HOST=h\n", "SP_AUTH_TOKEN=\n", "SP_AUTH_TOKEN=1\nSP_API_HTTP_PORT=http\n", "= = =\n[x\n"]
)
def test_a_wrong_file_is_refused_and_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "storpool.conf"
    file.write_text(text)
    with pytest.raises(exception.InvalidConfiguration, match=r"storpool\.conf"):
        read(file)

# SPDX-License-Identifier: Apache-2.0
"""Options: defaults, the order in which they are looked for, and every mistake told at once."""

from __future__ import annotations

import os
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from oslo_config import cfg

from volmgr import conf, exception
from volmgr.conf import loading, opts
from volmgr.conf.default import default_state_path

Load = Callable[[str], loading.Configuration]


@pytest.fixture(autouse=True)
def no_system_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "CONFIG_FILE", "/nonexistent/volmgr.conf")
    monkeypatch.setattr(loading, "CONFIG_DIR", "/nonexistent/volmgr.conf.d")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def _load(text: str) -> loading.Configuration:
        path = tmp_path / "volmgr.conf"
        path.write_text(text)
        return conf.load(["--config-file", str(path)])

    return _load


def test_without_a_file_there_is_one_backend_of_files() -> None:
    made = conf.load()
    (backend,) = conf.backends(made)
    assert backend.config_group == "embedded"
    assert (backend.volume_driver, backend.target_helper) == ("file", "tgtadm")
    assert made.embedded
    assert made.database.connection == f"sqlite:///{made.state_path}/volmgr.sqlite"
    assert made.transport_url == f"unix://{made.state_path}/rpc"
    assert made.key_file == f"{made.state_path}/keys.json"


def test_everything_follows_the_state_path(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_DEFAULT__STATE_PATH", "/elsewhere")
    made = load("")
    assert made.database.connection == "sqlite:////elsewhere/volmgr.sqlite"
    assert made.transport_url == "unix:///elsewhere/rpc"
    assert conf.backends(made)[0].state_path == "/elsewhere"


def test_the_state_of_a_user_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/u/state")
    assert default_state_path() == "/home/u/state/volmgr"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/u")
    assert default_state_path() == "/home/u/.local/state/volmgr"


def test_a_backends_own_section_goes_before_the_shared_one(load: Load) -> None:
    made = load(
        "[DEFAULT]\nenabled_backends = a, b\n[backend_defaults]\ntarget_port = 3261\nlvm_mirrors = 2\n"
        "[a]\ntarget_port = 3262\nvolume_driver = sim\n[b]\n"
    )
    a, b = conf.backends(made)
    assert (a.config_group, a.target_port, a.lvm_mirrors, a.volume_driver) == ("a", 3262, 2, "sim")
    assert (b.config_group, b.target_port, b.volume_driver) == ("b", 3261, "volmgr.drivers.lvm.LVMVolumeDriver")


def test_a_value_that_equals_the_default_still_counts_as_set(load: Load) -> None:
    made = load("[DEFAULT]\nenabled_backends = a\n[backend_defaults]\nlvm_mirrors = 2\n[a]\nlvm_mirrors = 0\n")
    assert conf.backends(made)[0].lvm_mirrors == 0


def test_the_embedded_backend_can_be_configured(load: Load) -> None:
    (backend,) = conf.backends(load("[backend_defaults]\ntarget_helper = fake\n[embedded]\ntrash_retention = 60\n"))
    assert (backend.volume_driver, backend.target_helper, backend.trash_retention) == ("file", "fake", 60)


def test_a_driver_adds_options_of_its_own(load: Load) -> None:
    made = load("[DEFAULT]\nenabled_backends = a\n[a]\nshiny = 7\nstate_path = /wrong\n[backend_defaults]\ndull = 8\n")
    (backend,) = conf.backends(made)
    assert backend.safe_get("shiny") is None
    with pytest.raises(AttributeError, match="no option shiny"):
        _ = backend.shiny
    own = [cfg.IntOpt("shiny"), cfg.IntOpt("dull"), cfg.IntOpt("plain", default=9), cfg.StrOpt("state_path")]
    backend.append_config_values(own)
    backend.append_config_values(own)
    assert (backend.shiny, backend.dull, backend.plain) == (7, 8, 9)
    assert backend.state_path == made.state_path


def test_replication_devices_are_dictionaries(load: Load) -> None:
    made = load(
        "[DEFAULT]\nenabled_backends = a\n[a]\n"
        "replication_device = backend_id:x,ip:1\nreplication_device = backend_id:y\n"
    )
    devices = conf.backends(made)[0].replication_device
    assert devices == [{"backend_id": "x", "ip": "1"}, {"backend_id": "y"}]


def test_every_mistake_is_told_at_once(load: Load) -> None:
    with pytest.raises(exception.InvalidConfiguration) as caught:
        load(
            "[DEFAULT]\nenabled_backends = a\nmax_volume_size = 0\ncontrol_threads = many\nservice_down_time = 5\n"
            "state_path = relative\n[a]\naoe_first_shelf_id = 7\naoe_last_shelf_id = 5\nlvm_mirrors = 99\n"
            "volume_clear = shred\n[database]\nbusy_timeout = long\n[quota]\nvolumes = -2\n"
            "[DEFAULT]\nbackup_store = ftp://host/x\n[backup]\nstores = far:s3://bucket/x,near:relative/folder\n"
        )
    for name in (
        "[DEFAULT] max_volume_size",
        "[DEFAULT] control_threads",
        "[DEFAULT] service_down_time",
        "[DEFAULT] state_path",
        "[a] aoe_last_shelf_id",
        "[a] lvm_mirrors",
        "[a] volume_clear",
        "[database] busy_timeout",
        "[quota] volumes",
        "[DEFAULT] backup_store: 'ftp://host/x'",
        "[backup] stores: near: 'relative/folder'",
    ):
        assert name in caught.value.message
    assert "volmgr.conf" in caught.value.hint


@pytest.mark.parametrize(
    ("names", "problem"),
    [("a", "no section [a]"), ("database", "cannot be the name"), ("a@b", "cannot be the name"), ("c, c", "twice")],
)
def test_backends_that_cannot_be_are_refused(load: Load, names: str, problem: str) -> None:
    with pytest.raises(exception.InvalidConfiguration, match=re.escape(problem)):
        load(f"[DEFAULT]\nenabled_backends = {names}\n[c]\n")


@pytest.mark.parametrize("text", ["no section", "[DEFAULT\n"])
def test_a_file_that_cannot_be_read_is_invalid(load: Load, text: str) -> None:
    with pytest.raises(exception.InvalidConfiguration):
        load(text)


def test_a_missing_file_is_invalid() -> None:
    with pytest.raises(exception.InvalidConfiguration, match=r"nowhere\.conf"):
        conf.load(["--config-file", "/nonexistent/nowhere.conf"])


def test_two_configurations_do_not_know_each_other(load: Load) -> None:
    first, second = load("[DEFAULT]\nhost = one\n"), load("[DEFAULT]\nhost = two\n")
    assert (first.host, second.host) == ("one", "two")
    assert "state_path" not in cfg.CONF


def test_an_option_says_what_it_is() -> None:
    for group, options in opts.list_opts():
        for option in options:
            assert option.help, f"[{group}] {option.name} has no help"


def test_secrets_are_marked() -> None:
    found = {option.name: option.secret for _, options in opts.list_opts() for option in options}
    assert found["connection"]
    assert found["chap_password"]
    assert found["replication_device"]
    assert not found["volume_driver"]


def test_no_option_is_defined_twice() -> None:
    for group, options in opts.list_opts():
        names = [option.dest for option in options]
        assert len(names) == len(set(names)), group


def test_a_topic_that_forgets_its_list_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "forgetful.py").write_text("def register_opts(conf): ...\n")
    monkeypatch.setattr(conf, "__path__", [*conf.__path__, str(tmp_path)])
    try:
        with pytest.raises(TypeError, match=r"forgetful has no list_opts"):
            opts.list_opts()
    finally:
        sys.modules.pop("volmgr.conf.forgetful", None)


def test_the_names_of_topics_are_modules() -> None:
    assert all(isinstance(module, types.ModuleType) for module in opts.topics())
    names = {module.__name__.rpartition(".")[2] for module in opts.topics()}
    assert names >= {"default", "database", "quota", "volume", "targets"}

# SPDX-License-Identifier: Apache-2.0
"""Who may ask for what: the rules as data, policy files, and what a context without roles means."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from volmgr import conf, exception, why
from volmgr.conf import loading
from volmgr.context import RequestContext
from volmgr.manager import VolumeManager
from volmgr.operations import volumes
from volmgr.policy import rules
from volmgr.policy.guard import Guard
from volmgr.service import Worker
from volmgr.testing.rig import Rig

ROOT = Path(__file__).parents[2]
ADMINISTRATOR = RequestContext(is_admin=True, project_id="p", overwrite=False)
Make = Callable[..., Guard]


def caller(*roles: str, project: str = "p") -> RequestContext:
    return RequestContext(project_id=project, user_id="u", roles=list(roles), overwrite=False)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(loading, "CONFIG_FILE", "/nonexistent/volmgr.conf")
    monkeypatch.setattr(loading, "CONFIG_DIR", "/nonexistent/volmgr.conf.d")

    def _make(policy: str | None = None, options: str = "") -> Guard:
        path = tmp_path / "volmgr.conf"
        path.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\n{options}\n")
        if policy is not None:
            (tmp_path / "policy.yaml").write_text(policy)
        return Guard(conf.load(["--config-file", str(path)]))

    return _make


def refused(guard: Guard, context: RequestContext, verb: str, **arguments: object) -> str:
    with pytest.raises(exception.Forbidden) as caught:
        guard.authorise(context, verb, dict(arguments))
    rule = str(caught.value.details["rule"])
    assert rule in (caught.value.hint or "")
    return rule


# --- the defaults ---------------------------------------------------------------------------------------------------


def test_every_verb_has_one_rule_and_every_rule_a_verb() -> None:
    exposed = {name for name in dir(VolumeManager) if getattr(getattr(VolumeManager, name), "exposed", False)}
    assert set(rules.VERBS) == exposed
    assert {verb for verb, _argument in rules.ARGUMENTS} <= exposed


def test_an_administrator_may_do_everything_with_the_library_as_without(make: Make) -> None:
    guard = make("context_is_admin: 'is_admin:True'")
    assert guard._book is not None
    for verb in rules.VERBS:
        context = guard.authorise(ADMINISTRATOR, verb, {name: True for of, name in rules.ARGUMENTS if of == verb})
        assert context is ADMINISTRATOR


def test_the_library_is_not_loaded_for_an_administrator(tmp_path: Path) -> None:
    path = tmp_path / "volmgr.conf"
    path.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\n")
    script = (
        "import sys; from volmgr import concurrency; concurrency.setup('threading');"
        "from volmgr import conf, manager, context; from volmgr.policy.guard import Guard;"
        f"guard = Guard(conf.load(['--config-file', {str(path)!r}]));"
        "guard.authorise(context.admin(), 'create_volume', {});"
        "assert 'oslo_policy.policy' not in sys.modules;"
        "guard.authorise(context.RequestContext(project_id='p', overwrite=False), 'create_volume', {});"
        "assert 'oslo_policy.policy' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.parametrize(
    ("roles", "reads", "changes"),
    [(("reader",), True, False), (("member",), True, True), (("Member",), True, True), (("auditor",), False, False)],
)
def test_a_role_is_what_a_project_s_caller_needs(
    make: Make, roles: tuple[str, ...], reads: bool, changes: bool
) -> None:
    guard = make()
    for verb, (wanted, _text) in rules.VERBS.items():
        allowed = {rules.READER: reads, rules.MEMBER: changes, rules.ADMIN: False}[wanted]
        if allowed:
            assert guard.authorise(caller(*roles), verb, {}).scope == "p"
        else:
            assert refused(guard, caller(*roles), verb) == f"volume:{verb}"


def test_the_role_admin_alone_is_not_the_whole_deployment(make: Make) -> None:
    assert refused(make(), caller("admin"), "audit") == "volume:audit"


def test_a_context_without_roles_is_a_member_of_its_project(make: Make) -> None:
    guard = make()
    assert guard.authorise(caller(), "create_volume", {}).scope == "p"
    assert refused(guard, caller(), "migrate_volume") == "volume:migrate_volume"


def test_the_roles_of_a_context_without_roles_are_an_option(make: Make) -> None:
    guard = make(options="default_roles = reader")
    guard.authorise(caller(), "get_volume", {})
    assert refused(guard, caller(), "create_volume") == "volume:create_volume"
    guard = make(options="default_roles =")
    assert refused(guard, caller(), "get_volume") == "volume:get_volume"
    guard.authorise(ADMINISTRATOR, "get_volume", {})


def test_leaving_storage_behind_takes_more(make: Make) -> None:
    guard = make()
    guard.authorise(caller("member"), "delete_volume", {"unmanage_only": False})
    rule = refused(guard, caller("member"), "delete_volume", unmanage_only=True)
    assert rule == "volume:delete_volume:unmanage_only"


# --- policy files ---------------------------------------------------------------------------------------------------


def test_a_file_gives_and_takes(make: Make) -> None:
    guard = make("'volume:audit': 'role:keeper'\n'storage': 'role:disk'\n'volume:thaw_host': 'rule:storage'\n")
    assert guard.authorise(caller("keeper"), "audit", {}).scope == "p"
    guard.authorise(caller("disk"), "thaw_host", {})
    assert refused(guard, ADMINISTRATOR, "audit") == "volume:audit"
    guard.authorise(ADMINISTRATOR, "freeze_host", {})


def test_a_role_can_be_let_speak_for_the_whole_deployment(make: Make) -> None:
    guard = make("context_is_admin: 'role:cloud_admin'")
    context = guard.authorise(caller("cloud_admin"), "get_volume", {})
    assert context.is_admin
    assert context.scope is None
    assert context.request_id is not None
    context = guard.authorise(RequestContext(is_admin=True, project_id="p", overwrite=False), "get_volume", {})
    assert context.scope == "p"


def test_folders_come_after_the_file(make: Make, tmp_path: Path) -> None:
    (tmp_path / "policy.d").mkdir()
    (tmp_path / "policy.d" / "10.yaml").write_text("'volume:audit': 'role:b'")
    guard = make("'volume:audit': 'role:a'")
    guard.authorise(caller("b"), "audit", {})
    refused(guard, caller("a"), "audit")


def test_a_file_that_comes_changes_or_goes_is_obeyed_at_once(make: Make, tmp_path: Path) -> None:
    guard, path = make(), tmp_path / "policy.yaml"
    refused(guard, caller("a"), "audit")
    path.write_text("'volume:audit': 'role:a'")
    guard.authorise(caller("a"), "audit", {})
    path.write_text("'volume:audit': 'role:another'")
    refused(guard, caller("a"), "audit")
    path.unlink()
    refused(guard, caller("another"), "audit")
    guard.authorise(ADMINISTRATOR, "audit", {})


BROKEN = [
    ("'volume:audit': [", "policy.yaml"),
    ("- a list", "no mapping"),
    ("'volume:audit': 3", "is no text"),
    ("'volume:audti': 'role:a'", "there is no rule volume:audti"),
    ("'volume:audit': 'role:a or'", "cannot be understood"),
    ("'volume:audit': 'rule:nowhere'", "volume:audit"),
    ("'a': 'rule:b'\n'b': 'rule:a'\n", "not well defined"),
]


@pytest.mark.parametrize(("text", "said"), BROKEN)
def test_the_daemon_does_not_start_on_a_broken_file(make: Make, text: str, said: str) -> None:
    with pytest.raises(exception.InvalidConfiguration) as caught:
        make(text)
    assert said in str(caught.value)
    assert "oslopolicy-sample-generator" in str(caught.value)


@pytest.mark.parametrize("text", [text for text, _said in BROKEN])
def test_a_file_that_breaks_later_changes_nothing(make: Make, tmp_path: Path, text: str) -> None:
    guard = make("'volume:audit': 'role:a'")
    (tmp_path / "policy.yaml").write_text(text)
    guard.authorise(caller("a"), "audit", {})
    refused(guard, caller("b"), "audit")
    (tmp_path / "policy.yaml").write_text("'volume:audit': 'role:b'")
    guard.authorise(caller("b"), "audit", {})


def test_nobody_is_a_rule(make: Make) -> None:
    guard = make("'volume:failover_host': '!'")
    assert refused(guard, ADMINISTRATOR, "failover_host") == "volume:failover_host"


def test_the_sample_file_is_of_these_rules(tmp_path: Path) -> None:
    made = tmp_path / "sample"
    command = [str(Path(sys.executable).parent / "oslopolicy-sample-generator"), "--namespace", "volmgr"]
    subprocess.run([*command, "--output-file", str(made)], check=True, timeout=120, cwd=ROOT)
    assert made.read_text() == (ROOT / "etc/volmgr/policy.yaml.sample").read_text(), "run: make genpolicy"


# --- what is told ---------------------------------------------------------------------------------------------------


def test_why_tells_another_project_s_caller_of_the_own_refused_request_only(tmp_path: Path) -> None:
    rig, volume_id = Rig(tmp_path), str(uuid.uuid4())
    rig.submit(volumes.CreateVolume, volume_id=volume_id, size=1)  # it does not run yet: it holds the volume
    stranger = caller("member", project="q")
    arguments = volumes.DeleteVolume.args.parse({"volume_id": volume_id})
    with pytest.raises(exception.NotFound):
        rig.dispatcher.submit(stranger, volumes.DeleteVolume, arguments)
    worker = cast(Worker, SimpleNamespace(database=rig.database))
    told = why.why(worker, stranger, volume_id)
    assert [(item["verb"], item["state"]) for item in told["operations"]] == [("delete_volume", "failed")]
    assert (told["held_by"], told["findings"], told["view"]) == ([], [], None)
    rig.close()

# SPDX-License-Identifier: Apache-2.0
"""Every verb that is promised is there: with its arguments, checked, in the client and in the command line."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.unit.surface import rows
from volmgr import manager
from volmgr.cli import verbs, waiting
from volmgr.cli.commands import COMMANDS
from volmgr.cmd.manage import parser as manage_parser
from volmgr.manager import VolumeManager
from volmgr.operations import conflicts, locking, registry
from volmgr.operations.attachments import Attachments
from volmgr.operations.base import Policy
from volmgr.rpc.client import VolumeAPI

ROOT = Path(__file__).resolve().parents[3]
RPC = rows.named("rpc")
EXPOSED = sorted(
    name for name in dir(VolumeManager) if getattr(getattr(VolumeManager, name), "exposed", False)
)
#: where a request goes whose verb has no such argument, how long it may take, and whether a failure is raised.
CLIENT_ONLY = {"host", "rpc_timeout", "check"}
A_VOLUME, A_SNAPSHOT = "5a8c0000-0000-4000-8000-000000000001", "5a8c0000-0000-4000-8000-000000000002"
REQUIRED = inspect.Parameter.empty
KEYWORD = inspect.Parameter.KEYWORD_ONLY
KINDS = {
    "rpc": 102, "local": 2, "constructor": 3, "bases": 1, "lock decorator": 3, "policy": 2, "option": 57,
    "option family": 1, "choices": 3, "driver class": 21, "driver method": 201, "class attribute": 4, "target": 4,
    "fabric": 3, "volume access": 1, "column": 8, "statuses": 1, "store": 1, "test": 5, "helper": 17,
    "connection_info form": 7, "connector": 1, "error": 5, "retired": 1,
}


@dataclasses.dataclass(frozen=True)
class Argument:
    name: str
    default: Any
    by_keyword: bool


def arguments(verb: str) -> list[Argument]:
    """Return what a verb takes: its method's arguments and, where that takes any, those of its operation."""
    given = list(inspect.signature(getattr(VolumeManager, verb)).parameters.values())[2:]
    found = [
        Argument(item.name, item.default, item.kind is KEYWORD)
        for item in given
        if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
    ]
    if any(item.kind is item.VAR_KEYWORD for item in given):
        named = {item.name for item in found}
        found += [
            Argument(field.name, REQUIRED if _is_required(field) else field.default, by_keyword=True)
            for field in dataclasses.fields(_operation(verb).args)
            if field.name not in named
        ]
    return found


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _operation(verb: str) -> Any:
    found = registry.find(verb, 1)
    assert found is not None, f"{verb} is journalled by no operation"
    return found


def test_no_row_is_lost() -> None:
    assert Counter(row["kind"] for row in rows.ROWS) == KINDS
    assert len(rows.ROWS) == sum(KINDS.values())
    assert len(RPC) == KINDS["rpc"]


@pytest.mark.parametrize("verb", RPC)
def test_the_verb_is_served_with_these_arguments(verb: str) -> None:
    assert verb in EXPOSED
    wanted, have = rows.promised(RPC[verb]), arguments(verb)
    places = tuple(item.name for item in have if not item.by_keyword)
    assert places[: len(wanted.places)] == wanted.places
    assert wanted.keywords <= {item.name for item in have}
    defaults = {item.name: item.default for item in have}
    assert {name: defaults[name] for name in wanted.defaults} == wanted.defaults
    further = [item.name for item in have if item.name not in wanted.names and item.default is REQUIRED]
    assert further == [], "a caller who knows the promise cannot call it"


@pytest.mark.parametrize("verb", EXPOSED)
def test_every_argument_is_checked(verb: str) -> None:
    function = getattr(VolumeManager, verb)
    if getattr(function, "journalled", False):
        checked = {field.name for field in dataclasses.fields(_operation(verb).args) if field.metadata.get("check")}
    else:
        checked = set(function.checks)
    assert {item.name for item in arguments(verb)} <= checked


@pytest.mark.parametrize("verb", RPC)
def test_the_verb_is_acknowledged_as_its_kind_needs(verb: str) -> None:
    function, kind = getattr(VolumeManager, verb), RPC[verb]["acknowledged"]
    assert getattr(function, "journalled", False) == (kind == "journalled")
    if kind == "connects":
        assert function.level


@pytest.mark.parametrize("verb", EXPOSED)
def test_the_client_has_it_with_the_same_arguments(verb: str) -> None:
    if verb == "ring":
        assert not hasattr(VolumeAPI, verb), verbs.NO_COMMAND[verb]
        return
    given = list(inspect.signature(getattr(VolumeAPI, verb)).parameters.values())[2:]
    more = any(item.kind is item.VAR_KEYWORD for item in given)
    named = [item for item in given if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)]
    have = {item.name: item for item in arguments(verb)}
    assert {item.name for item in named} - set(have) <= CLIENT_ONLY
    if not more:
        assert set(have) <= {item.name for item in named}
    # Whatever the verb can do without, a caller of the client can leave out, too.
    needed = {item.name for item in named if item.default is item.empty}
    optional = {name for name, item in have.items() if item.default is not REQUIRED}
    assert needed & optional <= {"host"}
    ours = CLIENT_ONLY - set(have)
    positional = [item.name for item in named if item.kind is item.POSITIONAL_OR_KEYWORD and item.name not in ours]
    assert positional == [item.name for item in have.values() if not item.by_keyword][: len(positional)]


# --- the command line -----------------------------------------------------------------------------------------------


def test_each_verb_has_a_command_or_a_reason() -> None:
    told = set(verbs.COMMANDS) | set(verbs.NO_COMMAND)
    assert set(verbs.COMMANDS) & set(verbs.NO_COMMAND) == set()
    assert told == set(EXPOSED)
    assert all(len(reason) > 10 for reason in verbs.NO_COMMAND.values())


@pytest.mark.parametrize("verb", verbs.COMMANDS)
def test_the_command_sends_the_verb(verb: str) -> None:
    for line in verbs.COMMANDS[verb]:
        program, _, command = line.partition(" ")
        if program == "volmgr-manage":
            usage = manage_parser().format_help()
            assert command.split()[0] in usage
            source = (ROOT / "volmgr" / "cmd" / "manage_live.py").read_text(encoding="utf-8")
            assert re.search(rf"\b{verb}\b", source)
            continue
        room, _, name = COMMANDS[command].where.partition(":")
        module = importlib.import_module(f"volmgr.cli.{room}")
        source = inspect.getsource(module) + (inspect.getsource(waiting) if hasattr(module, "waiting") else "")
        assert _sends(getattr(module, name), verb, source), f"{line} does not send {verb}"


def _sends(command: type, verb: str, source: str) -> bool:
    if re.search(rf"\b{verb}\b", source):
        return True
    # Lists are sent by their noun.
    action, _, noun = verb.partition("_")
    own = getattr(command, "noun", "") or ""
    shared = [own, *re.findall(r'listing\("(\w+)"', source), *re.findall(r'noun = "(\w+)"', source)]
    plurals = {name if name.endswith("s") else f"{name}s" for name in shared if name}
    return action in ("list", "get") and noun.removeprefix("manageable_") in plurals


# --- the manager ----------------------------------------------------------------------------------------------------


def test_the_manager_is_what_it_is_called() -> None:
    (row,) = rows.of("bases")
    for base in row["bases"]:
        assert issubclass(VolumeManager, getattr(manager, base))
    for name in rows.named("local"):
        assert callable(getattr(VolumeManager, name))
        assert name not in EXPOSED
    (given,) = [row for row in rows.of("constructor") if row["name"] == "VolumeManager"]
    have = list(inspect.signature(VolumeManager).parameters.values())
    assert [(item.name, item.default) for item in have[:1]] == list(rows.promised(given).defaults.items())
    assert {item.kind for item in have} >= {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


@pytest.mark.parametrize("row", rows.of("policy"), ids=lambda row: row["name"])
def test_these_pairs_wait(row: dict[str, str]) -> None:
    assert conflicts.policy(row["resource"], row["holder"], row["comer"]) is Policy(row["verdict"])


@pytest.mark.parametrize("row", rows.of("lock decorator"), ids=lambda row: row["name"])
def test_the_lock_has_its_name_and_holds(row: dict[str, str]) -> None:
    """What it does is tested in tests/unit/operations/test_locking.py."""
    decorator = getattr(locking, row["name"])
    if row["name"] == "locked_detach_operation":
        assert all(hasattr(getattr(Attachments, name), "__wrapped__") for name in ("detach", "delete"))
        return
    assert decorator.__doc__
    wanted = {"volume": ("delete_volume", "extend_volume"), "snapshot": ("delete_snapshot", "revert_to_snapshot")}
    for verb in wanted[row["resource"]]:
        cls = _operation(verb)
        values = {"volume_id": A_VOLUME, "snapshot_id": A_SNAPSHOT, "new_size": 2}
        known = {field.name for field in dataclasses.fields(cls.args)}
        made = cls(cls.args.parse({name: value for name, value in values.items() if name in known}))
        held = {claim.resource: (claim.id, claim.exclusive) for claim in made.claims()}
        assert held[row["resource"]] == (values[f"{row['resource']}_id"], True)

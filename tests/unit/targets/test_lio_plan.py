# SPDX-License-Identifier: Apache-2.0
"""From any state of configfs a plan leads to what is wanted, and nobody ever meets something incomplete on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.targets.configfs_model import Model
from volmgr import exception
from volmgr.targets.lio import backstore, iscsi
from volmgr.targets.lio.configfs import apply
from volmgr.targets.lio.tree import (
    FILEIO,
    IBLOCK,
    TPG,
    Backstore,
    Remove,
    Wanted,
    Write,
    as_made,
    backstore_path,
    hba,
    plan,
    takes_everybody_away,
    target_path,
)
from volmgr.types import Chap, ExportSpec, Grant, Portal, Secret

#: nothing of it waits for anybody, so that one kind of threads is enough.
pytestmark = pytest.mark.once
NAME = "iqn.2010-10.org.openstack:volume-5f4dcc3b-5aa7-4657-a6d6-1f0d2c3b4a59"
FOREIGN = "iqn.2003-01.org.linux-iscsi.host:sn.1"
GROUP = f"{target_path(NAME)}/{TPG}"
ONE, TWO, THREE = (f"iqn.1994-05.com.example:{name}" for name in ("one", "two", "three"))
DEVICES = {"/dev/a": "7:0", "/dev/b-plain": "7:1"}
SERIALS = ("0" * 31 + "1", "1" * 32)
PORTALS = ("127.0.0.1:3260", "[::1]:3260")

STORES = st.builds(
    lambda path, serial, size, discard: (
        Backstore(IBLOCK, path, serial, device=DEVICES[path], discard=discard)
        if path in DEVICES
        else Backstore(FILEIO, path, serial, size=size, discard=discard)
    ),
    st.sampled_from([*DEVICES, "/file"]),
    st.sampled_from(SERIALS),
    st.sampled_from([2**20, 2**21]),
    st.booleans(),
)
AUTHS = st.none() | st.builds(
    Chap, st.sampled_from(["u", "v"]), st.builds(Secret, st.sampled_from(["p" * 12, "q" * 12]))
)
WANTED = st.builds(
    Wanted,
    st.just(NAME),
    STORES,
    st.sampled_from([1, 2]),
    st.dictionaries(st.sampled_from([ONE, TWO, THREE]), st.booleans()),
    st.sampled_from([PORTALS[:1], PORTALS]),
    AUTHS,
)


def new_model() -> Model:
    """A kernel with a target of somebody else's."""
    model = Model(DEVICES)
    model.mkdir("core/fileio_0")
    model.mkdir("core/fileio_0/disk")
    model.write("core/fileio_0/disk/control", "fd_dev_name=/foreign,fd_dev_size=1")
    model.write("core/fileio_0/disk/enable", "1")
    for path in ("iscsi", f"iscsi/{FOREIGN}", f"iscsi/{FOREIGN}/tpgt_1", f"iscsi/{FOREIGN}/tpgt_1/lun/lun_0"):
        model.mkdir(path)
    model.symlink(f"iscsi/{FOREIGN}/tpgt_1/lun/lun_0/x", "core/fileio_0/disk")
    return model


def foreign_part(model: Model) -> list[object]:
    """Return what is not ours, to see that it stays."""
    parts: list[object] = []
    for part in (sorted(model.made), sorted(model.attributes.items()), sorted(model.symlinks.items())):
        parts.append([item for item in part if FOREIGN in str(item) or "core/fileio_0/" in str(item)])
    return parts


def run(model: Model, wanted: Wanted | None, check: Callable[[], None] = lambda: None, cut: int | None = None) -> int:
    """Do a plan, or its first steps; returns how many it has."""
    steps = plan(wanted, iscsi.read(model, NAME))
    for step in steps[:cut]:
        apply(model, step)
        check()
    return len(steps)


# What an administrator, a bug or a kill of some other program may do to the tree.
TAMPERINGS: list[Callable[[Model], None]] = [
    lambda model: model.write(f"{GROUP}/enable", "0"),
    lambda model: model.write(f"{GROUP}/enable", "1"),
    lambda model: model.write(f"{GROUP}/attrib/authentication", "0"),
    lambda model: model.write(f"{GROUP}/attrib/generate_node_acls", "1"),
    lambda model: model.write(f"{GROUP}/attrib/prod_mode_write_protect", "0"),
    lambda model: model.write(f"{GROUP}/acls/{ONE}/auth/userid", "NULL"),
    lambda model: model.write(f"{GROUP}/acls/{ONE}/auth/password", "other"),
    lambda model: model.write(f"{GROUP}/acls/{ONE}/lun_1/write_protect", "0"),
    lambda model: model.unlink(f"{GROUP}/acls/{ONE}/lun_1/mapped"),
    lambda model: model.rmdir(f"{GROUP}/acls/{ONE}/lun_1"),
    lambda model: model.rmdir(f"{GROUP}/acls/{ONE}"),
    lambda model: model.mkdir(f"{GROUP}/acls/{TWO}"),
    lambda model: model.mkdir(f"{GROUP}/acls/{TWO}/lun_7"),
    lambda model: model.symlink(f"{GROUP}/acls/{TWO}/lun_7/any", f"{GROUP}/lun/lun_1"),
    lambda model: model.unlink(f"{GROUP}/lun/lun_1/device"),
    lambda model: model.mkdir(f"{GROUP}/lun/lun_5"),
    lambda model: model.symlink(f"{GROUP}/lun/lun_5/other", "core/fileio_0/disk"),
    lambda model: model.rmdir(f"{GROUP}/np/{PORTALS[0]}"),
    lambda model: model.mkdir(f"{target_path(NAME)}/tpgt_2"),
    lambda model: model.write(f"{target_path(NAME)}/tpgt_2/enable", "1"),
    lambda model: model.mkdir(f"{target_path(NAME)}/tpgt_2/acls/{THREE}"),
    lambda model: model.mkdir(hba(FILEIO, NAME)),
    lambda model: model.mkdir(backstore_path(FILEIO, NAME)),
    lambda model: model.mkdir(hba(IBLOCK, NAME)),
    lambda model: model.mkdir(backstore_path(IBLOCK, NAME)),
    lambda model: model.mkdir(target_path(NAME)),
    lambda model: model.mkdir(GROUP),
]
Event = tuple[Wanted | None, int | None] | Callable[[Model], None]


@st.composite
def variations(draw: st.DrawFn, base: Wanted) -> Wanted:
    """What somebody may want of an export after ``base``: mostly the same."""
    other = draw(WANTED)
    changed = draw(st.sets(st.sampled_from(["backstore", "lun", "acls", "portals", "auth", "size"]), max_size=2))
    wanted = replace(base, **{name: getattr(other, name) for name in changed - {"size"}})
    if "size" in changed and wanted.backstore.plugin == FILEIO:
        wanted = replace(wanted, backstore=replace(wanted.backstore, size=2**22))
    return wanted


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Event], Wanted | None]:
    """What happened to an export until now, and what is wanted of it at last."""
    base = draw(WANTED)
    cuts = st.none() | st.integers(0, 40)
    tamperings = st.lists(st.sampled_from(TAMPERINGS), max_size=3)
    events: list[Event] = [(base, draw(cuts)), *draw(tamperings)]
    for _ in range(draw(st.integers(0, 2))):
        wanted = draw(st.none() | variations(base))
        events += [(wanted, draw(cuts)), *draw(tamperings)]
        base = wanted or base
    return events, draw(st.none() | variations(base) | variations(base))


class Watch:
    """What may not happen on the way from the state at hand to ``wanted``, looked at after each step."""

    def __init__(self, model: Model, wanted: Wanted | None) -> None:
        self.model, self.wanted = model, wanted
        self.broken = self.incomplete()
        self.access = self.granted()

    def incomplete(self) -> set[str]:
        """Return who is wanted, can log in, and would not meet exactly the one right LUN."""
        if self.wanted is None:
            return set()
        store, lun = self.wanted.backstore, f"lun_{self.wanted.lun}"
        broken = set()
        for name in self.model.admitted(GROUP) & set(self.wanted.acls):
            met = self.model.served(GROUP, name)
            if {key: value[:2] for key, value in met.items()} != {lun: (store.path, store.serial)}:
                broken.add(name)
        return broken

    def granted(self) -> set[tuple[str, bool]]:
        """Return who can log in and reach some LUN, and whether to write."""
        return {
            (name, not met[2]) for name in self.model.admitted(GROUP) for met in self.model.served(GROUP, name).values()
        }

    def __call__(self) -> None:
        now = self.incomplete()
        assert now <= self.broken, "an initiator is let in before its LUN is complete"
        self.broken = now
        allowed = {(name, not read_only) for name, read_only in self.wanted.acls.items()} if self.wanted else set()
        readers = {(name, False) for name, _ in allowed}
        access = self.granted()
        assert access <= self.access | allowed | readers, "somebody got access that is not granted"
        self.access = access


def check_reached(model: Model, wanted: Wanted | None) -> None:
    assert plan(wanted, iscsi.read(model, NAME)) == []
    if wanted is None:
        assert not [path for path in (*model.made, *model.symlinks) if NAME in path or path == hba(FILEIO, NAME)]
        return
    assert model.admitted(GROUP) == set(wanted.acls)
    store = wanted.backstore
    for name, read_only in wanted.acls.items():
        assert model.served(GROUP, name) == {f"lun_{wanted.lun}": (store.path, store.serial, read_only)}
        if wanted.auth is not None:
            path = f"{GROUP}/acls/{name}/auth"
            given = (model.read(f"{path}/userid"), model.read(f"{path}/password"))
            assert given == (wanted.auth.username, wanted.auth.password.reveal())
    assert model.read(f"{GROUP}/attrib/authentication") == str(int(wanted.auth is not None))
    assert set(model.folders(f"{GROUP}/np")) == set(wanted.portals)
    path = backstore_path(store.plugin, NAME)
    if store.plugin == FILEIO:
        assert model.read(f"{path}/size") == str(store.size)
    can = not store.path.endswith("-plain")
    assert model.read(f"{path}/attrib/emulate_tpu") == str(int(bool(store.discard) and can))


@settings(max_examples=600, deadline=None)
@given(stories())
def test_from_any_state_safely_to_the_wanted_one(story: tuple[list[Event], Wanted | None]) -> None:
    events, wanted = story
    model = new_model()
    foreign = foreign_part(model)
    for event in events:
        if isinstance(event, tuple):
            run(model, event[0], cut=event[1])
        else:
            with contextlib.suppress(OSError):  # refused in this state
                event(model)
    run(model, wanted, Watch(model, wanted))
    check_reached(model, wanted)
    assert foreign_part(model) == foreign


def check_taken_away(made: Wanted, *tamperings: Callable[[Model], None]) -> None:
    wanted = replace(made, acls={})
    assert takes_everybody_away(wanted, made)
    model = new_model()
    run(model, made)
    for tampering in tamperings:
        with contextlib.suppress(OSError):  # refused in this state
            tampering(model)
    watch = Watch(model, wanted)
    for step in plan(wanted, iscsi.read_doomed(model, made) or iscsi.read(model, NAME)):
        apply(model, step)
        watch()
    assert not model.admitted(GROUP)
    assert not [path for path in model.made if path.startswith(f"{GROUP}/acls/")]
    if model.exists(GROUP) and model.read(f"{GROUP}/enable") == "1":
        attributes = [model.read(f"{GROUP}/attrib/{key}") for key in ("generate_node_acls", "authentication")]
        assert attributes == ["0", str(int(made.auth is not None))]
    if not tamperings:
        check_reached(model, wanted)
    # What was not looked at is mended as soon as all is.
    run(model, wanted, Watch(model, wanted))
    check_reached(model, wanted)


@settings(max_examples=300, deadline=None)
@given(WANTED.filter(lambda wanted: bool(wanted.acls)), st.lists(st.sampled_from(TAMPERINGS), min_size=1, max_size=2))
def test_to_take_away_the_entries_are_enough_to_look_at(
    made: Wanted, tamperings: list[Callable[[Model], None]]
) -> None:
    """Whatever somebody changed meanwhile: everybody is out, in safe steps, and nothing else got worse."""
    check_taken_away(made, *tamperings)


def test_everybody_goes_when_nothing_was_changed() -> None:
    check_taken_away(simple())


@pytest.mark.parametrize("acls", [{ONE: False}, {ONE: False, TWO: True}], ids=["one", "two"])
@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_each_change_is_seen_or_does_no_harm_when_everybody_goes(
    tampering: Callable[[Model], None], acls: dict[str, bool]
) -> None:
    check_taken_away(simple(acls=acls), tampering)


@settings(max_examples=100, deadline=None)
@given(WANTED, WANTED)
def test_what_was_made_is_known(wanted: Wanted, other: Wanted) -> None:
    model = new_model()
    run(model, wanted)
    assert plan(wanted, as_made(wanted)) == []
    # The same steps as from what is really there, to the like of it: the storage's discards aside, which are its own.
    assert plan(replace(wanted, acls=other.acls), as_made(wanted)) == plan(
        replace(wanted, acls=other.acls), iscsi.read(model, NAME)
    )
    assert not takes_everybody_away(wanted, wanted)
    assert takes_everybody_away(other, wanted) == (
        bool(wanted.acls) and not other.acls and replace(other, acls=wanted.acls) == wanted
    )


def simple(**more: object) -> Wanted:
    wanted = Wanted(
        NAME,
        Backstore(FILEIO, "/file", SERIALS[0], size=2**20, discard=True),
        1,
        {ONE: False, TWO: True},
        PORTALS[:1],
        Chap("u", Secret("p" * 12)),
    )
    return replace(wanted, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("auth", [None, Chap("u", Secret("p" * 12))])
def test_cut_off_anywhere_and_begun_again(auth: Chap | None) -> None:
    wanted = simple(auth=auth)
    length = run(new_model(), wanted)
    assert length > 20
    for target in (wanted, None):
        for cut in range(length):
            model = new_model()
            run(model, wanted, Watch(model, wanted), cut=cut)
            run(model, target, Watch(model, target))
            check_reached(model, target)
        for cut in range(length):
            model = new_model()
            run(model, wanted)
            run(model, None, cut=cut)
            run(model, target, Watch(model, target))
            check_reached(model, target)


def test_nothing_is_enabled_before_it_is_complete_and_portals_are_last() -> None:
    steps = plan(simple(), iscsi.read(Model(DEVICES), NAME))
    paths = [step.path for step in steps if not hasattr(step, "backstore")]
    enable = paths.index(f"{GROUP}/enable")
    assert paths[enable + 1 :] == [f"{GROUP}/np/{PORTALS[0]}"]
    for name in (ONE, TWO):
        entry = f"{GROUP}/acls/{name}"
        assert paths.index(f"{entry}/lun_1/mapped") < paths.index(f"{entry}/auth/password") < enable


def test_another_initiator_disturbs_nobody() -> None:
    model = new_model()
    run(model, simple())
    steps = plan(simple(acls={ONE: False, TWO: True, THREE: False}), iscsi.read(model, NAME))
    assert steps
    assert all(f"{GROUP}/acls/{THREE}" in step.path for step in steps if not hasattr(step, "backstore"))


def test_revoking_one_touches_the_others_not() -> None:
    model = new_model()
    run(model, simple())
    steps = plan(simple(acls={TWO: True}), iscsi.read(model, NAME))
    assert steps[0] == Write(f"{GROUP}/acls/{ONE}/auth/userid", "NULL")
    assert steps[-1] == Remove(f"{GROUP}/acls/{ONE}")
    assert all(f"{GROUP}/acls/{ONE}" in step.path for step in steps if not hasattr(step, "backstore"))


def test_whoever_may_be_in_without_an_entry_is_thrown_out() -> None:
    model = new_model()
    run(model, simple())
    model.write(f"{GROUP}/attrib/generate_node_acls", "1")
    assert plan(simple(), iscsi.read(model, NAME))[0] == Write(f"{GROUP}/enable", "0")


def test_growth_is_one_write() -> None:
    model = new_model()
    run(model, simple())
    grown = simple(backstore=replace(simple().backstore, size=2**22))
    path = backstore_path(FILEIO, NAME)
    assert plan(grown, iscsi.read(model, NAME)) == [Write(f"{path}/control", f"fd_dev_size={2**22}")]


def test_others_in_the_same_adapter_folder_stay() -> None:
    model = new_model()
    model.mkdir(hba(FILEIO, NAME))
    model.mkdir(f"{hba(FILEIO, NAME)}/somebody-s")
    run(model, simple())
    assert plan(simple(), iscsi.read(model, NAME)) == []
    run(model, None)
    assert model.exists(f"{hba(FILEIO, NAME)}/somebody-s")
    assert plan(None, iscsi.read(model, NAME)) == []


def test_our_names_are_found_without_their_targets_too() -> None:
    model = new_model()
    run(model, simple(), cut=3)
    prefix = "iqn.2010-10.org.openstack:"
    assert iscsi.our_names(model, prefix) == [NAME]
    assert iscsi.our_names(model, "iqn.2010-10.org.openstack.other:") == []
    run(model, simple())
    assert iscsi.our_names(model, prefix) == [NAME]
    seen = iscsi.observed(iscsi.read(model, NAME))
    assert (seen.paths, seen.serials, seen.initiators, seen.sessions) == (("/file",), (SERIALS[0],), (ONE, TWO), ())


def test_secrets_are_not_shown() -> None:
    secret = Secret("a-secret-of-chap")
    model = new_model()
    steps = plan(simple(auth=Chap("u", secret)), iscsi.read(model, NAME))
    run(model, simple(auth=Chap("u", secret)))
    assert secret.reveal() not in repr(steps) + repr(iscsi.read(model, NAME))


# --- what is refused before anything changes


@pytest.fixture
def spec(tmp_path: Path) -> ExportSpec:
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    return ExportSpec(
        "volume", NAME[-36:], NAME, path=str(path), serial=SERIALS[1], grants=(Grant("1", initiator=ONE),)
    )


def test_spec_in_lio_s_terms(spec: ExportSpec) -> None:
    writer, reader = Grant("2", mode="rw", initiator=TWO), Grant("3", mode="ro", initiator=TWO)
    wanted = iscsi.wanted(
        replace(spec, grants=(reader, writer, Grant("4", mode="ro", initiator=THREE))),
        [Portal("10.0.0.1", 3260), Portal("::1", 3260)],
    )
    assert wanted.acls == {TWO: False, THREE: True}
    assert wanted.portals == ("10.0.0.1:3260", "[::1]:3260")
    assert wanted.backstore == Backstore(FILEIO, spec.path, SERIALS[1], size=4096, discard=True)
    frozen = iscsi.wanted(replace(spec, read_only=True), [])
    assert (frozen.acls, frozen.backstore.discard) == ({ONE: True}, False)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"lun": 0}, exception.Invalid),
        ({"serial": "abc"}, exception.Invalid),
        ({"serial": "0" * 24 + "-x"}, exception.Invalid),
        ({"path": "/no/such/file"}, exception.NotFound),
        ({"path": "/dev"}, exception.Invalid),
        ({"path": "/dev/a,readonly=1"}, exception.Invalid),
        ({"path": "relative"}, exception.Invalid),
        ({"auth": Chap("NULLuser", Secret("p" * 12))}, exception.Invalid),
        ({"auth": Chap("u", Secret("p" * 300))}, exception.Invalid),
        ({"grants": (Grant("1"),)}, exception.InvalidConnector),
        ({"grants": (Grant("1", initiator="iqn.a/../../tpgt_1"),)}, exception.InvalidConnector),
    ],
)
def test_bad_spec_is_refused(spec: ExportSpec, change: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        iscsi.wanted(replace(spec, **change), [])  # type: ignore[arg-type]
    assert "p" * 12 not in str(caught.value)


def test_file_is_not_served_as_a_device(spec: ExportSpec) -> None:
    made = backstore.wanted(spec.path, spec.serial, discard=False)
    assert (made.plugin, made.device, made.size) == (FILEIO, "", 4096)

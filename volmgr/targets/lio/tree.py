# SPDX-License-Identifier: Apache-2.0
"""What one export is in LIO's configfs, and the ordered steps from whatever is there to what should be. Pure.

The order is the point. An initiator that is let in and finds no LUN gets ILLEGAL REQUEST, which Linux does not retry,
while one that is not let in tries again. So a thing is complete before it is visible, and an access list entry cannot
log in before its LUN is mapped, whatever was there and wherever the steps are cut off. It must not know how configfs is
reached, and no initiator, volume or driver.

Source: the kernel's Documentation/target/tcm_mod_builder.rst and what configfs shows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from volmgr.types import Chap, Secret

IBLOCK, FILEIO = "iblock", "fileio"
PLUGINS = (IBLOCK, FILEIO)
TPG = "tpgt_1"
#: What an attribute of CHAP reads like when it is not set; writing the word unsets it.
UNSET = ("", "NULL")
#: Nobody without an entry gets in or sees the target, and what is mapped is read-only until something else is written.
ATTRIBUTES = {"generate_node_acls": "0", "demo_mode_discovery": "0", "prod_mode_write_protect": "1"}
AUTHENTICATION = "authentication"


@dataclass(frozen=True)
class Backstore:
    """A storage object of the target core.

    :param device: ``major:minor`` of a block device, empty for a file.
    :param size: of a file in bytes, as LIO was told it; 0 for a block device, whose size LIO asks itself.
    :param discard: whether discards are offered; None if the storage cannot.
    """

    plugin: str
    path: str
    serial: str
    device: str = ""
    size: int = 0
    read_only: bool = False
    discard: bool | None = None
    enabled: bool = True

    def serves(self, wanted: Backstore) -> bool:
        """Return whether this is the wanted one, but for what can be changed in use."""
        return replace(self, size=0, discard=None) == replace(wanted, size=0, discard=None)


@dataclass(frozen=True)
class Mapped:
    """A LUN mapped for one initiator; ``links`` are link names and what they point to."""

    links: Mapping[str, str]
    read_only: bool


@dataclass(frozen=True)
class Acl:
    """An initiator's entry of the access list; ``luns`` by folder name."""

    userid: str = ""
    password: Secret = field(default_factory=lambda: Secret(""))
    luns: Mapping[str, Mapped] = field(default_factory=dict)
    session: bool = False


@dataclass(frozen=True)
class Tpg:
    """A target portal group; ``rdma`` are those of its portals that take iSER."""

    enabled: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)
    luns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    acls: Mapping[str, Acl] = field(default_factory=dict)
    portals: tuple[str, ...] = ()
    rdma: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Observed:
    """All that exists under one target's name.

    :param fabric: whether the folder of the iSCSI fabric exists.
    :param exists: whether the target's does.
    :param backstores: by plugin whose adapter folder exists for this name alone; None: that folder is empty.
    """

    name: str
    fabric: bool = True
    exists: bool = False
    tpgs: Mapping[str, Tpg] = field(default_factory=dict)
    backstores: Mapping[str, Backstore | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What an export should be; ``acls`` says of each initiator whether it may only read, ``rdma`` asks for iSER."""

    name: str
    backstore: Backstore
    lun: int
    acls: Mapping[str, bool]
    portals: tuple[str, ...]
    auth: Chap | None = None
    rdma: bool = False


def as_made(wanted: Wanted) -> Observed:
    """Return what is there when a plan for ``wanted`` has been carried out and nobody has changed anything since."""
    unit = f"{target_path(wanted.name)}/{TPG}/lun/lun_{wanted.lun}"
    auth = wanted.auth
    account = Acl() if auth is None else Acl(userid=auth.username, password=auth.password)
    tpg = Tpg(
        enabled=True,
        attributes={**ATTRIBUTES, AUTHENTICATION: "0" if auth is None else "1"},
        luns={f"lun_{wanted.lun}": {"device": backstore_path(wanted.backstore.plugin, wanted.name)}},
        acls={
            name: replace(account, luns={f"lun_{wanted.lun}": Mapped({"mapped": unit}, read_only)})
            for name, read_only in sorted(wanted.acls.items())
        },
        portals=wanted.portals,
        rdma=frozenset(wanted.portals if wanted.rdma else ()),
    )
    return Observed(
        wanted.name, exists=True, tpgs={TPG: tpg}, backstores={wanted.backstore.plugin: wanted.backstore}
    )


def takes_everybody_away(wanted: Wanted, made: Wanted) -> bool:
    """Return whether ``wanted`` is ``made`` without its initiators, and nothing else."""
    return bool(made.acls) and replace(made, acls={}) == wanted


# --- steps


@dataclass(frozen=True)
class Make:
    """mkdir; a ``shared`` folder may be there already."""

    path: str
    shared: bool = False


@dataclass(frozen=True)
class Remove:
    """rmdir; a ``shared`` folder may be gone already, or stay because another's things are in it."""

    path: str
    shared: bool = False


@dataclass(frozen=True)
class Link:
    """A symbolic link at ``path`` to the folder ``to``."""

    path: str
    to: str


@dataclass(frozen=True)
class Unlink:
    """Removal of a symbolic link."""

    path: str


@dataclass(frozen=True)
class Write:
    """A value for an attribute; a secret one is shown nowhere."""

    path: str
    value: str | Secret


@dataclass(frozen=True)
class Offer:
    """Whether a backstore offers discards; one whose storage cannot is left as it is."""

    backstore: str
    on: bool


Step = Make | Remove | Link | Unlink | Write | Offer
Steps = Iterator[Step]


# --- where things are


def hba(plugin: str, name: str) -> str:
    """Return the adapter folder of a target's backstore.

    Each export has its own, so none is listed or waited for. The number is made from the name, high enough to stay
    clear of those that targetcli counts up from 0; two names with one number share a folder.
    """
    return f"core/{plugin}_{0x40000000 | zlib.crc32(name.encode()) & 0x3FFFFFFF}"


def backstore_path(plugin: str, name: str) -> str:
    """Return the folder of a target's backstore, which bears the target's name."""
    return f"{hba(plugin, name)}/{name}"


def target_path(name: str) -> str:
    """Return the folder of a target."""
    return f"iscsi/{name}"


# --- the plan


def plan(wanted: Wanted | None, have: Observed) -> list[Step]:
    """Return the steps from ``have`` to ``wanted``, none if it is so; None: nothing should be there."""
    return list(_removal(have) if wanted is None else _making(wanted, have))


def _removal(have: Observed) -> Steps:
    target = target_path(have.name)
    for tag, tpg in have.tpgs.items():
        yield from _remove_tpg(f"{target}/{tag}", tpg)
    if have.exists:
        yield Remove(target)
    yield from remove_backstores(have.name, have.backstores)


def _making(wanted: Wanted, have: Observed) -> Steps:
    target = target_path(wanted.name)
    group = f"{target}/{TPG}"
    for tag, other in have.tpgs.items():
        if tag != TPG:
            yield from _remove_tpg(f"{target}/{tag}", other)
    tpg = have.tpgs.get(TPG, Tpg())
    if not _is_served(wanted, have, tpg):
        yield from _empty_tpg(group, tpg)
        yield from remove_backstores(have.name, have.backstores)
        yield from build_backstore(wanted.name, wanted.backstore)
        tpg = replace(tpg, enabled=False, luns={}, acls={})
    else:
        yield from adjust_backstore(wanted.name, wanted.backstore, have.backstores[wanted.backstore.plugin])
    if not have.fabric:
        yield Make("iscsi", shared=True)
    if not have.exists:
        yield Make(target)
    if TPG not in have.tpgs:
        yield Make(group)
    for key, value in ATTRIBUTES.items():
        if tpg.attributes.get(key) != value:
            yield Write(f"{group}/attrib/{key}", value)
    if not tpg.luns:
        lun = f"{group}/lun/lun_{wanted.lun}"
        yield Make(lun)
        yield Link(f"{lun}/device", backstore_path(wanted.backstore.plugin, wanted.name))
    yield from _access(wanted, group, tpg)
    if not tpg.enabled:
        yield Write(f"{group}/enable", "1")
    for portal in tpg.portals:
        if portal not in wanted.portals:
            yield Remove(f"{group}/np/{portal}")
    for portal in wanted.portals:
        if portal not in tpg.portals:
            yield Make(f"{group}/np/{portal}")
        if (portal in tpg.rdma) != wanted.rdma:
            yield Write(f"{group}/np/{portal}/iser", str(int(wanted.rdma)))


def _is_served(wanted: Wanted, have: Observed, tpg: Tpg) -> bool:
    """Return whether the right storage is behind the right LUN, so that nobody has to be cut off."""
    backstore = have.backstores.get(wanted.backstore.plugin)
    if backstore is None or len(have.backstores) > 1 or not backstore.serves(wanted.backstore):
        return False
    if tpg.enabled and tpg.attributes.get("generate_node_acls") != "0":
        return False  # anybody may be logged in
    if not tpg.luns:
        # Nobody is let in yet: the backstore can be used as it is.
        return not tpg.enabled and not tpg.acls
    links = tpg.luns.get(f"lun_{wanted.lun}", {})
    return len(tpg.luns) == 1 and list(links.values()) == [backstore_path(wanted.backstore.plugin, wanted.name)]


def build_backstore(name: str, backstore: Backstore) -> Steps:
    """Make a backstore. One that is enabled has its path, and one whose serial is set is complete."""
    path = backstore_path(backstore.plugin, name)
    yield Make(hba(backstore.plugin, name), shared=True)
    yield Make(path)
    yield Write(f"{path}/udev_path", backstore.path)
    if backstore.plugin == FILEIO:
        # Through the page cache, and initiators are told that there is a cache to flush.
        control = f"fd_dev_name={backstore.path},fd_dev_size={backstore.size},fd_buffered_io=1"
    else:
        control = f"udev_path={backstore.path},readonly={int(backstore.read_only)}"
    yield Write(f"{path}/control", control)
    yield Write(f"{path}/enable", "1")
    # Before any LUN: it cannot be changed while one is there.
    yield Write(f"{path}/wwn/vpd_unit_serial", backstore.serial)
    yield Offer(path, bool(backstore.discard))


def adjust_backstore(name: str, backstore: Backstore, present: Backstore | None) -> Steps:
    """Change of a backstore what can be changed in use."""
    path = backstore_path(backstore.plugin, name)
    if present is not None and present.size != backstore.size:
        yield Write(f"{path}/control", f"fd_dev_size={backstore.size}")
    if present is not None and present.discard not in (None, bool(backstore.discard)):
        yield Offer(path, bool(backstore.discard))


def _access(wanted: Wanted, group: str, tpg: Tpg) -> Steps:
    """Bring the access list to what it should be: take away first, give last.

    An entry without CHAP account cannot log in while authentication is asked for, so a new entry gets its account
    after its LUN; where no CHAP is wanted, authentication is asked for until all entries are complete.
    """
    entries = {name: acl for name, acl in tpg.acls.items() if name in wanted.acls and _is_mapped(wanted, group, acl)}
    doomed = {name: acl for name, acl in tpg.acls.items() if name not in entries}
    missing = [name for name in wanted.acls if name not in entries]
    # A new group asks for it; the kernel's default need not be relied upon.
    asked = tpg.attributes.get(AUTHENTICATION) == "1"
    if not asked and (wanted.auth is not None or doomed or missing):
        yield Write(f"{group}/attrib/{AUTHENTICATION}", "1")
        asked = True
    for name, acl in doomed.items():
        yield from _remove_acl(f"{group}/acls/{name}", acl)
    for name, acl in entries.items():
        yield from _adjust_acl(wanted, f"{group}/acls/{name}", acl, wanted.acls[name])
    for name in missing:
        yield from _build_acl(wanted, group, name, wanted.acls[name])
    if wanted.auth is None and (asked or tpg.attributes.get(AUTHENTICATION) != "0"):
        yield Write(f"{group}/attrib/{AUTHENTICATION}", "0")


def _is_mapped(wanted: Wanted, group: str, acl: Acl) -> bool:
    lun = f"lun_{wanted.lun}"
    return list(acl.luns) == [lun] and list(acl.luns[lun].links.values()) == [f"{group}/lun/{lun}"]


def _build_acl(wanted: Wanted, group: str, name: str, read_only: bool) -> Steps:
    path = f"{group}/acls/{name}"
    lun = f"{path}/lun_{wanted.lun}"
    yield Make(path)
    yield Make(lun)
    yield Link(f"{lun}/mapped", f"{group}/lun/lun_{wanted.lun}")
    if not read_only:
        yield Write(f"{lun}/write_protect", "0")
    yield from _account(path, Acl(), wanted.auth)


def _adjust_acl(wanted: Wanted, path: str, acl: Acl, read_only: bool) -> Steps:
    lun = f"lun_{wanted.lun}"
    if acl.luns[lun].read_only != read_only:
        yield Write(f"{path}/{lun}/write_protect", str(int(read_only)))
    yield from _account(path, acl, wanted.auth)


def _account(path: str, acl: Acl, auth: Chap | None) -> Steps:
    """Give an entry its account; the password last, as nobody gets in without one."""
    if auth is None:
        if acl.userid not in UNSET:
            yield Write(f"{path}/auth/userid", "NULL")
        if acl.password.reveal() not in UNSET:
            yield Write(f"{path}/auth/password", "NULL")
        return
    if acl.userid != auth.username:
        yield Write(f"{path}/auth/userid", auth.username)
    if acl.password != auth.password:
        yield Write(f"{path}/auth/password", auth.password)


# --- taking apart


def _remove_acl(path: str, acl: Acl) -> Steps:
    """Remove an entry: first nobody can log in as it any more, then its LUN goes, with the entry its sessions."""
    if acl.userid not in UNSET:
        yield Write(f"{path}/auth/userid", "NULL")
    for lun, mapped in acl.luns.items():
        for link in mapped.links:
            yield Unlink(f"{path}/{lun}/{link}")
        yield Remove(f"{path}/{lun}")
    yield Remove(path)


def _empty_tpg(group: str, tpg: Tpg) -> Steps:
    """End all sessions and remove entries and LUNs."""
    if tpg.enabled:
        yield Write(f"{group}/enable", "0")
    for name, acl in tpg.acls.items():
        yield from _remove_acl(f"{group}/acls/{name}", acl)
    for lun, links in tpg.luns.items():
        for link in links:
            yield Unlink(f"{group}/lun/{lun}/{link}")
        yield Remove(f"{group}/lun/{lun}")


def _remove_tpg(group: str, tpg: Tpg) -> Steps:
    if tpg.enabled:
        yield Write(f"{group}/enable", "0")
    for portal in tpg.portals:
        yield Remove(f"{group}/np/{portal}")
    yield from _empty_tpg(group, replace(tpg, enabled=False))
    yield Remove(group)


def remove_backstores(name: str, backstores: Mapping[str, Backstore | None]) -> Steps:
    """Remove all backstores of a name, and their adapters' folders."""
    for plugin, backstore in backstores.items():
        if backstore is not None:
            yield Remove(backstore_path(plugin, name))
        yield Remove(hba(plugin, name), shared=True)

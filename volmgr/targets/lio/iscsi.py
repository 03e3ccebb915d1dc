# SPDX-License-Identifier: Apache-2.0
"""The iSCSI fabric of LIO: what an export should be there, and what is there, read from configfs.

It must not know the order in which things are made, nor what a volume is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from volmgr import exception, names
from volmgr.targets import iscsi_data
from volmgr.targets.lio import backstore
from volmgr.targets.lio.configfs import Reader
from volmgr.targets.lio.tree import (
    ATTRIBUTES,
    AUTHENTICATION,
    TPG,
    Acl,
    Mapped,
    Observed,
    Tpg,
    Wanted,
    as_made,
    hba,
    target_path,
)
from volmgr.types import Chap, ExportSpec, ObservedExport, Portal, Secret

_LUN_MAX = 0xFFFF
_AUTH_MAX = 255


def check_initiator(value: object) -> str:
    """Return the initiator name if it is one that can name a folder.

    :raises InvalidConnector: it is missing, no iSCSI name, or has a slash.
    """
    name = iscsi_data.check_initiator(value)
    if "/" in name:
        raise exception.InvalidConnector(
            "The connector's initiator is not an iSCSI name", missing="initiator", initiator=name
        )
    return name


def wanted(spec: ExportSpec, portals: Sequence[Portal], *, rdma: bool = False) -> Wanted:
    """Return what the export should be in LIO.

    :param rdma: whether its portals take iSER.
    :raises Invalid: something in ``spec`` cannot be told to LIO. :raises NotFound: there is no such storage.
    """
    if not 1 <= spec.lun <= _LUN_MAX:
        raise exception.Invalid("LIO answers on LUN 0 by itself even when nothing is there", field="lun", lun=spec.lun)
    acls: dict[str, bool] = {}
    for grant in spec.grants:
        name = check_initiator(grant.initiator)
        # Two grants of one initiator: it may do what either allows.
        acls[name] = acls.get(name, True) and (spec.read_only or grant.mode == "ro")
    if spec.auth is not None:
        _check_account(spec.auth)
    return Wanted(
        name=spec.target_name,
        backstore=backstore.wanted(
            spec.path, spec.serial or spec.resource_id.replace("-", ""), discard=spec.discard and not spec.read_only
        ),
        lun=spec.lun,
        acls=acls,
        portals=tuple(str(portal) for portal in portals),
        auth=spec.auth,
        rdma=rdma,
    )


def _check_account(auth: Chap) -> None:
    """The kernel takes a value that begins with NULL for none, cuts a long one, and ends one at a line's end."""
    for field, value in (("username", auth.username), ("password", auth.password.reveal())):
        if not value or value.startswith("NULL") or len(value.encode()) > _AUTH_MAX or value.strip() != value:
            raise exception.Invalid(f"LIO cannot keep this CHAP {field}", field=field)


def read(tree: Reader, name: str, *, sessions: bool = False) -> Observed:
    """Return all that exists under one target's name; nothing else is looked at.

    :param sessions: look for them as well.
    """
    target = target_path(name)
    exists = tree.exists(target)
    tags = [tag for tag in tree.folders(target) if tag.startswith("tpgt_")] if exists else []
    return Observed(
        name,
        fabric=exists or tree.exists("iscsi"),
        exists=exists,
        tpgs={tag: _read_tpg(tree, f"{target}/{tag}", sessions) for tag in tags},
        backstores=backstore.read_all(tree, name),
    )


def read_doomed(tree: Reader, made: Wanted) -> Observed | None:
    """Return what was made, with its entries as they are, for whom everybody is to be taken away from; little is read.

    The entries are all that matters then, and that nobody gets in without one: what is served, where, and whether, is
    looked at when somebody is let in.

    :param made: what was there.
    :returns: None if somebody has changed what is looked at: then all must be.
    """
    group = f"{target_path(made.name)}/{TPG}"
    believed = as_made(made)
    tpg = believed.tpgs[TPG]
    if any(tree.read(f"{group}/attrib/{key}") != tpg.attributes[key] for key in ("generate_node_acls", AUTHENTICATION)):
        return None
    present = set(tree.folders(f"{group}/acls"))
    if not present <= made.acls.keys():
        return None
    acls = {}
    for name in present:
        path = f"{group}/acls/{name}"
        luns = [folder for folder in tree.folders(path) if folder.startswith("lun_")]
        # Its account is believed to be there, so that it is taken first.
        acls[name] = replace(tpg.acls[name], luns={lun: Mapped(tree.links(f"{path}/{lun}"), True) for lun in luns})
    return replace(believed, tpgs={TPG: replace(tpg, acls=acls)})


def _read_tpg(tree: Reader, group: str, sessions: bool) -> Tpg:
    return Tpg(
        enabled=tree.read(f"{group}/enable") == "1",
        attributes={key: tree.read(f"{group}/attrib/{key}") for key in (*ATTRIBUTES, AUTHENTICATION)},
        luns={lun: tree.links(f"{group}/lun/{lun}") for lun in tree.folders(f"{group}/lun")},
        acls={acl: _read_acl(tree, f"{group}/acls/{acl}", sessions) for acl in tree.folders(f"{group}/acls")},
        portals=(portals := tree.folders(f"{group}/np")),
        rdma=frozenset(portal for portal in portals if tree.read(f"{group}/np/{portal}/iser") == "1"),
    )


def _read_acl(tree: Reader, path: str, sessions: bool) -> Acl:
    luns = [folder for folder in tree.folders(path) if folder.startswith("lun_")]
    return Acl(
        userid=tree.read(f"{path}/auth/userid"),
        password=Secret(tree.read(f"{path}/auth/password")),
        luns={
            lun: Mapped(tree.links(f"{path}/{lun}"), tree.read(f"{path}/{lun}/write_protect") == "1") for lun in luns
        },
        session=sessions and not tree.read(f"{path}/info").startswith("No active"),
    )


def our_names(tree: Reader, prefix: str) -> list[str]:
    """Return the names of our targets, and of backstores of ours whose target is gone, by one walk."""
    return sorted({name for name in tree.folders("iscsi") if is_ours(prefix, name)} | our_backstores(tree, prefix))


def our_backstores(tree: Reader, prefix: str) -> set[str]:
    """Return the names of our backstores, by one walk."""
    found = set()
    for folder in tree.folders("core"):
        plugin, _, number = folder.rpartition("_")
        if number.isascii() and number.isdigit() and int(number) >= 0x40000000:
            found |= {
                name
                for name in tree.folders(f"core/{folder}")
                if is_ours(prefix, name) and hba(plugin, name) == f"core/{folder}"
            }
    return found


def is_ours(prefix: str, name: str) -> bool:
    """Return whether a name is one that we give to targets."""
    parsed = names.parse_target_name(prefix, name)
    return parsed is not None and not parsed[2]


def observed(have: Observed) -> ObservedExport:
    """Return what is there in the form in which audits compare it."""
    stores = [store for store in have.backstores.values() if store is not None]
    tpg = have.tpgs.get(TPG, Tpg())
    return ObservedExport(
        target_name=have.name,
        paths=tuple(sorted({store.path for store in stores if store.path})),
        serials=tuple(sorted({store.serial for store in stores if store.serial})),
        initiators=tuple(sorted(tpg.acls)),
        sessions=tuple(sorted(name for name, acl in tpg.acls.items() if acl.session)),
    )

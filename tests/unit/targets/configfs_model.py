# SPDX-License-Identifier: Apache-2.0
"""LIO's configfs as the kernel behaves, in memory: what it makes by itself, what it refuses and with which error.

Each rule was seen in a real kernel (6.1); the tests of the lab run the same plans there. It knows no plan.
"""

from __future__ import annotations

import errno
import re

from volmgr.types import Secret

TPG_ATTRIBUTES = {
    "authentication": "1",
    "generate_node_acls": "0",
    "demo_mode_discovery": "1",
    "prod_mode_write_protect": "0",
}
_HBA = re.compile(r"core/(iblock|fileio)_\d+\Z")
_BACKSTORE = re.compile(r"core/(iblock|fileio)_\d+/[^/]+\Z")
_TARGET = re.compile(r"(?:iscsi|fc)/[^/]+\Z")
_TPG = re.compile(r"(?:iscsi|fc)/[^/]+/tpgt_\d+\Z")
_LUN = re.compile(r"(?:iscsi|fc)/[^/]+/tpgt_\d+/lun/lun_\d+\Z")
_ACL = re.compile(r"(?:iscsi|fc)/[^/]+/tpgt_\d+/acls/[^/]+\Z")
_MAPPED = re.compile(r"(?:iscsi|fc)/[^/]+/tpgt_\d+/acls/[^/]+/lun_\d+\Z")
_PORTAL = re.compile(r"iscsi/[^/]+/tpgt_\d+/np/[^/]+\Z")


def refused(number: int, path: str) -> OSError:
    return OSError(number, errno.errorcode[number], path)


class Model:
    """A tree.

    :param devices: block devices by path, as ``major:minor``; those whose path ends with ``-plain`` cannot discard.
    """

    def __init__(self, devices: dict[str, str]) -> None:
        self.devices = devices
        #: folders that somebody made; and the ones that the kernel made in them.
        self.made: set[str] = {"core"}
        self.given: set[str] = set()
        self.attributes: dict[str, str] = {}
        self.symlinks: dict[str, str] = {}

    # --- as volmgr.targets.lio.configfs.Tree

    def exists(self, path: str) -> bool:
        return path in self.made or path in self.given

    def folders(self, path: str) -> tuple[str, ...]:
        inside = f"{path}/"
        found = {name[len(inside) :] for name in self.made | self.given if name.startswith(inside)}
        return tuple(sorted(name for name in found if "/" not in name))

    def links(self, path: str) -> dict[str, str]:
        return {link.rpartition("/")[2]: to for link, to in self.symlinks.items() if link.rpartition("/")[0] == path}

    def read(self, path: str) -> str:
        folder, _, name = path.rpartition("/")
        if name == "info" and _BACKSTORE.match(folder):
            return self._info(folder)
        if name == "info" and self.exists(folder):
            return "No active iSCSI Session for Initiator Endpoint: x"
        value = self.attributes.get(path, "")
        return f"T10 VPD Unit Serial Number: {value}" if name == "vpd_unit_serial" else value

    def _info(self, path: str) -> str:
        size, device = self.attributes.get(f"{path}/size", "0"), self.attributes.get(f"{path}/device", "")
        if "fileio" in path:
            return f"Status: X\n        TCM FILEIO ID: 0        File: /x  Size: {size}  Mode: Buffered-WCE Async: 0"
        major, _, minor = device.partition(":")
        numbers = (
            f"\n        Major: {major} Minor: {minor}  CLAIMED: IBLOCK" if device else "\n        Major: 0 Minor: 0"
        )
        return f"Status: X\n        iBlock device: x  UDEV PATH: x  readonly: 0{numbers}"

    def mkdir(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if self.exists(path):
            raise refused(errno.EEXIST, path)
        if parent and not self.exists(parent):
            raise refused(errno.ENOENT, path)
        defaults: dict[str, str] = {}
        if _TPG.match(path):
            self.given |= {f"{path}/{name}" for name in ("lun", "acls", "np", "attrib", "auth", "param")}
            if not path.startswith("fc/"):  # tcm_fc's groups have no attributes and are always on
                defaults = {"enable": "0", **{f"attrib/{key}": value for key, value in TPG_ATTRIBUTES.items()}}
        elif _BACKSTORE.match(path):
            self.given |= {f"{path}/{name}" for name in ("attrib", "wwn", "alua", "pr", "statistics")}
            defaults = {"enable": "0", "udev_path": "", "wwn/vpd_unit_serial": "", "attrib/emulate_tpu": "0"}
            defaults["attrib/max_unmap_block_desc_count"] = "0"
        elif _MAPPED.match(path):
            self.given.add(f"{path}/statistics")
            defaults = {"write_protect": "0"}
        elif _ACL.match(path):
            self.given |= {f"{path}/{name}" for name in ("attrib", "auth", "param", "fabric_statistics")}
            defaults = {"auth/userid": "", "auth/password": ""}
        elif _PORTAL.match(path):
            defaults = {"iser": "0"}
        elif not (path in ("iscsi", "fc") or any(rule.match(path) for rule in (_HBA, _TARGET, _LUN, _PORTAL))):
            raise refused(errno.EPERM, path)
        self.made.add(path)
        self.attributes |= {f"{path}/{key}": value for key, value in defaults.items()}

    def rmdir(self, path: str) -> None:
        if path not in self.made:
            raise refused(errno.EPERM if path in self.given else errno.ENOENT, path)
        inside = f"{path}/"
        if any(name.startswith(inside) for name in [*self.made, *self.symlinks]):
            raise refused(errno.ENOTEMPTY, path)
        if path in self.symlinks.values():
            raise refused(errno.EBUSY, path)
        self.made.remove(path)
        self.given = {name for name in self.given if not name.startswith(inside)}
        self.attributes = {key: value for key, value in self.attributes.items() if not key.startswith(inside)}

    def symlink(self, path: str, to: str) -> None:
        parent = path.rpartition("/")[0]
        if not self.exists(parent) or not self.exists(to):
            raise refused(errno.ENOENT, path)
        if self.links(parent):
            raise refused(errno.EEXIST, path)
        if _MAPPED.match(parent):
            group = parent.split("/acls/")[0]
            protect = self.attributes.get(f"{group}/attrib/prod_mode_write_protect", "0")
            self.attributes[f"{parent}/write_protect"] = protect
            if not self.links(to):
                raise refused(errno.EINVAL, path)
        elif self.attributes.get(f"{to}/enable") != "1":
            raise refused(errno.ENODEV, path)
        self.symlinks[path] = to

    def unlink(self, path: str) -> None:
        if self.symlinks.pop(path, None) is None:
            raise refused(errno.ENOENT, path)

    def write(self, path: str, value: str) -> None:
        assert not isinstance(value, Secret)
        folder, _, name = path.rpartition("/")
        if name == "control" and self.exists(folder):
            self._control(folder, dict(item.split("=", 1) for item in value.split(",")))
            return
        if path not in self.attributes:
            raise refused(errno.ENOENT, path)
        if name == "vpd_unit_serial" and folder.removesuffix("/wwn") in self.symlinks.values():
            raise refused(errno.EINVAL, path)
        if name == "emulate_tpu" and value == "1" and self.read(f"{folder}/max_unmap_block_desc_count") == "0":
            raise refused(errno.ENOSYS, path)
        if name == "enable" and _BACKSTORE.match(folder):
            self._enable(folder)
        self.attributes[path] = value

    def _control(self, path: str, options: dict[str, str]) -> None:
        for option, key in (("fd_dev_name", "file"), ("udev_path", "file"), ("fd_dev_size", "size")):
            if option in options:
                self.attributes[f"{path}/{key}"] = options[option]

    def _enable(self, path: str) -> None:
        if self.attributes[f"{path}/enable"] == "1":
            raise refused(errno.EEXIST, path)
        storage = self.attributes.get(f"{path}/file")
        if storage is None:
            raise refused(errno.EINVAL, path)
        if "iblock" in path:
            claimed = {value for key, value in self.attributes.items() if key.endswith("/device")}
            if self.devices[storage] in claimed:
                raise refused(errno.EBUSY, path)
            self.attributes[f"{path}/device"] = self.devices[storage]
        if not storage.endswith("-plain"):
            self.attributes[f"{path}/attrib/max_unmap_block_desc_count"] = "1"

    # --- what initiators would meet

    def admitted(self, group: str) -> set[str]:
        """Return the initiators that can log in."""
        if self.read(f"{group}/enable") != "1":
            return set()
        entries = set(self.folders(f"{group}/acls"))
        if self.read(f"{group}/attrib/authentication") == "0":
            return entries
        unset = ("", "NULL")
        return {
            name
            for name in entries
            if self.read(f"{group}/acls/{name}/auth/userid") not in unset
            and self.read(f"{group}/acls/{name}/auth/password") not in unset
        }

    def served(self, group: str, initiator: str) -> dict[str, tuple[str, str, bool]]:
        """Return path, serial and whether it is read-only of each LUN that an initiator meets, by its folder."""
        found = {}
        for lun in self.folders(f"{group}/acls/{initiator}"):
            mapped = f"{group}/acls/{initiator}/{lun}"
            for to in self.links(mapped).values():
                for store in self.links(to).values():
                    serial = self.attributes[f"{store}/wwn/vpd_unit_serial"]
                    read_only = self.read(f"{mapped}/write_protect") == "1"
                    found[lun] = (self.attributes[f"{store}/file"], serial, read_only)
        return found

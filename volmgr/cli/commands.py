# SPDX-License-Identifier: Apache-2.0
"""The table of commands: name, class, one line of help.

Commands are found here and not by entry points, which cost a walk over every installed package; a class is imported
only when its command runs. This module imports no command.
"""

from __future__ import annotations

import itertools
from importlib.metadata import EntryPoint
from typing import NamedTuple

from cliff import command, commandmanager


class Entry(NamedTuple):
    """Where a command's class is, and what it does in one line."""

    where: str
    help: str


COMMANDS: dict[str, Entry] = {
    "volume create": Entry("volume:Create", "make a volume: empty, from a snapshot, another volume, or an image"),
    "volume list": Entry("volume:List", "list volumes"),
    "volume show": Entry("volume:Show", "show a volume with its attachments"),
    "volume set": Entry("volume:Set", "change a volume's name, description, metadata and flags"),
    "volume extend": Entry("volume:Extend", "make a volume larger"),
    "volume delete": Entry("volume:Delete", "delete volumes"),
    "volume detach": Entry("volume:Detach", "end attachments of a volume and take their access away"),
    "volume undelete": Entry("volume:Undelete", "bring a deleted volume back from the trash"),
    "volume revert": Entry("volume:Revert", "take a volume back to one of its snapshots"),
    "volume manage": Entry("volume:Manage", "make storage that a backend has already a volume"),
    "volume manageable": Entry("volume:Manageable", "list what a backend has and whether it could be managed"),
    "volume retype": Entry("moves:Retype", "give a volume another type"),
    "volume migrate": Entry("moves:Migrate", "move a volume to another backend"),
    "volume complete-migration": Entry("moves:Complete", "let a volume be the new one that it was copied to"),
    "volume promote": Entry("moves:Promote", "let a volume's replica take its place"),
    "volume reenable-replication": Entry("moves:Reenable", "let a volume's replica follow it again"),
    "volume why": Entry("volume:Why", "say why a volume is in the state that it is in"),
    "snapshot create": Entry("snapshot:Create", "take a snapshot of a volume"),
    "snapshot list": Entry("snapshot:List", "list snapshots"),
    "snapshot show": Entry("snapshot:Show", "show a snapshot"),
    "snapshot delete": Entry("snapshot:Delete", "delete snapshots"),
    "snapshot manage": Entry("snapshot:Manage", "make storage that a backend has already a snapshot"),
    "snapshot manageable": Entry("snapshot:Manageable", "list the snapshots that a backend has"),
    "snapshot why": Entry("snapshot:Why", "say why a snapshot is in the state that it is in"),
    "group create": Entry("group:Create", "make a consistency group, also from a cgsnapshot or another group"),
    "group list": Entry("group:List", "list consistency groups"),
    "group show": Entry("group:Show", "show a consistency group with its volumes"),
    "group update": Entry("group:Update", "add and remove volumes, rename a consistency group"),
    "group delete": Entry("group:Delete", "delete consistency groups"),
    "group why": Entry("group:Why", "say why a consistency group is in the state that it is in"),
    "cgsnapshot create": Entry("cgsnapshot:Create", "snapshot all volumes of a consistency group at one instant"),
    "cgsnapshot list": Entry("cgsnapshot:List", "list cgsnapshots"),
    "cgsnapshot show": Entry("cgsnapshot:Show", "show a cgsnapshot with its snapshots"),
    "cgsnapshot delete": Entry("cgsnapshot:Delete", "delete cgsnapshots with their snapshots"),
    "cgsnapshot why": Entry("cgsnapshot:Why", "say why a cgsnapshot is in the state that it is in"),
    "image upload": Entry("image:Upload", "make an image of a volume"),
    "image list": Entry("image:List", "list images"),
    "image show": Entry("image:Show", "show an image"),
    "backup create": Entry("backup:Create", "back a volume up into a store, whole or only what has changed"),
    "backup list": Entry("backup:List", "list backups"),
    "backup show": Entry("backup:Show", "show a backup"),
    "backup restore": Entry("backup:Restore", "restore a backup, into a new volume or over one that is there"),
    "backup delete": Entry("backup:Delete", "delete backups"),
    "backup why": Entry("backup:Why", "say why a backup is in the state that it is in"),
    "store list": Entry("store:List", "list the backups in a store, without any daemon"),
    "store show": Entry("store:Show", "show a backup in a store, without any daemon"),
    "store restore": Entry("store:Restore", "write a backup in a store to a device or file, without any daemon"),
    "attachment create": Entry("attachment:Create", "reserve a volume, and connect it if a connector is given"),
    "attachment list": Entry("attachment:List", "list attachments"),
    "attachment show": Entry("attachment:Show", "show an attachment"),
    "attachment complete": Entry("attachment:Complete", "say that the instance uses the volume now"),
    "attachment delete": Entry("attachment:Delete", "end attachments and take their access away"),
    "attach": Entry("local:Attach", "attach a volume to this host as a block device"),
    "detach": Entry("local:Detach", "detach a volume from this host"),
    "local check": Entry("local_backend:Check", "without the service: check a backend and show what it can do"),
    "local stats": Entry("local_backend:Stats", "without the service: show how full a backend is"),
    "local list": Entry("local_backend:List", "without the service: list what a backend has"),
    "local create": Entry("local_backend:Create", "without the service: make a volume"),
    "local clone": Entry("local_backend:Clone", "without the service: make a volume of another, or of a snapshot"),
    "local snapshot": Entry("local_backend:TakeSnapshot", "without the service: take a snapshot of a volume"),
    "local extend": Entry("local_backend:Extend", "without the service: make a volume larger"),
    "local delete": Entry("local_backend:Delete", "without the service: remove a volume or snapshot, for good"),
    "local export": Entry("local_backend:Export", "without the service: let one host use a volume"),
    "local unexport": Entry("local_backend:Unexport", "without the service: end the export of a volume"),
    "local attach": Entry("local_backend:Attach", "without the service: attach a volume to this host"),
    "local detach": Entry("local_backend:Detach", "without the service: detach a volume from this host"),
    "initiator add": Entry("service:InitiatorAdd", "make a host's Fibre Channel port known before it logs in"),
    "service list": Entry("service:ServiceList", "list the workers and how they are"),
    "service show": Entry("service:ServiceShow", "show a worker"),
    "service disable": Entry("service:ServiceDisable", "place nothing new on a worker"),
    "service enable": Entry("service:ServiceEnable", "place new volumes on a worker again"),
    "service drain": Entry("service:ServiceDrain", "place nothing new on a worker and wait until it is idle"),
    "host audit": Entry("host:Audit", "compare this host's disks with its grants; --fix takes away what is stale"),
    "finding list": Entry("finding:List", "list where what is differs from what should be, as the last audit saw it"),
    "finding show": Entry("finding:Show", "show one finding"),
    "backend list": Entry("service:BackendList", "list the backends and their space"),
    "backend show": Entry("service:BackendShow", "show what a backend can do"),
    "backend failover": Entry("moves:Failover", "let a backend work on its replication target, or go back"),
    "backend freeze": Entry("moves:Freeze", "let a backend take no changes; attaching goes on"),
    "backend thaw": Entry("moves:Thaw", "let a backend take changes again"),
    "transfer create": Entry("transfer:Create", "offer a volume to another project; the key is shown once"),
    "transfer accept": Entry("transfer:Accept", "take an offered volume over"),
    "transfer list": Entry("transfer:List", "list the offers of volumes"),
    "transfer show": Entry("transfer:Show", "show an offer"),
    "transfer delete": Entry("transfer:Delete", "withdraw offers"),
    "backend explain": Entry("backend:Explain", "say where a volume would be placed and why"),
    "type create": Entry("type:Create", "make a volume type"),
    "type list": Entry("type:List", "list volume types"),
    "type show": Entry("type:Show", "show a volume type with its extra specs"),
    "type set": Entry("type:Set", "change a volume type and its extra specs"),
    "type delete": Entry("type:Delete", "delete volume types that no volume has"),
    "qos create": Entry("qos:Create", "make a QoS: limits of speed"),
    "qos list": Entry("qos:List", "list QoS"),
    "qos show": Entry("qos:Show", "show a QoS with the types that have it"),
    "qos set": Entry("qos:Set", "change a QoS"),
    "qos delete": Entry("qos:Delete", "delete QoS"),
    "qos associate": Entry("qos:Associate", "let volumes of a type have a QoS"),
    "qos disassociate": Entry("qos:Disassociate", "end an association"),
    "quota list": Entry("quota:List", "list quota limits and use by project and volume type"),
    "quota show": Entry("quota:Show", "show a project's limits and use"),
    "quota set": Entry("quota:Set", "set limits of a project, or of one of its volume types"),
    "operation list": Entry("operation:List", "list operations, the newest first"),
    "operation show": Entry("operation:Show", "show an operation"),
    "operation wait": Entry("operation:Wait", "wait until an operation has ended"),
    "operation cancel": Entry("operation:Cancel", "stop an operation and undo what it has begun"),
    "operation retry": Entry("operation:Retry", "let a parked operation go on"),
    "operation abandon": Entry("operation:Abandon", "give a parked operation up"),
    "doctor": Entry("doctor:Doctor", "check that this host has what its backends need"),
}


class Manager(commandmanager.CommandManager):
    """cliff's registry, filled from :data:`COMMANDS`."""

    def __init__(self) -> None:
        super().__init__(namespace=None)
        for name, entry in COMMANDS.items():
            self.commands[name] = EntryPoint(name, f"volmgr.cli.{entry.where}", "volmgr.cli")

    def find_command(self, argv: list[str]) -> tuple[type[command.Command], str, list[str]]:
        """Return the class of a command, its name and the arguments that are left.

        Only whole words count: with cliff's abbreviations ``attach li`` would be ``attachment list``, not a volume.

        :raises ValueError: there is no such command.
        """
        words = list(itertools.takewhile(lambda word: not word.startswith("-"), argv[:2]))
        for count in range(len(words), 0, -1):
            name = " ".join(words[:count])
            if name in self.commands:
                return self.commands[name].load(), name, argv[count:]
        raise ValueError(f"there is no command {' '.join(words)}")

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
    "volume create": Entry("volume:Create", "make a volume: empty, from a snapshot, or from another volume"),
    "volume list": Entry("volume:List", "list volumes"),
    "volume show": Entry("volume:Show", "show a volume with its attachments"),
    "volume set": Entry("volume:Set", "change a volume's name, description, metadata and flags"),
    "volume extend": Entry("volume:Extend", "make a volume larger"),
    "volume delete": Entry("volume:Delete", "delete volumes"),
    "volume undelete": Entry("volume:Undelete", "bring a deleted volume back from the trash"),
    "volume revert": Entry("volume:Revert", "take a volume back to one of its snapshots"),
    "volume why": Entry("volume:Why", "say why a volume is in the state that it is in"),
    "snapshot create": Entry("snapshot:Create", "take a snapshot of a volume"),
    "snapshot list": Entry("snapshot:List", "list snapshots"),
    "snapshot show": Entry("snapshot:Show", "show a snapshot"),
    "snapshot delete": Entry("snapshot:Delete", "delete snapshots"),
    "snapshot why": Entry("snapshot:Why", "say why a snapshot is in the state that it is in"),
    "attachment create": Entry("attachment:Create", "reserve a volume, and connect it if a connector is given"),
    "attachment list": Entry("attachment:List", "list attachments"),
    "attachment show": Entry("attachment:Show", "show an attachment"),
    "attachment complete": Entry("attachment:Complete", "say that the instance uses the volume now"),
    "attachment delete": Entry("attachment:Delete", "end attachments and take their access away"),
    "attach": Entry("local:Attach", "attach a volume to this host as a block device"),
    "detach": Entry("local:Detach", "detach a volume from this host"),
    "initiator add": Entry("service:InitiatorAdd", "make a host's Fibre Channel port known before it logs in"),
    "service list": Entry("service:ServiceList", "list the workers and how they are"),
    "backend list": Entry("service:BackendList", "list the backends and their space"),
    "backend show": Entry("service:BackendShow", "show what a backend can do"),
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

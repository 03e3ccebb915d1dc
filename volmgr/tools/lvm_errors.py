# SPDX-License-Identifier: Apache-2.0
"""What LVM's commands say when they refuse, as types: callers decide by class and never by text.

LVM ends with 5 for nearly every refusal, so only exit status and message together tell what happened. The sentences
are those of lvm2 2.03 in the C locale. This module knows nothing of volumes and starts nothing.
"""

from __future__ import annotations

import re

from volmgr import exception


class LvmError(exception.VolmgrError):
    """Base of all refusals; ``details`` name the command, its exit status and LVM's own words."""

    code = "volmgr.error.lvm"
    sentence = "{command} failed with status {status}: {reason}"


class LvmFailed(LvmError, exception.BackendDown):
    """A refusal of no known kind."""

    code = "volmgr.backend_down.lvm"
    default_hint = "Look at: journalctl -k, and run: vgck"


class LvmCrashed(LvmFailed):
    """The command died by a signal (a segmentation fault under load, mostly); what it was to do may be done."""

    code = "volmgr.backend_down.lvm_crash"


class LvmReportUnreadable(LvmError, exception.BackendDown):
    """A report is not what lvmreport(7) describes."""

    code = "volmgr.backend_down.lvm_report"
    retryable = False
    sentence = "LVM's report cannot be read: {reason}"


class GroupMissing(LvmError, exception.BackendDown):
    code = "volmgr.backend_down.lvm_group"
    sentence = "The volume group {group} is not there"
    default_hint = "Run: vgs; to make it: vgcreate {group} /dev/DISK"


class GroupPartial(LvmError, exception.BackendDown):
    code = "volmgr.backend_down.lvm_partial"
    sentence = "The volume group {group} lacks physical volumes: {reason}"
    default_hint = "Run: pvs; plug the disk in again, or: vgreduce --removemissing {group}"


class GroupReadOnly(LvmError, exception.BackendDown):
    """The group's metadata says so, or the disk takes no writes."""

    code = "volmgr.backend_down.lvm_read_only"
    sentence = "The volume group {group} takes no changes: {reason}"
    default_hint = "See: vgs {group}; blockdev --getro /dev/DISK; dmesg. Restore an older archive with: vgcfgrestore"


class GroupFull(LvmError, exception.NoSpace):
    code = "volmgr.no_space.lvm_group"
    sentence = "The volume group {group} has no room: {reason}"
    default_hint = "Wipe the trash, or add a disk: vgextend {group} /dev/DISK"


class PoolFull(LvmError, exception.NoSpace):
    code = "volmgr.no_space.lvm_pool"
    sentence = "The thin pool of {group} is nearly full: {reason}"
    default_hint = "Make it larger: lvextend -L +SIZE {group}/POOL (--poolmetadatasize +SIZE for its metadata)"


class PoolBroken(LvmError, exception.Inconsistent):
    code = "volmgr.inconsistent.lvm_pool"
    sentence = "The thin pool of {group} and LVM's metadata do not agree: {reason}"
    default_hint = "Compare lvs -o transaction_id with dmsetup status; mend with vgcfgrestore and the last good archive"


class LvNotFound(LvmError, exception.NotFound):
    code = "volmgr.not_found.lv"
    sentence = "{command}: {reason}"


class LvExists(LvmError, exception.Conflict):
    code = "volmgr.conflict.lv_exists"
    sentence = "{command}: {reason}"


class LvInUse(LvmError, exception.Busy):
    code = "volmgr.busy.lv"
    sentence = "{command}: {reason}"
    default_hint = "See who has it open: dmsetup ls --tree; fuser -v /dev/{group}/LV"


class SnapshotOverflowed(LvmError, exception.Inconsistent):
    """A thick snapshot had no room for what changed: its bytes are lost."""

    code = "volmgr.inconsistent.lvm_snapshot"
    sentence = "{command}: {reason}"
    default_hint = "Delete the snapshot; its volume is not harmed"


class LvActiveOrigin(LvInUse):
    """An origin with thick snapshots changes its size only while it is inactive."""

    code = "volmgr.busy.lv_origin"


class LvSameSize(LvmError, exception.Conflict):
    code = "volmgr.conflict.lv_size"
    sentence = "{command}: {reason}"


class LvWouldShrink(LvmError, exception.Invalid):
    code = "volmgr.invalid.lv_size"
    sentence = "{command}: {reason}"


class LvmLocked(LvmError, exception.Busy):
    """Another LVM command held the group's lock for too long."""

    code = "volmgr.busy.lvm_lock"
    sentence = "Another LVM command holds the lock of {group}: {reason}"


# The first match counts.
_MESSAGES: tuple[tuple[re.Pattern[str], type[LvmError]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"can't get lock|giving up waiting for lock|/lock/lvm/.*(open failed|flock failed)", LvmLocked),
        (r'volume group "[^"]*" not found', GroupMissing),
        (r"(couldn.t|cannot) find device with uuid|missing (pv|physical volume)|is partial", GroupPartial),
        (r"volume group \S+ is read-only|failed to write (vg|metadata)", GroupReadOnly),
        (r"transaction[ _]id", PoolBroken),
        (r"invalidated snapshot", SnapshotOverflowed),
        (r"free space in (thin )?pool .* (reached|above|exceeds) threshold|pool .* out of (data|metadata)", PoolFull),
        (r"resized only while inactive", LvActiveOrigin),
        (r"matches existing size", LvSameSize),
        (r"not larger than existing size", LvWouldShrink),
        (r"already exists in volume group", LvExists),
        (r"insufficient (suitable )?(allocatable|free)|free space", GroupFull),
        (r"\bin use\b|is used by another device|contains a filesystem|open logical volume", LvInUse),
        (r"failed to find logical volume|not found in volume group", LvNotFound),
    )
)


def classify(command: str, group: str, status: int, stderr: str) -> LvmError:
    """Return the error that a command's exit status and words mean.

    :param command: its name. :param group: the volume group, for the hint. :param status: as in
        :class:`volmgr.tools.process.Result`; 139 is a segmentation fault told by a shell.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and "WARNING:" not in line]
    reason = "; ".join(lines)[:500] or "it said nothing"
    found: type[LvmError] = LvmCrashed if status < 0 or status == 139 else LvmFailed
    if found is LvmFailed:
        found = next((kind for pattern, kind in _MESSAGES if pattern.search(stderr)), LvmFailed)
    return found(command=command, group=group, status=status, reason=reason)

# SPDX-License-Identifier: Apache-2.0
"""Every error that volmgr raises, arranged by what the caller can do about it.

An error has a stable ``code`` (never reused, never renamed), a message, a ``hint`` that names the next step,
``retryable`` and JSON ``details``. The classes cross the RPC transport: :func:`to_primitive` and
:func:`from_primitive` are the journal's form of them. This module imports nothing of volmgr.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class VolmgrError(Exception):
    """Base of all errors.

    :param message: one sentence for people; without it the class's own sentence is filled with ``details``.
    :param hint: the next command or change that mends it.
    :param details: JSON values (ids, statuses, sizes with their unit in the name).
    """

    code: ClassVar[str] = "volmgr.error"
    retryable: ClassVar[bool] = False
    sentence: ClassVar[str] = "An unexpected error occurred"
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str | None = None, *, hint: str | None = None, **details: Any) -> None:
        self.details: dict[str, Any] = {key: _json_safe(value) for key, value in details.items()}
        self.message = message if message is not None else _fill(self.sentence, self.details)
        self.hint = hint if hint is not None else _fill(self.default_hint, self.details)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments that build this error again; the RPC layer sends them beside ``args``, the message."""
        return {"hint": self.hint, **self.details}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.kwargs)


def _rebuild(cls: type[VolmgrError], message: str, kwargs: dict[str, Any]) -> VolmgrError:
    return cls(message, **kwargs)


def _fill(template: str, details: Mapping[str, Any]) -> str:
    try:
        return template.format(**details)
    except (KeyError, IndexError):
        return template


def _json_safe(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json_safe(item) for item in value]
    return str(value)


# --- the remedies -----------------------------------------------------------------------------------------------


class Invalid(VolmgrError):
    """The request itself is wrong; nothing was changed. ``field`` names the argument."""

    code = "volmgr.invalid"
    sentence = "The argument {field} is not valid"


class NotFound(VolmgrError):
    """The resource does not exist, or is not the caller's to see."""

    code = "volmgr.not_found"
    sentence = "The {resource} {id} could not be found"


class Conflict(VolmgrError):
    """The resource's state, or an operation that holds it, is in the way; ``details`` name status and holder."""

    code = "volmgr.conflict"
    sentence = "The {resource} {id} is in a state that does not allow this"


class Unsupported(VolmgrError):
    """The backend cannot do this; nothing was changed."""

    code = "volmgr.unsupported"
    sentence = "The backend does not support {verb}"


class NoSpace(VolmgrError):
    """The backend has no room for it."""

    code = "volmgr.no_space"
    sentence = "The backend has no room for this"


class Busy(VolmgrError):
    """Something else uses it at this moment; the same request may succeed later."""

    code = "volmgr.busy"
    retryable = True
    sentence = "The {resource} {id} is in use at this moment"


class BackendDown(VolmgrError):
    """The backend, its tools or a service that volmgr needs does not answer."""

    code = "volmgr.backend_down"
    retryable = True
    sentence = "The backend does not answer"


class Timeout(VolmgrError):
    """A wait came to its end; what was waited for may still happen."""

    code = "volmgr.timeout"
    retryable = True
    sentence = "Timed out"


class Inconsistent(VolmgrError):
    """SQL, storage and target do not agree; an audit says how to mend it."""

    code = "volmgr.inconsistent"
    sentence = "What is recorded and what is there differ"
    default_hint = "Run: volmgr-manage audit"


class QuotaExceeded(VolmgrError):
    """The project's quota does not allow it."""

    code = "volmgr.quota_exceeded"
    sentence = "The quota for {quota} is exceeded"


class Forbidden(VolmgrError):
    """The caller may not do this."""

    code = "volmgr.forbidden"
    sentence = "You are not allowed to do this"


class Moved(VolmgrError):
    """Another worker owns the resource; ``host`` is where to send the request."""

    code = "volmgr.moved"
    retryable = True
    sentence = "The request belongs to {host}"


# --- names that callers and drivers of this tree know -------------------------------------------------------------


class InvalidConfiguration(Invalid):
    code = "volmgr.invalid.configuration"
    sentence = "The configuration is not valid: {reason}"


class InvalidConnector(Invalid):
    code = "volmgr.invalid.connector"
    sentence = "The connector lacks {missing}"


class TooBig(Invalid):
    code = "volmgr.invalid.too_big"
    sentence = "{size} GiB is more than max_volume_size, {limit} GiB"
    default_hint = "Ask for at most {limit} GiB, or raise max_volume_size"


class ManageExistingInvalidReference(Invalid):
    code = "volmgr.invalid.manage_reference"
    sentence = "The reference {existing_ref} does not name a storage object that can be managed"


class ManageExistingVolumeTypeMismatch(Invalid):
    code = "volmgr.invalid.manage_type"
    sentence = "The storage object does not fit the volume type: {reason}"


class GroupIncomplete(Inconsistent):
    """A driver says that it could not do all of a group's members; ``members`` has the status of each."""

    code = "volmgr.inconsistent.group"
    sentence = "The backend could not do all of {verb}"


class ManageExistingAlreadyManaged(Conflict):
    code = "volmgr.conflict.already_managed"
    sentence = "The storage object of {existing_ref} is managed already"


class AlreadyExists(Conflict):
    code = "volmgr.conflict.exists"
    sentence = "The {resource} {id} exists already"
    default_hint = "Use a new id, or show the one that exists"


class ObjectExists(AlreadyExists):
    """What is to be made bears a name that the backend has given already, to something else; nothing was touched."""

    code = "volmgr.conflict.exists.object"
    sentence = "The backend has an object {id} already, which is not of this request's making; it was left as it is"
    default_hint = "See what it is: volmgr-manage audit; then remove it, or rename and manage it, or use a new id"


class VolumeAttached(Conflict):
    code = "volmgr.conflict.attached"
    sentence = "The volume {id} is attached"
    default_hint = "Detach it first: volmgr attachment list --volume {id}"


class BackupHasDependants(Conflict):
    """Incremental backups were made against it; ``dependants`` names them."""

    code = "volmgr.conflict.has_dependants"
    sentence = "The backup {id} is what other backups were made against"
    default_hint = "Delete those first: {dependants}"


class VolumeHasSnapshots(Conflict):
    code = "volmgr.conflict.has_snapshots"
    sentence = "The volume {id} has {count} snapshots"
    default_hint = "Delete its snapshots first, or delete it with --cascade"


class VolumeIsBusy(Busy):
    code = "volmgr.busy.volume"
    sentence = "The storage of volume {volume_name} is in use"


class SnapshotIsBusy(Busy):
    code = "volmgr.busy.snapshot"
    sentence = "The storage of snapshot {snapshot_name} is in use"


class NoMoreVolumes(NoSpace):
    code = "volmgr.no_space.shelves"
    sentence = "Every shelf and blade is taken"


class NoValidBackend(NoSpace):
    """No backend can take the volume; ``details`` say what each lacks."""

    code = "volmgr.no_space.no_backend"
    sentence = "No backend takes the volume"


class VolumeTypeNotFound(NotFound):
    code = "volmgr.not_found.volume_type"
    sentence = "The volume type {id} could not be found"
    default_hint = "Look at: volmgr type list"


class QosNotFound(NotFound):
    code = "volmgr.not_found.qos"
    sentence = "The QoS {id} could not be found"
    default_hint = "Look at: volmgr qos list"


class VolumeNotFound(NotFound):
    code = "volmgr.not_found.volume"
    sentence = "The volume {id} could not be found"


class SnapshotNotFound(NotFound):
    code = "volmgr.not_found.snapshot"
    sentence = "The snapshot {id} could not be found"


class GroupNotFound(NotFound):
    code = "volmgr.not_found.group"
    sentence = "The consistency group {id} could not be found"
    default_hint = "Look at: volmgr group list"


class CgSnapshotNotFound(NotFound):
    code = "volmgr.not_found.cgsnapshot"
    sentence = "The cgsnapshot {id} could not be found"
    default_hint = "Look at: volmgr cgsnapshot list"


class BackupNotFound(NotFound):
    code = "volmgr.not_found.backup"
    sentence = "The backup {id} could not be found"
    default_hint = "Look at: volmgr backup list"


class TransferNotFound(NotFound):
    code = "volmgr.not_found.transfer"
    sentence = "There is no transfer {id}"


class ImageNotFound(NotFound):
    code = "volmgr.not_found.image"
    sentence = "There is no image {id} in the store {store}"
    default_hint = "Look at: volmgr image list"


class ImageUnacceptable(Invalid):
    """An image cannot be made a volume; ``details`` name it."""

    code = "volmgr.invalid.image"
    sentence = "The image {id} cannot be used: {reason}"


class ImageFormatMismatch(ImageUnacceptable):
    code = "volmgr.invalid.image.format"
    sentence = "The image {id} is said to be {told} and is {found}"
    default_hint = "Give it its true format, or upload it again"


class ImageHasBackingFile(ImageUnacceptable):
    code = "volmgr.invalid.image.backing_file"
    sentence = "The image {id} is based on another file, which could be any of this host"
    default_hint = "Make it whole first: qemu-img convert -O qcow2 IMAGE WHOLE"


class ImageHasDataFile(ImageUnacceptable):
    code = "volmgr.invalid.image.data_file"
    sentence = "The image {id} keeps its data in another file, which could be any of this host"
    default_hint = "Make it whole first: qemu-img convert -O qcow2 IMAGE WHOLE"


class ImageTooLarge(ImageUnacceptable):
    code = "volmgr.invalid.image.size"
    sentence = "The image {id} needs {needed_bytes} bytes, the volume has {volume_bytes}"
    default_hint = "Make the volume larger"


class ImageCorrupt(ImageUnacceptable):
    code = "volmgr.invalid.image.corrupt"
    sentence = "The image {id} is damaged: {reason}"
    default_hint = "Upload it again"


class AttachmentNotFound(NotFound):
    code = "volmgr.not_found.attachment"
    sentence = "The attachment {id} could not be found"


class OperationNotFound(NotFound):
    code = "volmgr.not_found.operation"
    sentence = "The operation {id} could not be found"


class ToolMissing(BackendDown):
    code = "volmgr.backend_down.tool"
    retryable = False
    sentence = "The program {tool} is not installed"


class SchemaMismatch(BackendDown):
    code = "volmgr.backend_down.schema"
    retryable = False
    sentence = "The database schema is {found}, this code needs {wanted}"
    default_hint = "Run: volmgr-manage db upgrade"


class KeyMismatch(BackendDown):
    code = "volmgr.backend_down.key"
    retryable = False
    sentence = "The key file does not belong to this database"


class ServiceUnavailable(BackendDown):
    """No volmgr-volume answers where the request was sent."""

    code = "volmgr.backend_down.service"
    sentence = "No volmgr-volume answers"


class Cancelled(VolmgrError):
    """The operation was cancelled and what it had begun is undone."""

    code = "volmgr.cancelled"
    sentence = "The operation was cancelled"


class LeaseLost(VolmgrError):
    """Another worker, or a later incarnation, has taken the operation over; this one must not write any more."""

    code = "volmgr.lease_lost"
    sentence = "The operation {id} is not this worker's any more"


class Waiting(LeaseLost):
    """The operation waits in the journal for another worker's part of it; this run of it is over."""

    code = "volmgr.lease_lost.waiting"
    sentence = "The operation {id} waits for another worker's part of it"


class UndoFailed(Inconsistent):
    """An operation failed and so did its undoing; ``details`` carry both causes."""

    code = "volmgr.inconsistent.undo"
    sentence = "The operation failed ({cause}) and undoing it failed too ({undo_cause})"


def _subclasses(cls: type[VolmgrError]) -> list[type[VolmgrError]]:
    return [cls, *(found for sub in cls.__subclasses__() for found in _subclasses(sub))]


def by_code(code: str) -> type[VolmgrError]:
    """Return the class with that code, or the nearest known remedy for a code of a newer version."""
    # The transport derives a class of its own from each error that it raises again; those have no code of their own.
    known = {cls.code: cls for cls in _subclasses(VolmgrError) if "code" in vars(cls)}
    while code not in known and "." in code:
        code = code.rsplit(".", 1)[0]
    return known.get(code, VolmgrError)


def to_primitive(error: BaseException) -> dict[str, Any]:
    """Return the JSON form of an error; one that is not ours keeps only its type and text, never its traceback."""
    if isinstance(error, VolmgrError):
        return {"code": error.code, "message": error.message, "hint": error.hint, "details": error.details}
    return {
        "code": VolmgrError.code,
        "message": f"{type(error).__name__}: {error}",
        "hint": "The log of volmgr-volume has the traceback",
        "details": {},
    }


def from_primitive(value: Mapping[str, Any]) -> VolmgrError:
    """Return the error that :func:`to_primitive` described."""
    return by_code(value["code"])(value["message"], hint=value.get("hint", ""), **dict(value.get("details") or {}))

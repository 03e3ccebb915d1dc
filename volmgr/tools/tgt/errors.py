# SPDX-License-Identifier: Apache-2.0
"""What tgtd answers when it refuses, one class per error number, so that callers decide by type and never by text.

The numbers are those of ``tgtadm`` 1.0.85; tgtd sends the number alone, the sentences are ours. This module knows the
numbers and nothing of targets, volumes or sockets.
"""

from __future__ import annotations

from typing import Any, ClassVar

from volmgr import exception


class TgtError(exception.VolmgrError):
    """Base of all that can go wrong between us and a tgtd.

    ``details`` name the request (``request``, for example ``lun new``), tgtd's socket and its error ``number``.
    """

    code = "volmgr.error.tgt"
    sentence = "tgtd refused {request} with error {number}"


class TgtDown(TgtError, exception.BackendDown):
    """No tgtd answers on the socket, or it hung up."""

    code = "volmgr.backend_down.tgt"
    sentence = "No tgtd answers on {socket}: {reason}"


class TgtProtocolError(TgtError, exception.BackendDown):
    """What answered does not speak the protocol of tgtd 1.0."""

    code = "volmgr.backend_down.tgt_protocol"
    retryable = False
    sentence = "The answer to {request} on {socket} is not tgtd's: {reason}"


class TgtTimeout(TgtError, exception.Timeout):
    """tgtd did not answer in time; it may still carry the request out."""

    code = "volmgr.timeout.tgt"
    sentence = "tgtd did not answer {request} within {seconds} seconds"


class TgtInvalid(TgtError, exception.Invalid):
    """A value cannot be told to tgtd; nothing was sent."""

    code = "volmgr.invalid.tgt"
    sentence = "{field} cannot be told to tgtd: {reason}"


class TgtNumberedError(TgtError):
    """An error that tgtd answered with; ``number`` is ``enum tgtadm_errno``."""

    code = "volmgr.error.tgt_refused"
    number: ClassVar[int] = 1


class TgtUnknownError(TgtNumberedError):
    """tgtd's general refusal; for a new LUN mostly a path that cannot be opened."""

    code = "volmgr.error.tgt_unknown"
    sentence = "tgtd refused {request} without a reason"
    default_hint = "Look at the end of tgtd's log"


class TgtNoMemory(TgtNumberedError, exception.BackendDown):
    code = "volmgr.backend_down.tgt_memory"
    number = 2
    sentence = "tgtd has no memory for {request}"


class TgtNoDriver(TgtNumberedError, exception.BackendDown):
    code = "volmgr.backend_down.tgt_driver"
    number = 3
    sentence = "tgtd has no iscsi driver, {request} is impossible"


class TgtNoTarget(TgtNumberedError, exception.NotFound):
    code = "volmgr.not_found.tgt_target"
    number = 4
    sentence = "tgtd has no such target: {request}"


class TgtNoLun(TgtNumberedError, exception.NotFound):
    code = "volmgr.not_found.tgt_lun"
    number = 5
    sentence = "tgtd has no such LUN: {request}"


class TgtNoSession(TgtNumberedError, exception.NotFound):
    code = "volmgr.not_found.tgt_session"
    number = 6
    sentence = "tgtd has no such session: {request}"


class TgtNoConnection(TgtNumberedError, exception.NotFound):
    code = "volmgr.not_found.tgt_connection"
    number = 7
    sentence = "tgtd has no such connection: {request}"


class TgtNoBinding(TgtNumberedError, exception.NotFound):
    code = "volmgr.not_found.tgt_binding"
    number = 8
    sentence = "tgtd has no such binding: {request}"


class TgtTargetExists(TgtNumberedError, exception.Conflict):
    """The target's number or its name is taken."""

    code = "volmgr.conflict.tgt_target"
    number = 9
    sentence = "tgtd has this target number or name already: {request}"


class TgtBindingExists(TgtNumberedError, exception.Conflict):
    code = "volmgr.conflict.tgt_binding"
    number = 10
    sentence = "tgtd has this binding already: {request}"


class TgtLunExists(TgtNumberedError, exception.Conflict):
    code = "volmgr.conflict.tgt_lun"
    number = 11
    sentence = "tgtd has this LUN already: {request}"


class TgtAclExists(TgtNumberedError, exception.Conflict):
    code = "volmgr.conflict.tgt_acl"
    number = 12
    sentence = "tgtd has this entry of the access list already: {request}"


class TgtNoAcl(TgtNumberedError, exception.NotFound):
    code = "volmgr.not_found.tgt_acl"
    number = 13
    sentence = "tgtd has no such entry of the access list: {request}"


class TgtAccountExists(TgtNumberedError, exception.Conflict):
    code = "volmgr.conflict.tgt_account"
    number = 14
    sentence = "tgtd has this account, or this binding of it, already: {request}"


class TgtNoAccount(TgtNumberedError, exception.NotFound):
    code = "volmgr.not_found.tgt_account"
    number = 15
    sentence = "tgtd has no such account: {request}"


class TgtTooManyAccounts(TgtNumberedError, exception.NoSpace):
    code = "volmgr.no_space.tgt_accounts"
    number = 16
    sentence = "tgtd has no room for another account: {request}"


class TgtRefusedValue(TgtNumberedError, exception.Invalid):
    code = "volmgr.invalid.tgt_value"
    number = 17
    sentence = "tgtd calls {request} invalid"


class TgtOutgoingAccountExists(TgtNumberedError, exception.Conflict):
    code = "volmgr.conflict.tgt_outgoing_account"
    number = 18
    sentence = "The target has an outgoing account already: {request}"


class TgtTargetActive(TgtNumberedError, exception.Busy):
    code = "volmgr.busy.tgt_target"
    number = 19
    sentence = "The target is in use: {request}"


class TgtLunActive(TgtNumberedError, exception.Busy):
    code = "volmgr.busy.tgt_lun"
    number = 20
    sentence = "The LUN is in use: {request}"


class TgtDriverActive(TgtNumberedError, exception.Busy):
    code = "volmgr.busy.tgt_driver"
    number = 21
    sentence = "tgtd's iscsi driver is in use: {request}"


class TgtUnsupported(TgtNumberedError, exception.Unsupported):
    code = "volmgr.unsupported.tgt"
    number = 22
    sentence = "This tgtd cannot do {request}"


class TgtUnknownParameter(TgtNumberedError, exception.Invalid):
    code = "volmgr.invalid.tgt_parameter"
    number = 23
    sentence = "tgtd does not know a parameter of {request}"


class TgtRemovalPrevented(TgtNumberedError, exception.Busy):
    code = "volmgr.busy.tgt_prevented"
    number = 24
    sentence = "An initiator prevents the removal of the medium: {request}"


_BY_NUMBER: dict[int, type[TgtNumberedError]] = {
    cls.number: cls for cls in TgtNumberedError.__subclasses__() if cls is not TgtUnknownError
}
_BY_NUMBER[1] = TgtUnknownError


def from_number(number: int, **details: Any) -> TgtNumberedError:
    """Return the error for a number that tgtd answered with; an unknown number gets the base class.

    :param details: ``request`` and ``socket``, for the sentence.
    """
    return _BY_NUMBER.get(number, TgtNumberedError)(number=number, **details)

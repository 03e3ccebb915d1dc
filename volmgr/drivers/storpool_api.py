# SPDX-License-Identifier: Apache-2.0
"""StorPool's API through os-brick's client, with an end to every call and an answer to "was it done?".

A call of the client (:mod:`volmgr.tools.storpool_client`) is made once; time-outs and malformed answers come out of it
as whatever Python raises. Only the caller can find out whether a call whose answer was lost has done its work, so a
call that changes something comes with a look-up that says so. It knows no volume.
"""

from __future__ import annotations

import http.client
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from os_brick.initiator import storpool_utils

from volmgr import exception
from volmgr.drivers import storpool_answers as answers
from volmgr.drivers.storpool_config import StorPoolConfig
from volmgr.tools.storpool_client import NO_ANSWER, Client

LOG = logging.getLogger(__name__)

#: Seconds before the second, third… try of a call.
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
Send = Callable[[Any], Any]
R = TypeVar("R")


class _Lost(Exception):
    """There is no answer, or the answer is "not now": whether it was done is not known."""


class _Refused(Exception):
    """StorPool's answer is no."""

    def __init__(self, name: str, descr: str, status: int) -> None:
        super().__init__(f"{name}: {descr}")
        self.name = name
        self.descr = descr
        self.status = status


class StorPoolAPI:
    """The API of one cluster.

    :param timeout: seconds for one try; no further try begins once twice as many have passed.
    :param pauses: seconds between the tries, so also how many there are.
    :param client: os-brick's client, by default one that goes where ``config`` says.
    :param sleep, monotonic: the clock; that of the machine by default.
    """

    def __init__(
        self,
        config: StorPoolConfig,
        timeout: float,
        pauses: Sequence[float] = PAUSES,
        *,
        client: storpool_utils.StorPoolAPI | None = None,
        sleep: Callable[[float], Any] | None = None,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self._client = client or Client(
            config.host, config.port, config.token.reveal(), timeout=timeout, transient_retries=0
        )
        # By name at each call: green threads replace them.
        self._sleep = sleep or (lambda seconds: time.sleep(seconds))
        self._monotonic = monotonic or (lambda: time.monotonic())
        self._where = f"{config.host}:{config.port}"
        self._timeout = timeout
        self._pauses = tuple(pauses)

    # --- looking ------------------------------------------------------------------------------------------------

    def disks(self) -> dict[str, dict[str, Any]]:
        """Return the disks by their ids."""
        return self._read("DisksList", lambda client: answers.disks(client.disks_list()))

    def templates(self) -> list[dict[str, Any]]:
        """Return the volume templates."""
        return self._read("VolumeTemplatesList", lambda client: answers.templates(client.volume_templates_list()))

    def volumes(self) -> list[dict[str, Any]]:
        """Return all volumes, ours and others'."""
        return self._read("VolumesList", lambda client: answers.stored(client.volumes_list()))

    def snapshots(self) -> list[dict[str, Any]]:
        """Return all snapshots, ours and others'; os-brick's client has no method for it."""
        path = "/ctrl/1.0/MultiCluster/SnapshotsList"
        return self._read("SnapshotsList", lambda client: answers.stored(client._api_call("GET", path)))

    def attachments(self) -> list[dict[str, Any]]:
        """Return who has what attached; os-brick's client has no method for it."""
        path = "/ctrl/1.0/MultiCluster/AttachmentsList"
        return self._read("AttachmentsList", lambda client: answers.attachments(client._api_call("GET", path)))

    def volume(self, name: str) -> dict[str, Any] | None:
        """Return a volume, None if there is none of that name."""
        return self._single(f"Volume {name}", lambda client: answers.stored(client.volume(name)))

    def snapshot(self, name: str) -> dict[str, Any] | None:
        """Return a snapshot, None if there is none of that name; os-brick's client has no method for it."""
        path = f"/ctrl/1.0/MultiCluster/Snapshot/{name}"
        return self._single(f"Snapshot {name}", lambda client: answers.stored(client._api_call("GET", path)))

    def _single(self, what: str, send: Callable[[Any], list[dict[str, Any]]]) -> dict[str, Any] | None:
        try:
            found = self._read(what, send)
        except exception.NotFound:
            return None
        return found[0] if found else None

    # --- changing -----------------------------------------------------------------------------------------------

    def change(self, what: str, send: Send, settled: Callable[[], bool] | None = None) -> None:
        """Do a call that changes something, once as far as anybody can see.

        :param what: for messages. :param send: makes the call with os-brick's client.
        :param settled: says whether what the call is to bring about is so, whoever did it; it is asked when an answer
            is lost and when the call is refused. Without it the call can be repeated: the second time changes nothing.
        :raises NotFound, Busy, NoSpace, Invalid: StorPool refuses. :raises BackendDown: it does not answer, or so that
            nobody understands it; the work may or may not have been done.
        """
        self._tries(what, send, settled or (lambda: False))

    def _read(self, what: str, send: Callable[[Any], R]) -> R:
        found: R = self._tries(what, send, None)
        return found

    def _tries(self, what: str, send: Send, settled: Callable[[], bool] | None) -> Any:
        # Time for a try that times out and a second one.
        deadline = self._monotonic() + 2 * self._timeout
        for pause in (*self._pauses, None):
            try:
                return self._once(send)
            except _Refused as refusal:
                if settled is not None and settled():
                    return None
                raise self._translated(what, refusal) from refusal
            except _Lost as lost:
                if settled is not None and settled():
                    LOG.info("%s had been done, only its answer was lost: %s", what, lost)
                    return None
                if pause is None or self._monotonic() >= deadline:
                    raise exception.BackendDown(
                        f"StorPool's API at {self._where} does not answer to {what}: {lost}",
                        hint="See: storpool service list; and SP_API_HTTP_HOST of storpool.conf",
                    ) from lost
                LOG.warning("%s is tried again in %g s: %s", what, pause, lost)
            self._sleep(pause)
        raise AssertionError("the last try has no pause")

    def _once(self, send: Send) -> Any:
        try:
            return send(self._client)
        except storpool_utils.StorPoolAPIError as error:
            if error.transient:
                raise _Lost(f"{error.name}: {error.desc}") from error
            raise _Refused(str(error.name), str(error.desc), int(error.status)) from error
        except NO_ANSWER as error:
            raise _Lost(f"{type(error).__name__}: {error}") from error

    def _translated(self, what: str, refusal: _Refused) -> exception.VolmgrError:
        message = f"StorPool refuses {what}: {refusal}"
        if refusal.status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            return exception.BackendDown(message, hint="Check SP_AUTH_TOKEN of storpool.conf")
        if refusal.name == "objectDoesNotExist":
            return exception.NotFound(message, resource="StorPool object", id=what)
        if refusal.name == "busy" or "is open at" in refusal.descr:
            return exception.Busy(message, resource="StorPool object", id=what)
        if refusal.name == "insufficientResources":
            return exception.NoSpace(message, hint="See: storpool disk list; and: storpool template status")
        if refusal.name == "invalidParam":
            return exception.Invalid(message, field="")
        return exception.BackendDown(message, hint="See: storpool service list")

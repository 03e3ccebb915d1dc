# SPDX-License-Identifier: Apache-2.0
"""The locks of verbs, by name. A lock is a claim in the journal: it survives a crash and names its holder.

``locked_volume_operation`` and ``locked_snapshot_operation`` give an operation the exclusive claim on the resource that
it is about, from its admission to its end. ``locked_detach_operation`` is for verbs that take access away: those go on
beside every operation and never wait for one, only for another of their kind on the same volume.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from volmgr.operations.base import MACHINES, Claim, Operation

C = TypeVar("C", bound=type[Operation[Any]])
F = TypeVar("F", bound=Callable[..., Any])
Event = str | Callable[[Any], str]

_ORDER = {resource: index for index, resource in enumerate(MACHINES)}


def locked_volume_operation(event: Event, *, childless: Callable[[Any], bool] | None = None) -> Callable[[C], C]:
    """Return a class decorator: the operation holds the volume of its argument ``volume_id``, and nobody else does.

    :param event: of the volume's states, or how it follows from the arguments.
    :param childless: says from the arguments whether the volume must have no snapshots.
    """
    return _locked("volume", event, childless)


def locked_snapshot_operation(event: Event) -> Callable[[C], C]:
    """Return a class decorator: the operation holds the snapshot of its argument ``snapshot_id``, and nobody else does.

    :param event: of the snapshot's states, or how it follows from the arguments.
    """
    return _locked("snapshot", event, None)


def _locked(resource: str, event: Event, childless: Callable[[Any], bool] | None) -> Callable[[C], C]:
    def decorate(cls: C) -> C:
        further = cls.claims

        def claims(self: Operation[Any]) -> Sequence[Claim]:
            own = Claim(
                resource,
                getattr(self.a, f"{resource}_id"),
                event if isinstance(event, str) else event(self.a),
                childless=childless is not None and childless(self.a),
            )
            # Rows are locked in one order, whatever the order of the decorators.
            return sorted((own, *further(self)), key=lambda claim: _ORDER[claim.resource])

        cls.claims = claims  # type: ignore[method-assign]
        return cls

    return decorate


def locked_detach_operation(method: F) -> F:
    """Let one call at a time take access to a volume away, from its first look at SQL to the end of the target's sync.

    So the answer to a repeat is given only once the access has gone, not while the first one is still at it. For
    methods with an argument ``volume_id`` of what has ``exports``.

    :raises Timeout: another one did not end.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def detach(self: Any, *args: Any, **kwargs: Any) -> Any:
        volume_id = signature.bind(self, *args, **kwargs).arguments["volume_id"]
        with self.exports.locks.hold(f"detach of {volume_id}", about=volume_id):
            return method(self, *args, **kwargs)

    return detach  # type: ignore[return-value]

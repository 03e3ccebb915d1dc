# SPDX-License-Identifier: Apache-2.0
"""What placement is decided from: pools, a request, and what was found of the one for the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from volmgr import names


@dataclass(frozen=True)
class Pool:
    """A pool of a backend as its worker has published it.

    :param host: ``host@backend#pool``. :param up: whether the worker has beaten lately. :param state: ``up`` or
        ``down``, what the worker said of its backend, with the ``reason``.
    :param capabilities: what the backend and, above it, the pool report; sizes in GiB.
    :param promised_gb: GiB placed there since the capabilities were measured.
    """

    host: str
    zone: str | None = None
    up: bool = True
    state: str = "up"
    reason: str | None = None
    disabled: bool = False
    disabled_reason: str | None = None
    frozen: bool = False
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    promised_gb: float = 0.0

    @property
    def service(self) -> str:
        """The worker, ``host@backend``."""
        return names.service_of(self.host)


@dataclass(frozen=True)
class Request:
    """A volume that wants a place.

    :param size: GiB. :param extra_specs: of its type. :param qos: the specs of its type's QoS.
    :param zone: the availability zone that was asked for. :param host: the worker or pool that was asked for.
    :param tried: the workers' pools where it has failed already.
    :param same: hosts of which it must be on one, None for any. :param different: hosts that it must not be on.
    :param patient: a worker whose backend may be down, because the request is to wait for it.
    :param volume: what expressions know as ``volume.…`` beside the size.
    """

    size: int
    extra_specs: Mapping[str, str] = field(default_factory=dict)
    qos: Mapping[str, Any] = field(default_factory=dict)
    zone: str | None = None
    host: str | None = None
    tried: frozenset[str] = frozenset()
    same: frozenset[str] | None = None
    different: frozenset[str] = frozenset()
    patient: str | None = None
    volume: Mapping[str, Any] = field(default_factory=dict)


class Verdict(NamedTuple):
    """What a check says of a pool.

    :param why: what is in the way, empty where it passed. :param numbers: what was compared.
    """

    check: str
    passed: bool
    why: str
    numbers: Mapping[str, Any]


def pools_of(service: Mapping[str, Any]) -> list[Pool]:
    """Return the pools of a worker, given its row as clients read it; without published pools it is one by itself."""
    stats = dict(service.get("capabilities") or {})
    reported = stats.pop("pools", None) or [stats]
    found = []
    for pool in reported:
        name = pool.get("pool_name") or stats.get("volume_backend_name")
        found.append(
            Pool(
                host=f"{service['host']}#{name}" if name else service["host"],
                zone=service.get("availability_zone"),
                up=bool(service.get("up", True)),
                state=service.get("state", "up"),
                reason=service.get("reason"),
                disabled=bool(service.get("disabled")),
                disabled_reason=service.get("disabled_reason"),
                frozen=bool(service.get("frozen")),
                capabilities={**stats, **pool},
            )
        )
    return found

# SPDX-License-Identifier: Apache-2.0
"""What a pool must be for a volume to be placed there, one function for each, in the order in which they are asked."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from volmgr import names
from volmgr.scheduler import expression, specs
from volmgr.scheduler.model import Pool, Request, Verdict

Check = Callable[[Request, Pool], Verdict]
#: the extra spec that says how a volume's space is taken.
PROVISIONING = "provisioning:type"
#: the capability of a pool that takes only volumes whose type has certain extra specs: {extra spec: its value}.
RESERVED = "reserved_for"
_NOTHING: Mapping[str, Any] = {}


@functools.cache
def _plainly(check: str) -> Verdict:
    return Verdict(check, True, "", _NOTHING)


def _passed(check: str, numbers: Mapping[str, Any] | None = None) -> Verdict:
    return _plainly(check) if numbers is None else Verdict(check, True, "", numbers)


def _failed(check: str, why: str, numbers: Mapping[str, Any] = _NOTHING) -> Verdict:
    return Verdict(check, False, why, numbers)


def service(request: Request, pool: Pool) -> Verdict:
    """The worker lives, its backend is up, takes volumes and is not frozen."""
    if pool.disabled:
        return _failed("service", f"disabled: {pool.disabled_reason or 'no reason given'}")
    if pool.frozen:
        return _failed("service", "frozen")
    if request.patient is None or request.patient != pool.service:
        if not pool.up:
            return _failed("service", "no sign of life of its worker")
        if pool.state != "up":
            return _failed("service", f"{pool.state}: {pool.reason or 'no reason given'}")
    return _passed("service")


def tried(request: Request, pool: Pool) -> Verdict:
    """The volume has not failed there already."""
    if pool.host in request.tried:
        return _failed("tried", "it failed there already")
    return _passed("tried")


def _within(host: str, places: frozenset[str]) -> bool:
    """Return whether a pool is one of some places, which are pools or whole workers."""
    return host in places or names.service_of(host) in places


def host(request: Request, pool: Pool) -> Verdict:
    """It is the worker or pool that was asked for, if one was."""
    if request.host is not None and request.host not in (pool.host, pool.service):
        return _failed("host", f"{request.host} was asked for")
    return _passed("host")


def zone(request: Request, pool: Pool) -> Verdict:
    """It is in the availability zone that was asked for, if one was."""
    if request.zone is not None and request.zone != pool.zone:
        return _failed("zone", f"it is in {pool.zone}, {request.zone} was asked for")
    return _passed("zone")


def affinity(request: Request, pool: Pool) -> Verdict:
    """It is where the volumes of ``same_host`` are, and not where those of ``different_host`` are."""
    if request.same is not None and not _within(pool.host, request.same):
        return _failed("affinity", f"same_host wants {', '.join(sorted(request.same)) or 'a place that there is not'}")
    if request.different and _within(pool.host, request.different):
        return _failed("affinity", "different_host wants another place")
    return _passed("affinity")


def capacity(request: Request, pool: Pool) -> Verdict:
    """There is room.

    ``reserved_percentage`` of the whole stays free. Thin pools may promise what is left of it
    ``max_over_subscription_ratio`` times, and the volume must fit into what is free that many times; thick ones must
    have the whole of it free. The extra spec ``provisioning:type`` says which, ``thin`` or ``thick``; without it a pool
    that can be thin is. Pools that say ``infinite`` or ``unknown`` have room.
    """
    found = pool.capabilities
    wanted = request.extra_specs.get(PROVISIONING)
    if wanted in ("thin", "thick") and not found.get(f"{wanted}_provisioning_support"):
        return _failed("capacity", f"the type wants {wanted} volumes, it makes none")
    thin = wanted == "thin" or (wanted != "thick" and bool(found.get("thin_provisioning_support")))
    free, total = found.get("free_capacity_gb"), found.get("total_capacity_gb")
    if not isinstance(free, int | float) or not isinstance(total, int | float):
        if free in ("infinite", "unknown") or total in ("infinite", "unknown"):
            return _passed("capacity", {"free_gb": free, "room_gb": float("inf")})
        if request.patient == pool.service and pool.state != "up":
            return _passed("capacity", {"free_gb": None, "room_gb": float("inf")})  # it will say so itself
        return _failed("capacity", "it has reported no capacity", {"free_gb": free, "total_gb": total})
    reserved = total * found.get("reserved_percentage", 0) / 100
    usable = free - reserved
    numbers = {"wanted_gb": request.size, "free_gb": free, "total_gb": total, "reserved_gb": reserved}
    if thin:
        ratio = found.get("max_over_subscription_ratio", 1.0)
        provisioned = found.get("provisioned_capacity_gb", total - free) + pool.promised_gb
        room = min((total - reserved) * ratio - provisioned, usable * ratio)
        numbers |= {"provisioned_gb": provisioned, "ratio": ratio, "room_gb": room}
    else:
        room = usable - pool.promised_gb
        numbers |= {"promised_gb": pool.promised_gb, "room_gb": room}
    if request.size > room:
        return _failed("capacity", f"there is room for {max(room, 0):.1f} GiB, {request.size} are wanted", numbers)
    return _passed("capacity", numbers)


def capabilities(request: Request, pool: Pool) -> Verdict:
    """It has what the extra specs of the volume's type demand, and is not kept for volumes of other types."""
    for key, kept in (pool.capabilities.get(RESERVED) or _NOTHING).items():
        if (named := request.extra_specs.get(key)) != kept:
            return _failed("capabilities", f"it is kept for types whose {key} is {kept!r}", {key: named})
    if not request.extra_specs:
        return _passed("capabilities")
    missing = specs.unmet(request.extra_specs, pool.capabilities)
    if missing is None:
        return _passed("capabilities")
    key, wanted, there = missing
    shown = "nothing" if there is None else repr(there)
    return _failed("capabilities", f"{key} must be {wanted!r}, it reports {shown}", {key: there})


def scopes_of(request: Request, pool: Pool) -> expression.Scope:
    """Return what expressions know of a case."""
    stats = pool.capabilities
    return {
        "stats": stats,
        "capabilities": stats,
        "extra": request.extra_specs,
        "qos": request.qos,
        "volume": request.volume,
    }


def filter_function(request: Request, pool: Pool) -> Verdict:
    """Its own ``filter_function`` lets the volume in; a pool without one lets every volume in."""
    text = pool.capabilities.get("filter_function")
    if not text:
        return _passed("filter_function")
    try:
        value = expression.evaluate(text, scopes_of(request, pool))
    except expression.ExpressionError as error:
        return _failed("filter_function", error.message, {"filter_function": text})
    numbers = {"filter_function": text, "value": value}
    return _passed("filter_function", numbers) if value else _failed("filter_function", f"{text} says no", numbers)


CHECKS: tuple[Check, ...] = (service, tried, host, zone, affinity, capacity, capabilities, filter_function)

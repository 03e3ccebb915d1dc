# SPDX-License-Identifier: Apache-2.0
"""Checks of single values, done once, at the endpoint.

Each check takes the field's name and the value, returns the value in its one form, or raises
:class:`~volmgr.exception.Invalid` naming the field. This module knows no verb.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from volmgr import exception, names

Check = Callable[[str, Any], Any]

MAX_NAME = 255
MAX_DESCRIPTION = 4096
MAX_METADATA_KEYS = 128
MAX_SIZE_GIB = 2**31 - 1
MAX_LIMIT = 1000

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029\ud800-\udfff]")
_INITIATOR = re.compile(
    r"\A(iqn\.[0-9]{4}-[0-9]{2}\.[A-Za-z0-9.:_-]{1,210}|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16,32})\Z"
)
_HEX = re.compile(r"\A[0-9A-Fa-f:]{12,47}\Z")


def invalid(field: str, reason: str, value: Any = None) -> exception.Invalid:
    """Return the error for one field; a long or odd value is shown shortened."""
    shown = "" if value is None else f", got {shorten(value)}"
    return exception.Invalid(f"{field} {reason}{shown}", field=field)


def shorten(value: Any) -> str:
    """Return a printable form of a foreign value, of at most 60 characters."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def optional(check: Check) -> Check:
    """Return a check that lets None pass."""

    def checked(field: str, value: Any) -> Any:
        return None if value is None else check(field, value)

    return checked


def uuid(field: str, value: Any) -> str:
    """A UUID; upper case and missing hyphens are not accepted, as ids are compared as text."""
    if not names.is_uuid(value):
        raise invalid(field, "must be a UUID in lower case with hyphens", value)
    return str(value)


def uuids(field: str, value: Any) -> list[str]:
    """A list of at most a thousand UUIDs."""
    if not isinstance(value, list | tuple) or len(value) > MAX_LIMIT:
        raise invalid(field, f"must be a list of at most {MAX_LIMIT} UUIDs", value)
    return [uuid(field, item) for item in value]


def text(maximum: int = MAX_NAME, minimum: int = 0) -> Check:
    """Return a check for text without control characters, of ``minimum`` to ``maximum`` characters."""

    def checked(field: str, value: Any) -> str:
        if not isinstance(value, str):
            raise invalid(field, "must be text", value)
        if not minimum <= len(value) <= maximum:
            raise invalid(field, f"must have {minimum} to {maximum} characters, it has {len(value)}")
        if _CONTROL.search(value):
            raise invalid(field, "must not contain control characters", value)
        return value

    return checked


name = text()
description = text(MAX_DESCRIPTION)


def boolean(field: str, value: Any) -> bool:
    """True or False; no number and no word."""
    if not isinstance(value, bool):
        raise invalid(field, "must be true or false", value)
    return value


def integer(minimum: int, maximum: int) -> Check:
    """Return a check for a whole number in a closed range."""

    def checked(field: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid(field, "must be a whole number", value)
        if not minimum <= value <= maximum:
            raise invalid(field, f"must be from {minimum} to {maximum}", value)
        return value

    return checked


size = integer(1, MAX_SIZE_GIB)


def seconds(field: str, value: Any) -> float:
    """A duration of 0 to one day, in seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(field, "must be a number of seconds", value)
    if not 0 <= value <= 86400:  # nor is a NaN
        raise invalid(field, "must be from 0 to 86400 seconds", value)
    return float(value)


def one_of(*allowed: str) -> Check:
    """Return a check for one word of a few."""

    def checked(field: str, value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise invalid(field, f"must be one of {', '.join(allowed)}", value)
        return value

    return checked


def metadata(field: str, value: Any) -> dict[str, str]:
    """A mapping of names to texts, both of at most 255 characters."""
    if not isinstance(value, Mapping) or len(value) > MAX_METADATA_KEYS:
        raise invalid(field, f"must be a mapping of at most {MAX_METADATA_KEYS} texts", value)
    key_check = text(MAX_NAME, 1)
    return {key_check(f"{field} key", key): name(f"{field}[{shorten(key)}]", item) for key, item in value.items()}


def specs(field: str, value: Any) -> dict[str, str | None]:
    """Changes of specs: texts by name; a number or a truth is taken as its text, None means that the spec goes."""
    if not isinstance(value, Mapping) or len(value) > MAX_METADATA_KEYS:
        raise invalid(field, f"must be a mapping of at most {MAX_METADATA_KEYS} texts", value)
    key_check, made = text(MAX_NAME, 1), {}
    for key, item in value.items():
        plain = str(item) if isinstance(item, bool | int) else item
        made[key_check(f"{field} key", key)] = optional(name)(f"{field}[{shorten(key)}]", plain)
    return made


def counts(minimum: int, *allowed: str, unset: bool = False) -> Check:
    """Return a check for a mapping of known names to whole numbers, with ``unset`` also to None."""
    number = integer(minimum, 2**53)

    def checked(field: str, value: Any) -> dict[str, int | None]:
        if not isinstance(value, Mapping):
            raise invalid(field, "must be a mapping", value)
        for key in value:
            if key not in allowed:
                raise invalid(field, f"knows only {', '.join(allowed)}", key)
        check = optional(number) if unset else number
        return {key: check(f"{field}.{key}", item) for key, item in value.items()}

    return checked


def host(field: str, value: Any) -> str:
    """A worker or pool, ``host@backend#pool``."""
    try:
        names.parse_host(value)
    except ValueError:
        raise invalid(field, "must have the form host@backend#pool", value) from None
    return str(value)


def _wwns(field: str, value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or len(value) > 64:
        raise invalid(field, "must be a list of at most 64 names", value)
    for item in value:
        if not isinstance(item, str) or not _HEX.match(item):
            raise invalid(field, "must be a list of hexadecimal names", item)
    return [item.lower().replace(":", "") for item in value]


_CONNECTOR: dict[str, Check] = {
    "initiator": lambda field, value: _initiator(field, value),
    "ip": optional(text(64)),
    "host": optional(text(255)),
    "wwpns": optional(_wwns),
    "wwnns": optional(_wwns),
    "aoe_macs": optional(_wwns),
    "multipath": optional(boolean),
    "enforce_multipath": optional(boolean),
    "os_type": optional(text(64)),
    "platform": optional(text(64)),
    "nqn": optional(text(255)),
    "uuid": optional(text(64)),
    "mode": optional(one_of("rw", "ro")),
    "mountpoint": optional(text(255)),
    "instance": optional(text(64)),
}


def _initiator(field: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _INITIATOR.match(value):
        raise invalid(field, "must be an iSCSI name (iqn., eui. or naa.)", value)
    return value


def wwpn(field: str, value: Any) -> str:
    """Return the name of one Fibre Channel port, as 16 digits."""
    (name,) = _wwns(field, [value])
    if len(name) != 16:
        raise invalid(field, "must have 16 hexadecimal digits", value)
    return name


def connector(field: str, value: Any) -> dict[str, Any]:
    """What os-brick's ``get_connector_properties`` returns; keys that nobody here reads are let go."""
    if not isinstance(value, Mapping) or len(value) > 64:
        raise invalid(field, "must be a mapping as os-brick makes it", value)
    return {key: check(f"{field}.{key}", value[key]) for key, check in _CONNECTOR.items() if key in value}


def filters(allowed: Mapping[str, Check]) -> Check:
    """Return a check for the filters of a list verb: known columns with values of their kind."""

    def checked(field: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise invalid(field, "must be a mapping", value)
        for key in value:
            if key not in allowed:
                raise invalid(field, f"knows only {', '.join(sorted(allowed))}", key)
        return {key: allowed[key](f"{field}.{key}", item) for key, item in value.items()}

    return checked


def sort_list(*allowed: str) -> Check:
    """Return a check for ``sort_keys`` or ``sort_dirs``."""

    def checked(field: str, value: Any) -> list[str]:
        if not isinstance(value, list | tuple) or len(value) > 8:
            raise invalid(field, "must be a short list", value)
        return [one_of(*allowed)(field, item) for item in value]

    return checked

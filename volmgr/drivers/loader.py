# SPDX-License-Identifier: Apache-2.0
"""From the names in the configuration to classes of drivers and targets, imported only when they are named.

A name is an entry point (of volmgr or of another distribution) or the dotted path of a class. It knows no driver.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from typing import TYPE_CHECKING, Any

from stevedore import driver as stevedore_driver
from stevedore import exception as stevedore_exception

from volmgr import exception
from volmgr.drivers.interfaces import Interface, ProxyVD
from volmgr.targets.base import Target, TargetConfig
from volmgr.types import Portal

if TYPE_CHECKING:
    from volmgr.conf.backend import BackendConfiguration
    from volmgr.conf.loading import Configuration

DRIVERS = "volmgr.drivers"
TARGETS = "volmgr.targets"
#: By option ``target_protocol``: what connection_info calls it, and which helper is LIO's.
PROTOCOLS = {"iscsi": "iscsi", "iser": "iser", "fc": "fibre_channel", "aoe": "aoe"}
LIO_HELPERS = {"iser": "iseradm", "fc": "fcadm"}
#: options of a backend that are one kind of target's own.
TARGET_OPTIONS = (
    "tgt_socket",
    "tgt_threads",
    "aoe_eth_dev",
    "fc_fabric",
    "fc_target_wwpns",
    "fc_initiator_wwpns",
    "fc_zone_manager",
)


def load(name: str) -> type[Any]:
    """Return the class of a driver.

    :param name: an entry point of ``volmgr.drivers`` (``file``, ``lvm``…) or a dotted path (``package.module.Class``).
    :raises InvalidConfiguration: there is no such driver; the right names are listed.
    """
    return _load(DRIVERS, name, (Interface, ProxyVD), "driver")


def load_target(name: str, protocol: str | None = None) -> type[Target]:
    """Return the class of a target, by an entry point of ``volmgr.targets`` or a dotted path.

    :param protocol: option ``target_protocol``; ``lioadm`` serves three of them, each by a class of its own.
    :raises InvalidConfiguration: there is no such target, or it does not speak that protocol; the hint says more.
    """
    if name == "lioadm":
        name = LIO_HELPERS.get(protocol or "iscsi", name)
    found = _load(TARGETS, name, (Target,), "target")
    spoken = {value: option for option, value in PROTOCOLS.items()}.get(found.protocol)
    if protocol and name != "fake" and spoken not in (None, protocol):
        raise exception.InvalidConfiguration(
            reason=f"target_helper {name} speaks {spoken}, target_protocol is {protocol}",
            hint=f"Set target_protocol = {spoken}, or another target_helper",
        )
    return found


def make_target(conf: Configuration, backend: BackendConfiguration) -> Target | None:
    """Return the target of a backend, not started yet; None where its driver has no use for one, or none is set.

    :raises InvalidConfiguration: see :func:`load_target`.
    """
    # A proxy says nothing of it; what stands behind it exports through a target, as most do.
    if not backend.target_helper or not getattr(load(backend.volume_driver), "needs_target", True):
        return None
    protocol = backend.target_protocol
    cls = load_target(backend.iser_helper if protocol == "iser" else backend.target_helper, protocol)
    addresses, port = [backend.target_ip_address], backend.target_port
    if cls.protocol == "iser":
        addresses, port = [backend.iser_ip_address], backend.iser_port
    addresses += backend.target_secondary_ip_addresses or ()
    config = TargetConfig(
        prefix=target_prefix(backend, cls.protocol),
        portals=tuple(Portal(str(ip), int(port)) for ip in addresses),
        state_path=f"{conf.state_path}/{backend.config_group}/target",
        timeout=float(conf.command_timeout),
        options={name: backend.safe_get(name) for name in TARGET_OPTIONS if backend.safe_get(name)},
    )
    return cls(config)


def target_prefix(backend: BackendConfiguration, protocol: str) -> str:
    """Return what the names of a backend's targets begin with."""
    return str(backend.iser_target_prefix if protocol == "iser" else backend.target_prefix)


def available(namespace: str) -> list[str]:
    """Return the names of the entry points of a namespace, sorted; nothing is imported."""
    return sorted({entry.name for entry in importlib.metadata.entry_points(group=namespace)})


def _load(namespace: str, name: str, bases: tuple[type, ...], noun: str) -> type[Any]:
    try:
        found = _from_path(name) if "." in name else _from_entry_point(namespace, name)
    except (ImportError, AttributeError, stevedore_exception.NoMatches) as error:
        raise _wrong(namespace, name, noun, str(error)) from error
    if not inspect.isclass(found) or not issubclass(found, bases):
        raise _wrong(namespace, name, noun, f"it is no class of a {noun}")
    return found


def _from_path(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def _from_entry_point(namespace: str, name: str) -> Any:
    def fail(manager: Any, entry_point: Any, error: BaseException) -> None:
        raise ImportError(f"{entry_point.value}: {error}") from error

    manager = stevedore_driver.DriverManager(namespace, name, invoke_on_load=False, on_load_failure_callback=fail)
    return manager.driver


def _wrong(namespace: str, name: str, noun: str, why: str) -> exception.InvalidConfiguration:
    known = ", ".join(available(namespace)) or "none is installed"
    return exception.InvalidConfiguration(
        reason=f"the {noun} {name!r} cannot be loaded: {why}",
        hint=f"Use one of: {known}; or the dotted path of a class",
        name=name,
    )

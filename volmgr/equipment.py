# SPDX-License-Identifier: Apache-2.0
"""What a backend's options ask for: its target, its driver, its settings. Nothing is started here."""

from __future__ import annotations

from typing import Any

from volmgr import exception, types
from volmgr.db.admission import Settings
from volmgr.db.image_cache import CacheSettings
from volmgr.db.shelves import Shelves
from volmgr.targets.base import Target, TargetConfig

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


def load_target(conf: Any, options: Any) -> Target | None:
    """Return the target that a backend's options name, or None where its driver exports by itself.

    :raises InvalidConfiguration: there is no such target, or no such driver.
    """
    from volmgr.drivers import loader

    if not options.target_helper or not _needs_target(loader.load(options.volume_driver)):
        return None
    protocol = options.target_protocol
    helper = options.iser_helper if protocol == "iser" else options.target_helper
    cls = loader.load_target(helper, protocol)
    addresses, port = [options.target_ip_address], options.target_port
    if cls.protocol == "iser":
        addresses, port = [options.iser_ip_address], options.iser_port
    addresses += options.target_secondary_ip_addresses or ()
    config = TargetConfig(
        prefix=_target_prefix(options, cls.protocol),
        portals=tuple(types.Portal(str(ip), int(port)) for ip in addresses),
        state_path=f"{conf.state_path}/{options.config_group}/target",
        timeout=float(conf.command_timeout),
        options={name: options.safe_get(name) for name in TARGET_OPTIONS if options.safe_get(name)},
    )
    return cls(config)


def load_driver(options: Any, **made_with: Any) -> Any:
    """Return the driver that a backend's options name.

    :param made_with: what the worker gives it beside its options.
    :raises InvalidConfiguration: there is no such driver.
    """
    from volmgr.drivers import loader

    return loader.load(options.volume_driver)(configuration=options, **made_with)


def settings(conf: Any, options: Any, host: str, driver: Any, target: Target | None) -> Settings:
    """Return what admission needs to know of a backend.

    :param host: the worker's name.
    :raises InvalidConfiguration: two options do not go together.
    """
    return Settings(
        host=host,
        pool=driver.backend_name,
        zone=options.backend_availability_zone or conf.storage_availability_zone,
        max_volume_size=conf.max_volume_size,
        quota={
            "volumes": conf.quota.volumes,
            "snapshots": conf.quota.snapshots,
            "gigabytes": conf.quota.gigabytes,
            "backups": conf.quota.backups,
            "backup_gigabytes": conf.quota.backup_gigabytes,
        },
        trash_retention=options.trash_retention,
        target_prefix=_target_prefix(options, target.protocol if target is not None else ""),
        auth=bool(options.use_chap_auth),
        chap=_chap(options.chap_username, options.chap_password),
        grows_in_use=target is None or target.grows_in_use,
        placement_attempts=conf.placement_attempts,
        image_cache=_image_cache(conf, options),
        shelves=_shelves(options) if target is not None and target.protocol == "aoe" else None,
    )


def _target_prefix(options: Any, protocol: str) -> str:
    return str(options.iser_target_prefix if protocol == "iser" else options.target_prefix)


def _chap(username: str | None, password: str | None) -> types.Chap | None:
    """Return the configured account, if there is one.

    :raises InvalidConfiguration: only half of it is configured.
    """
    if bool(username) != bool(password):
        raise exception.InvalidConfiguration(reason="chap_username and chap_password belong together")
    return types.Chap(username, types.Secret(password)) if username and password else None


def _image_cache(conf: Any, options: Any) -> CacheSettings | None:
    if not options.image_volume_cache_enabled:
        return None
    gigabytes, count = options.image_volume_cache_max_size_gb, options.image_volume_cache_max_count
    return CacheSettings(conf.images.cache_project, gigabytes, count)


def _shelves(options: Any) -> Shelves:
    return Shelves(options.aoe_first_shelf_id, options.aoe_last_shelf_id, options.aoe_slots_per_shelf)


def _needs_target(driver: type[Any]) -> bool:
    """Return whether a class of drivers, which may be a proxy's, exports through a target."""
    return bool(getattr(driver, "needs_target", True))

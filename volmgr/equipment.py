# SPDX-License-Identifier: Apache-2.0
"""What a backend's options ask for: its driver and its settings. Nothing is started here."""

from __future__ import annotations

from typing import Any

from volmgr import exception, types
from volmgr.db.admission import Settings
from volmgr.db.image_cache import CacheSettings
from volmgr.db.shelves import Shelves
from volmgr.drivers import loader
from volmgr.initiator.writing import Initiators
from volmgr.targets.base import Target


def load_driver(options: Any, **made_with: Any) -> Any:
    """Return the driver that a backend's options name.

    :param made_with: what the worker gives it beside its options.
    :raises InvalidConfiguration: there is no such driver.
    """
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
        target_prefix=loader.target_prefix(options, target.protocol if target is not None else ""),
        auth=bool(options.use_chap_auth),
        chap=_chap(options.chap_username, options.chap_password),
        grows_in_use=target is None or target.grows_in_use,
        placement_attempts=conf.placement_attempts,
        image_cache=_image_cache(conf, options),
        shelves=_shelves(options) if target is not None and target.protocol == "aoe" else None,
    )


def initiators(conf: Any, options: Any, lock_fd: int | None) -> Initiators:
    """Return how this host attaches what other hosts export.

    :param lock_fd: a descriptor that every program which works for it holds open.
    """
    return Initiators(
        options.volume_copy_initiator, host=conf.host, ip=str(conf.my_ip), state_path=conf.state_path,
        prefix=options.target_prefix, lock_fd=lock_fd,
    )


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

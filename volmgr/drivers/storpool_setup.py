# SPDX-License-Identifier: Apache-2.0
"""The ground of the StorPool driver: its configuration, names, templates, statistics and checks. Knows no verb."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from oslo_config import cfg

from volmgr import exception, names
from volmgr.conf import volume as options
from volmgr.drivers import storpool_config
from volmgr.drivers.driver import VolumeDriver
from volmgr.drivers.storpool_answers import PRESENT
from volmgr.drivers.storpool_api import StorPoolAPI
from volmgr.drivers.storpool_config import StorPoolConfig
from volmgr.types import GiB, MiB, Snapshot, Volume, VolumeType

#: Extra spec that names the template of a type's volumes.
TEMPLATE_SPEC = "storpool_template"
#: Bytes of an allocation group, and the part of it that is left for data: StorPool keeps 128 bytes beside every 4096.
GROUP_BYTES, DATA_PART = 512 * MiB, 4096 / (4096 + 128)
DEFAULT_TIMEOUT = 60.0


class StorPoolSetup(VolumeDriver, abstract=True):
    """What every part of the StorPool driver stands on.

    :param api: the API to use, made from ``storpool.conf`` without it.
    """

    #: It answers connections itself: StorPool's client on each host is the initiator.
    needs_target: ClassVar[bool] = False

    def __init__(self, *args: Any, api: StorPoolAPI | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._given_api = api
        self._api = api
        self._config: StorPoolConfig | None = None
        self._stats: dict[str, Any] = {}

    @classmethod
    def get_driver_options(cls) -> list[cfg.Opt]:
        return list(options.STORPOOL_OPTIONS)

    # --- setting up ---------------------------------------------------------------------------------------------

    def do_setup(self, context: Any) -> None:
        """Read ``storpool.conf``; nothing is asked of StorPool yet.

        :raises InvalidConfiguration: it is not there, or wrong.
        """
        self._config = self._read_config()
        self._api = self._given_api or StorPoolAPI(self._config, self._timeout)

    def _read_config(self) -> StorPoolConfig:
        return storpool_config.read(Path(self.configuration.storpool_config_file))

    @property
    def _timeout(self) -> float:
        return float(self.configuration.safe_get("command_timeout") or DEFAULT_TIMEOUT)

    @property
    def config(self) -> StorPoolConfig:
        """What ``storpool.conf`` said at the start."""
        if self._config is None:
            self.do_setup(None)
        assert self._config is not None
        return self._config

    @property
    def api(self) -> StorPoolAPI:
        """StorPool's API."""
        if self._api is None:
            self.do_setup(None)
        assert self._api is not None
        return self._api

    def check_for_setup_error(self) -> None:
        """Check that the API answers, takes our token, and has the configured template.

        :raises BackendDown: it does not. :raises InvalidConfiguration: there is no such template.
        """
        known = [template["name"] for template in self.api.templates()]
        wanted = self.configuration.storpool_template
        if wanted and wanted not in known:
            raise exception.InvalidConfiguration(
                reason=f"storpool_template is {wanted}, and StorPool has the templates {', '.join(known) or 'none'}",
                hint="See: storpool template list",
            )

    # --- names and templates ------------------------------------------------------------------------------------

    def storpool_name(self, resource: Volume | Snapshot) -> str:
        """Return the name in StorPool of a resource's object."""
        kind = "snapshot" if isinstance(resource, Snapshot) else "volume"
        return names.storpool_name(self.config.prefix, kind, resource.name_id)

    def _name(self, kind: str, object_id: str) -> str:
        return names.storpool_name(self.config.prefix, kind, object_id)

    def _template_of(self, volume_type: VolumeType | Mapping[str, Any] | None) -> str | None:
        """Return the template of a type: its extra spec, else the option, else None."""
        specs = (volume_type.get("extra_specs") if volume_type is not None else None) or {}
        return specs.get(TEMPLATE_SPEC) or self.configuration.storpool_template or None

    def _policy(self, template: str | None) -> dict[str, Any]:
        """Return where a volume's settings come from, as the API wants it."""
        if template is not None:
            return {"template": template}
        return {"replication": int(self.configuration.storpool_replication)}

    # --- statistics ---------------------------------------------------------------------------------------------

    def get_pool(self, volume: Volume) -> str | None:
        """Return ``template_<name>``, or ``default`` for a volume without a template."""
        return pool_name(self._template_of(volume.volume_type))

    @property
    def location_info(self) -> str:
        """What two backends on one cluster have in common; the capability that a move goes by."""
        return f"StorPoolDriver:{self.config.cluster}:{self.config.prefix}"

    def get_volume_stats(self, refresh: bool = False) -> dict[str, Any]:
        if refresh or not self._stats:
            self._stats = self._measure()
        return self._stats

    def _measure(self) -> dict[str, Any]:
        templates = {str(item["name"]): item for item in self.api.templates()}
        total, free = _capacity(self.api.disks())
        provisioned: dict[str, int] = {}
        for volume in self.api.volumes():
            pool = pool_name(volume.get("templateName") or None)
            provisioned[pool] = provisioned.get(pool, 0) + int(volume["size"])
        pools = [self._pool(None, total, free, provisioned, None)]
        for name, template in templates.items():
            pools.append(self._pool(name, total, free, provisioned, template["replication"]))
        return {
            "volume_backend_name": self.backend_name,
            "vendor_name": self.vendor_name,
            "driver_version": self.VERSION,
            "storage_protocol": self.storage_protocol,
            "location_info": self.location_info,
            "clone_across_pools": True,
            # Both names are in use for it: that a copy may leave out what was never written.
            "sparse_volume_copy": True,
            "sparse_copy_volume": True,
            "consistencygroup_support": True,
            "pools": pools,
        }

    def _pool(
        self, template: str | None, total: int, free: int, provisioned: Mapping[str, int], replication: Any
    ) -> dict[str, Any]:
        """Return a pool; all of them share the disks, each counts them by its own number of copies."""
        copies = replication if isinstance(replication, int) else int(self.configuration.storpool_replication)
        name = pool_name(template)
        pool = {
            "pool_name": name,
            "total_capacity_gb": total / copies / GiB,
            "free_capacity_gb": free / copies / GiB,
            "provisioned_capacity_gb": provisioned.get(name, 0) / GiB,
            "allocated_capacity_gb": (total - free) / copies / GiB,
            "reserved_percentage": self.configuration.reserved_percentage,
            "max_over_subscription_ratio": self.configuration.max_over_subscription_ratio,
            "thin_provisioning_support": True,
            "thick_provisioning_support": False,
            "multiattach": True,
            "QoS_support": False,
            "location_info": self.location_info,
            "filter_function": self.get_filter_function(),
            "goodness_function": self.get_goodness_function(),
        }
        if template != (self.configuration.storpool_template or None):
            # A volume whose type names no template has the option's: it is in no other pool.
            pool["reserved_for"] = {TEMPLATE_SPEC: template or ""}
        return {**pool, **({TEMPLATE_SPEC: template} if template else {}), **self.configuration.extra_capabilities}


def pool_name(template: str | None) -> str:
    """Return the name of the pool that volumes of a template are in."""
    return f"template_{template}" if template else "default"


def _capacity(disks: Mapping[str, Mapping[str, Any]]) -> tuple[int, int]:
    """Return (all, free) bytes for data on the disks that work, before any replication."""
    present = [disk for disk in disks.values() if disk["generationLeft"] == PRESENT]
    per_group = GROUP_BYTES * DATA_PART
    return (
        int(sum(disk["agCount"] for disk in present) * per_group),
        int(sum(disk["agFree"] for disk in present) * per_group),
    )

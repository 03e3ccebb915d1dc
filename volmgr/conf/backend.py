# SPDX-License-Identifier: Apache-2.0
"""Options of a backend: they stand in its own group, in ``[backend_defaults]``, or count as they are here."""

from __future__ import annotations

from oslo_config import cfg

OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "volume_driver",
        default="volmgr.drivers.lvm.LVMVolumeDriver",
        help="Driver, by its name (file, sim…) or its class as a dotted path",
    ),
    cfg.StrOpt("volume_backend_name", help="Name of the backend in capabilities; the group's name without it"),
    cfg.StrOpt("volume_group", default="volmgr-volumes", help="LVM volume group"),
    cfg.StrOpt("backend_availability_zone", help="Zone of this backend, instead of storage_availability_zone"),
    cfg.IntOpt("reserved_percentage", default=0, min=0, max=100, help="Percentage of the capacity that is kept free"),
    cfg.FloatOpt(
        "max_over_subscription_ratio", default=20.0, min=1.0, help="How often the capacity may be promised to volumes"
    ),
    cfg.StrOpt("target_helper", default="lioadm", help="Target, by its name (lioadm, tgtadm, fake…)"),
    cfg.StrOpt("target_protocol", default="iscsi", choices=["iscsi", "iser", "fc", "aoe"], help="Transport"),
    cfg.StrOpt("target_prefix", default="iqn.2010-10.org.openstack:", help="What target names begin with"),
    cfg.HostAddressOpt("target_ip_address", default="$my_ip", help="Address where the target listens"),
    cfg.ListOpt("target_secondary_ip_addresses", default=[], help="Further addresses where the target listens"),
    cfg.PortOpt("target_port", default=3260, help="TCP port where the target listens"),
    cfg.BoolOpt("use_chap_auth", default=True, help="Whether initiators must know a secret made for each volume"),
    cfg.StrOpt("volume_clear", default="zero", choices=["zero", "none"], help="How deleted space is made unreadable"),
    cfg.IntOpt("volume_clear_size", default=0, min=0, help="MiB at the start of a volume to clear, 0 for all of it"),
    cfg.IntOpt("volume_copy_bps_limit", default=0, min=0, help="Bytes a second that copies may take, 0 for no limit"),
    cfg.IntOpt("trash_retention", default=0, min=0, help="Seconds for which a deleted volume can be brought back"),
    cfg.StrOpt("filter_function", help="Expression that says whether the backend may take a volume"),
    cfg.StrOpt("goodness_function", help="Expression that says how well, from 0 to 100, it suits a volume"),
    cfg.DictOpt("extra_capabilities", default={}, help="Further capabilities to report, as key:value pairs"),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Define the options in ``[backend_defaults]``; a backend's own group follows when it is known."""
    conf.register_opts(OPTS, group="backend_defaults")


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return the options by group."""
    return [("backend_defaults", OPTS)]

# SPDX-License-Identifier: Apache-2.0
"""Options of a backend: its driver, its space, and what is done with volumes on it."""

from __future__ import annotations

from oslo_config import cfg, types

from volmgr.conf import groups

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "volume_driver",
        default="volmgr.drivers.lvm.LVMVolumeDriver",
        help="The driver: a short name (file, lvm, sim, …) or module and class.",
    ),
    cfg.StrOpt("volume_backend_name", help="Name of the backend in capabilities; the section's name without it."),
    cfg.StrOpt(
        "backend_availability_zone", help="Availability zone of this backend; storage_availability_zone without it."
    ),
    cfg.IntOpt("reserved_percentage", default=0, min=0, max=100, help="Percentage of the capacity that is kept free."),
    cfg.FloatOpt(
        "max_over_subscription_ratio",
        default=20.0,
        min=1.0,
        help="How many times the capacity may be promised to thin volumes.",
    ),
    cfg.StrOpt("filter_function", help="Expression that says whether the backend may take a volume."),
    cfg.StrOpt("goodness_function", help="Expression that says how well, from 0 to 100, the backend suits a volume."),
    cfg.MultiOpt(
        "replication_device",
        item_type=types.Dict(),
        secret=True,
        help="A backend that this one replicates to: backend_id:name,key:value,… May be given several times. LVM takes "
        "one, with the keys volume_group (the second group) and thin_pool (<group>-pool without it).",
    ),
    cfg.DictOpt("extra_capabilities", default={}, help="Further capabilities to report, as key:value pairs."),
    cfg.StrOpt(
        "volume_clear",
        default="zero",
        choices=["zero", "none"],
        help="How the space of deleted volumes is wiped before it is free. none only for space that the backend itself "
        "never hands out unwiped.",
    ),
    cfg.IntOpt("volume_clear_size", default=0, min=0, help="MiB at the beginning of a volume to wipe; 0 for all."),
    cfg.StrOpt("volume_clear_ionice", help="I/O priority of wiping, as arguments of ionice, such as -c3."),
    cfg.StrOpt(
        "volume_dd_blocksize",
        default="1M",
        regex=r"\A[1-9][0-9]*[KMG]?\Z",
        help="Size of one read and one write when devices are copied; at most 4M.",
    ),
    cfg.IntOpt("volume_copy_bps_limit", default=0, min=0, help="Bytes per second that copies may use; 0 for any."),
    cfg.StrOpt(
        "volume_copy_initiator",
        default="auto",
        help="How this host attaches a volume of another one, to copy into it what moves there: user (iSCSI alone, by "
        "qemu-nbd, without rights), kernel (os-brick and the kernel's initiator, as root), auto (the first of both "
        "that can), or the dotted path of a class.",
    ),
    cfg.IntOpt(
        "trash_retention",
        default=0,
        min=0,
        max=31_536_000,
        help="Seconds that a deleted volume can be brought back by: volmgr volume undelete.",
    ),
    cfg.BoolOpt(
        "image_volume_cache_enabled", default=False, help="Keep a volume of each image, to clone further ones from it."
    ),
    cfg.IntOpt(
        "image_volume_cache_max_size_gb", default=0, min=0, help="GiB that the image cache may use; 0 for any."
    ),
    cfg.IntOpt("image_volume_cache_max_count", default=0, min=0, help="Images in the image cache; 0 for any number."),
]

LVM_OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt("volume_group", default="volmgr-volumes", help="The LVM volume group."),
    cfg.StrOpt(
        "lvm_type", default="auto", choices=["default", "thin", "auto"], help="Thick, thin, or thin if it can be."
    ),
    cfg.IntOpt("lvm_mirrors", default=0, min=0, max=8, help="Copies of each volume beside the first."),
    cfg.StrOpt("lvm_conf_file", help="The lvm.conf that LVM commands are run with; the system's without it."),
    cfg.IntOpt(
        "lvm_pool_data_threshold",
        default=95,
        min=1,
        max=100,
        help="Percentage of a thin pool's data above which nothing is created.",
    ),
    cfg.IntOpt(
        "lvm_pool_metadata_threshold",
        default=90,
        min=1,
        max=100,
        help="Percentage of a thin pool's metadata above which nothing is created.",
    ),
    cfg.IntOpt(
        "lvm_pool_warning_margin",
        default=10,
        min=0,
        max=100,
        help="Percentage points below each threshold of a thin pool from which there is a warning, and growth.",
    ),
    cfg.IntOpt(
        "lvm_pool_autoextend_percent",
        default=0,
        min=0,
        max=100,
        help="Percentage by which a nearly full thin pool, or its metadata, grows from the group's free space; 0 for "
        "never.",
    ),
]

STORPOOL_OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt("storpool_template", help="StorPool template of volumes whose type names none."),
    cfg.IntOpt("storpool_replication", default=3, min=1, max=3, help="Copies of each volume where no template counts."),
    cfg.StrOpt(
        "storpool_config_file",
        default="/etc/storpool.conf",
        help="StorPool's own configuration: its API, its token and the hosts' client ids. Files in the folder of the "
        "same name with .d count too, and so do SP_AUTH_TOKEN, SP_API_HTTP_HOST and SP_API_HTTP_PORT of the "
        "environment; with all three of them no file is needed.",
    ),
]

ALL = [*OPTIONS, *LVM_OPTIONS, *STORPOOL_OPTIONS]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register these options where every backend finds them."""
    conf.register_opts(ALL, group=groups.BACKEND_DEFAULTS)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return these options by group."""
    return [(groups.BACKEND_DEFAULTS, list(ALL))]

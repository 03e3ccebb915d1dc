# SPDX-License-Identifier: Apache-2.0
"""Options of images: where they are kept, and what converting one may use."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "images"

OPTIONS: list[cfg.Opt] = [
    cfg.DictOpt(
        "stores",
        default={},
        help="Where images are kept, as name:URL pairs: file:///FOLDER, https://HOST/PATH (read only), http://… or "
        "glance://CLOUD, a cloud of clouds.yaml. Without any: one named local, in images/store of state_path.",
    ),
    cfg.StrOpt(
        "default_store", default="local", help="The store of images that are named without one: ID, not STORE/ID."
    ),
    cfg.StrOpt(
        "staging_path",
        help="Folder for images on their way from other hosts, and for conversions; it needs room for the largest one. "
        "Default: images/staging in state_path",
    ),
    cfg.StrOpt("https_ca_file", help="Certificates that sign those of https stores; the system's without it."),
    cfg.IntOpt("http_timeout", default=30, min=1, help="Seconds without a byte after which a transfer is resumed."),
    cfg.IntOpt("http_tries", default=5, min=1, help="How often a transfer that brings no byte is tried."),
    cfg.IntOpt("convert_memory_mb", default=1024, min=64, help="MiB of address space that qemu-img may use."),
    cfg.IntOpt("inspect_cpu_seconds", default=30, min=1, help="CPU seconds that looking at an image may take."),
    cfg.IntOpt("convert_cpu_seconds", default=7200, min=1, help="CPU seconds that converting an image may take."),
    cfg.IntOpt("convert_timeout", default=43200, min=1, help="Seconds after which a conversion is ended."),
    cfg.StrOpt(
        "cache_project",
        default="volmgr-images",
        help="Project that the volumes of the image cache belong to; no quota limits it.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register these options."""
    conf.register_opts(OPTIONS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return these options by group."""
    return [(GROUP, list(OPTIONS))]

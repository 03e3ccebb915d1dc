# SPDX-License-Identifier: Apache-2.0
"""Options of ``[backup]``: where backups go besides ``backup_store``, and how."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "backup"

OPTIONS: list[cfg.Opt] = [
    cfg.DictOpt(
        "stores",
        default={},
        help="Further backup stores as NAME:URL,NAME:URL; the one of backup_store has the name default. A folder must "
        "be the same one on every host.",
    ),
    cfg.StrOpt("s3_access_key", help="Access key of S3 stores; AWS_ACCESS_KEY_ID of the environment without it."),
    cfg.StrOpt(
        "s3_secret_key",
        secret=True,
        help="Secret key of S3 stores; AWS_SECRET_ACCESS_KEY of the environment without it.",
    ),
    cfg.StrOpt("s3_region", help="Region of S3 stores; AWS_REGION of the environment, else us-east-1, without it."),
    cfg.IntOpt(
        "compression_level", default=3, min=1, max=19, help="Level of zstd: more takes less space and more time."
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register these options."""
    conf.register_opts(OPTIONS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return these options by group."""
    return [(GROUP, list(OPTIONS))]

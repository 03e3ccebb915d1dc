# SPDX-License-Identifier: Apache-2.0
"""Options of a backend's target: how its volumes are shown to initiators."""

from __future__ import annotations

from oslo_config import cfg, types

from volmgr.conf import groups

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "target_helper",
        default="lioadm",
        help="What exports the volumes: lioadm, tgtadm, iseradm, fcadm, vblade, fake. Empty for a driver that needs "
        "none; with any other driver only this host itself can connect then, by the path.",
    ),
    cfg.StrOpt(
        "target_protocol", default="iscsi", choices=["iscsi", "iser", "fc", "aoe"], help="Protocol of the exports."
    ),
    cfg.StrOpt(
        "target_prefix",
        default="iqn.2010-10.org.openstack:",
        regex=r"\A[a-z0-9.:-]+\Z",
        help="What the names of our targets begin with; every other target is left alone.",
    ),
    cfg.HostAddressOpt("target_ip_address", default="$my_ip", help="Address that the target listens on."),
    cfg.ListOpt(
        "target_secondary_ip_addresses",
        default=[],
        item_type=types.HostAddress(),
        help="Further addresses for multipath.",
    ),
    cfg.PortOpt("target_port", default=3260, help="TCP port that the target listens on."),
    cfg.StrOpt("tgt_socket", help="Control socket of a tgtd that somebody else runs, instead of a private one."),
    cfg.IntOpt("tgt_threads", default=1, min=1, max=64, help="I/O threads of a private tgtd for each volume."),
    cfg.BoolOpt("use_chap_auth", default=True, help="Whether initiators must authenticate by CHAP."),
    cfg.StrOpt("chap_username", default="", help="CHAP user; made for each volume if empty."),
    cfg.StrOpt("chap_password", default="", secret=True, help="CHAP secret; made for each volume if empty."),
    cfg.HostAddressOpt("iser_ip_address", default="$my_ip", help="Address that an iSER target listens on."),
    cfg.PortOpt("iser_port", default=3260, help="Port that an iSER target listens on."),
    cfg.StrOpt(
        "iser_target_prefix",
        default="iqn.2010-10.org.openstack:",
        regex=r"\A[a-z0-9.:-]+\Z",
        help="What the names of our iSER targets begin with.",
    ),
    cfg.StrOpt(
        "iser_helper", default="iseradm", choices=["iseradm", "lioadm", "fake"], help="What makes iSER exports."
    ),
    cfg.StrOpt(
        "fc_fabric",
        default="tcm_fc",
        choices=["tcm_fc", "qla2xxx"],
        help="LIO's Fibre Channel fabric: FCoE, or a QLogic adapter in target mode.",
    ),
    cfg.ListOpt("fc_target_wwpns", default=[], help="WWPNs of this host's ports that serve the volumes."),
    cfg.ListOpt(
        "fc_initiator_wwpns",
        default=[],
        help="WWPNs of the hosts that will attach volumes. Each has an entry before it logs in, which it must have.",
    ),
    cfg.StrOpt("fc_zone_manager", help="Dotted path of a volmgr.targets.zones.ZoneManager, if there is one."),
    cfg.StrOpt("aoe_eth_dev", default="eth0", help="Network interface for ATA over Ethernet."),
    cfg.IntOpt("aoe_first_shelf_id", default=0, min=0, max=65534, help="First shelf of this host's AoE exports."),
    cfg.IntOpt("aoe_last_shelf_id", default=99, min=0, max=65534, help="Last shelf of this host's AoE exports."),
    cfg.IntOpt("aoe_slots_per_shelf", default=16, min=1, max=255, help="Blades (exports) in one shelf."),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register these options where every backend finds them."""
    conf.register_opts(OPTIONS, group=groups.BACKEND_DEFAULTS)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return these options by group."""
    return [(groups.BACKEND_DEFAULTS, list(OPTIONS))]

# SPDX-License-Identifier: Apache-2.0
"""Who connects: what of a connector tells one initiator from another. This module looks nothing up."""

from __future__ import annotations

from typing import Any

#: The protocols whose initiators have port names, and how a peer's key begins.
PORTS = {"fibre_channel": "fc", "aoe": "aoe"}


def port_names(connector: dict[str, Any], protocol: str) -> tuple[str, ...]:
    """Return the sorted port names of who connects, as digits alone: Fibre Channel's WWPNs or Ethernet addresses.

    However they are spelt: the same port under two names would be two hosts, which share numbers.
    """
    setting = {"fibre_channel": "wwpns", "aoe": "aoe_macs"}.get(protocol, "")
    return tuple(sorted({_digits(name) for name in connector.get(setting) or ()}))


def _digits(name: object) -> str:
    digits = str(name).strip().lower().removeprefix("0x").removeprefix("naa.")
    return digits.replace(":", "").replace("-", "")


def peer_key(connector: dict[str, Any], protocol: str) -> str:
    """Return the canonical name of who connects: two connectors of one initiator give the same."""
    if protocol in PORTS:
        return f"{PORTS[protocol]}:{','.join(port_names(connector, protocol))}"[:255]
    if connector.get("initiator"):
        return "iqn:" + str(connector["initiator"]).lower()
    return "host:" + str(connector.get("host") or connector.get("ip") or "")

# SPDX-License-Identifier: Apache-2.0
"""One initiator has one name, however its ports are spelt."""

from __future__ import annotations

import pytest

from volmgr.peers import peer_key, port_names


@pytest.mark.parametrize("spelt", ["20:00:52:54:00:AA:00:02", "0x2000525400aa0002", "naa.2000525400aa0002"])
def test_a_fibre_channel_port_is_the_same_in_any_spelling(spelt: str) -> None:
    plain = {"wwpns": ["2000525400aa0002"]}
    assert port_names({"wwpns": [spelt]}, "fibre_channel") == ("2000525400aa0002",)
    assert peer_key({"wwpns": [spelt]}, "fibre_channel") == peer_key(plain, "fibre_channel")


@pytest.mark.parametrize("spelt", ["02:00:00:00:00:0A", "02-00-00-00-00-0a", "02000000000a"])
def test_an_ethernet_address_is_the_same_in_any_spelling(spelt: str) -> None:
    assert peer_key({"aoe_macs": [spelt, "02:00:00:00:00:01"]}, "aoe") == "aoe:020000000001,02000000000a"


def test_an_iscsi_initiator_is_its_name_and_else_the_host() -> None:
    assert peer_key({"initiator": "IQN.a:B", "host": "h"}, "iscsi") == "iqn:iqn.a:b"
    assert peer_key({"host": "h"}, "iscsi") == "host:h"

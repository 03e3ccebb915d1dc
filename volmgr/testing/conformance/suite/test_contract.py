# SPDX-License-Identifier: Apache-2.0
"""Conformance: what a driver says of itself is true, and what it cannot do changes nothing. Knows no driver."""

from __future__ import annotations

import inspect
from typing import Any

from volmgr import exception
from volmgr.drivers.interfaces import VERBS, supports
from volmgr.testing.conformance.bench import Bench

#: What a marked default may return: the documented values that mean "not done here, nothing changed".
NOTHING: tuple[Any, ...] = (None, False, True, (None, None), (False, None), (None, False), [])


class TestContract:
    def test_unsupported_verbs_change_nothing(self, bench: Bench) -> None:
        volume = bench.created()
        snapshot = bench.snapshot(volume)
        before = bench.seen()
        unsupported = [verb for verb in VERBS if not supports(bench.driver, verb)]
        for verb in unsupported:
            method = getattr(bench.driver, verb, None)
            if method is None:
                continue
            try:
                result = method(**_arguments(method, volume, snapshot))
            except exception.Unsupported:
                continue
            assert result in NOTHING, f"{verb} is not supported and returned {result!r}"
        assert bench.seen() == before

    def test_a_driver_can_at_least_create_and_delete(self, bench: Bench) -> None:
        for verb in ("create_volume", "delete_volume", "check_for_setup_error", "get_volume_stats"):
            assert supports(bench.driver, verb), verb

    def test_the_setup_can_be_checked_again(self, bench: Bench) -> None:
        volume = bench.created()
        before = bench.seen()
        bench.driver.do_setup(None)
        bench.driver.check_for_setup_error()
        assert bench.seen() == before
        assert volume.name_id in before

    def test_capabilities_hold_the_statistics(self, bench: Bench) -> None:
        bench.driver.init_capabilities()
        capabilities = bench.driver.capabilities
        assert capabilities["volume_backend_name"] == bench.driver.backend_name
        assert capabilities["properties"]["thin_provisioning"]["type"] == "boolean"

    def test_options_have_names_and_help(self, bench: Bench) -> None:
        options = type(bench.driver).get_driver_options()
        assert all(option.help for option in options)
        for option in options:
            assert hasattr(bench.driver.configuration, option.dest)


def _arguments(method: Any, volume: Any, snapshot: Any) -> dict[str, Any]:
    """Return something for every argument of a verb that has no default."""
    known = {
        "volume": volume,
        "src_vref": volume,
        "src_vol": volume,
        "dest_vol": volume,
        "new_volume": volume,
        "resource": volume,
        "snapshot": snapshot,
        "volumes": [volume],
        "snapshots": [snapshot],
        "existing_ref": {"source-name": volume.name},
        "host": {"host": "elsewhere@backend"},
        "diff": {},
        "connector": {},
        "image_meta": {"id": "image"},
        "cinder_volumes": [],
        "cinder_snapshots": [],
    }
    parameters = inspect.signature(method).parameters.values()
    return {
        item.name: known.get(item.name)
        for item in parameters
        if item.default is item.empty and item.kind is item.POSITIONAL_OR_KEYWORD
    }
